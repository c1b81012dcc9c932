"""`waystation encrypt`: what in a database is not encrypted as it should be, and encrypting it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from waystation.catalog.project import Project, configure
from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import say
from waystation.config import Settings
from waystation.process import database_uri
from waystation.services.encryption import key_in_use, on_this_loop, open_cipher
from waystation_db import assistant_sealing, resealing
from waystation_db.pool import Database
from waystation_db.resealing import OF_ASSISTANTS, TABLES, Progress

_SHOWN_FAILURES = 10
_ASSISTANTS_WAIT = (
    "Assistants stay plain for now, and so does what runs have from them: processes of the version before may "
    "still run and cannot read them encrypted. When the last one has ended: `waystation migrate --phase post`, "
    "then this command again."
)


def run(config: Path | None, *, apply: bool, again: bool, batch: int) -> bool:
    """Go through every table; with `apply` rewrite what is plain or under another key, with `again` everything. Whether
    all of it could be read.

    Raises:
        ConfigError: no DATABASE_URI, or keys or handlers that cannot be used. UsageError: neither keys nor handlers.
        DatabaseUnavailable: Postgres does not answer.
    """
    settings, project = _configured(config)
    done = asyncio.run(_all(settings, project, apply=apply, again=again, batch=batch))
    failed = [f"{one.table} {key}" for one in done for key in one.failed]
    if failed:
        shown = "\n".join(f"  {name}" for name in failed[:_SHOWN_FAILURES])
        say(f"{len(failed)} values cannot be decrypted with the keys that are here, such as:\n{shown}")
    if not apply and any(one.plain or one.old for one in done):
        say("`waystation encrypt --apply` encrypts what is plain or under another key.")
    return not failed


def _configured(config: Path | None) -> tuple[Settings, Project | None]:
    if config is None and not (Path.cwd() / CONFIG_NAME).is_file():
        return settings_of(None), None
    return configure(config, root=Path.cwd())


async def _all(settings: Settings, project: Project | None, *, apply: bool, again: bool, batch: int) -> list[Progress]:
    async with Database(database_uri(settings), max_size=2, name="waystation-cli", prepare=False) as db:
        cipher = on_this_loop(await open_cipher(settings, project, db))
        if cipher is None or not cipher.seals:
            raise UsageError("there is nothing to encrypt with: set WAYSTATION_ENCRYPTION_KEYS or LANGGRAPH_AES_KEY")
        done: list[Progress] = []
        async with db.connection() as conn:
            if not (assistants := await assistant_sealing.may_be_sealed(conn)):
                say(_ASSISTANTS_WAIT)
            say(f"{'table':<24} {'rows':>10} {'plain':>10} {'other key':>10} {'rewritten':>10} {'unreadable':>10}")
            for table in TABLES:
                if table in OF_ASSISTANTS and not assistants:
                    continue
                progress = await resealing.rewrite(
                    conn, cipher, table, apply=apply, assistants=assistants, again=again, batch=batch
                )
                done.append(progress)
                say(_line(progress))
            if apply and not any(one.failed for one in done):
                await resealing.forget_other_keys(conn, key_in_use(cipher))
    return done


def _line(one: Progress) -> str:
    return f"{one.table:<24} {one.seen:>10} {one.plain:>10} {one.old:>10} {one.rewritten:>10} {len(one.failed):>10}"
