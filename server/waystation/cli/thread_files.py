"""What `waystation threads` does: one thread into a file, and back."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Literal
from uuid import UUID, uuid4

from waystation.auth.principal import is_tenant_id
from waystation.catalog.project import configure
from waystation.cli.failures import CommandError, UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import all_to_stdout, say
from waystation.process import database_uri
from waystation.services.encryption import on_this_loop, open_cipher
from waystation_db import backup_threads
from waystation_db.backup_threads import Imported, Target
from waystation_db.migrate import check
from waystation_db.pool import Database


def export_one(
    config: Path | None, thread: str, file: str, *, tenant: str, runs: bool, namespaces: Sequence[str]
) -> None:
    """Write a thread to a file, or `-`.

    Raises:
        UsageError: no id, no such file. BackupRefused: there is no such thread. Others as other commands.
    """
    thread_id = _id(thread)
    _check_tenant(tenant)
    labels = [tuple(one.split(".")) for one in namespaces]
    if any("" in one for one in labels):
        raise UsageError("--store: expected a namespace like users.u1")
    uri = database_uri(settings_of(config))

    async def write(into: IO[str]) -> int:
        await check(uri)
        count = 0
        async with Database(uri, max_size=1, name="waystation-cli", prepare=False) as db, db.connection() as conn:
            async for line in backup_threads.export_thread(conn, tenant, thread_id, runs=runs, namespaces=labels):
                into.write(line + "\n")
                count += 1
        into.flush()
        return count - 2

    if file == "-":
        with all_to_stdout():
            rows = asyncio.run(write(sys.stdout))
    else:
        half = Path(f"{file}.part")
        try:
            with half.open("w", encoding="utf-8", newline="\n") as into:
                rows = asyncio.run(write(into))
            half.replace(file)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        finally:
            half.unlink(missing_ok=True)
    say(f"Exported {rows} rows of thread {thread_id}.", err=True)


def import_one(
    config: Path | None, file: str, *, tenant: str | None, new_id: bool, queued: Literal["paused", "pending"]
) -> None:
    """Put a thread from a file, or `-`, into the database.

    Raises:
        UsageError: no such file. BackupRefused: it is damaged, or the thread is here already.
    """
    if tenant is not None:
        _check_tenant(tenant)
    with ExitStack() as opened:
        if file == "-":
            lines = opened.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n"))
            shutil.copyfileobj(sys.stdin, lines)
            lines.seek(0)
        else:
            try:
                lines = opened.enter_context(open(file, encoding="utf-8", newline="\n"))
            except OSError as error:
                raise UsageError(f"{file}: {error.strerror}") from None
        try:
            done = asyncio.run(_import(config, lines, tenant=tenant, new_id=new_id, queued=queued))
        except UnicodeDecodeError:
            raise UsageError(f"{file} is no text in UTF-8") from None
    say(f"Imported {done.rows} rows as thread {done.thread_id}, {done.runs} runs.")


async def _import(
    config: Path | None, lines: IO[str], *, tenant: str | None, new_id: bool, queued: Literal["paused", "pending"]
) -> Imported:
    head = backup_threads.read_head(lines)
    lines.seek(0)
    uri = database_uri(settings_of(config))
    await check(uri)
    async with Database(uri, max_size=2, name="waystation-cli", prepare=False) as db:
        cipher = None
        if new_id and (config is not None or (Path.cwd() / CONFIG_NAME).is_file()):
            cipher = on_this_loop(await open_cipher(*configure(config, root=Path.cwd()), db))
        target = Target(tenant or str(head["tenant"]), str(uuid4()) if new_id else None, queued)
        async with db.connection() as conn:
            return await backup_threads.import_thread(conn, head, iter(lines), target=target, cipher=cipher)


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is no id of a thread") from None


def _check_tenant(tenant: str) -> None:
    if not is_tenant_id(tenant):
        raise UsageError(f"--tenant {tenant!r}: expected letters, digits and . _ : @ | + = ~ - (at most 128)")
