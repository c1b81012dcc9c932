"""What `waystation audit` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.terminal import result, say
from waystation.guarding.audit import PostgresAuditLog
from waystation.guarding.audit_pruning import Verified, verify_chain
from waystation.process import database_uri
from waystation_db import audit as rows
from waystation_db.migrate import check
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditHead, AuditRecord
from waystation_guards.audit.chain import BEGINNING, Verdict, verify
from waystation_guards.audit.export import as_line, from_lines


def export_all(config: Path | None, *, tenant: str, after: int, action: str | None) -> None:
    """Print a tenant's records, one a line.

    Raises:
        ConfigError: no DATABASE_URI. DatabaseUnavailable: Postgres does not answer.
    """

    async def export() -> None:
        async with database(config) as db:
            async for record in PostgresAuditLog(db).read(tenant, after=after, action=action):
                result(as_line(record))

    asyncio.run(export())


@dataclass(frozen=True, slots=True)
class Verifying:
    """What is to be verified. `files`: exports in place of the database; `archives`: what prunes removed from it."""

    tenant: str | None = None
    files: Sequence[Path] = ()
    archives: Sequence[Path] = ()
    after: str | None = None
    expect: str | None = None


def verify_all(config: Path | None, asked: Verifying) -> bool:
    """Print what becomes of each chain; whether all are whole.

    Raises:
        UsageError: SEQ:HASH or a file cannot be read. ConfigError, DatabaseUnavailable: as `export_all`.
    """
    expected = None if asked.expect is None else _head("--expect", asked.expect)
    start = BEGINNING if asked.after is None else _head("--after", asked.after)
    if asked.files:
        verdict = asyncio.run(_of_files(asked.files, expected, start))
        return _told(", ".join(map(str, asked.files)), Verified(verdict, None), start)

    async def of_database() -> bool:
        async with database(config) as db:
            if asked.tenant is not None:
                tenants: Sequence[str] = [asked.tenant]
            else:
                async with db.connection() as conn:
                    tenants = await rows.list_tenants(conn)
            archived = (lambda: _records(asked.archives)) if asked.archives else None
            found = [
                (one, await verify_chain(db, one, expected=expected, archived=archived, start=start)) for one in tenants
            ]
        if not found:
            say("There is none.")
        whole = [_told(one, verified, start if asked.archives else None) for one, verified in found]
        return all(whole)

    return asyncio.run(of_database())


async def _of_files(files: Sequence[Path], expected: AuditHead | None, start: AuditHead) -> Verdict:
    return await verify(_records(files), expected=expected, start=start)


async def _records(files: Sequence[Path]) -> AsyncIterator[AuditRecord]:
    """What the files hold, one after the other. Raises UsageError where one cannot be read."""
    for file in files:
        try:
            with file.open(encoding="utf-8") as lines:
                async for record in from_lines(lines):
                    yield record
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"{file}: {error}") from None


def _told(name: str, found: Verified, start: AuditHead | None) -> bool:
    """Print a verdict. `start`: what was read begins after it; None where it begins after the anchor."""
    verdict, anchor = found.verdict, found.anchor
    if verdict.fault is None:
        say(f"whole   {name}  {verdict.records} records  {verdict.head.seq}:{verdict.head.hash.hex()}")
    else:
        say(f"BROKEN  {name}  record {verdict.fault.seq} {verdict.fault.problem}")
    if start is None and anchor is not None:
        say(
            f"        {anchor.seq} before them were removed, the last {anchor.removed} on "
            f"{anchor.at.astimezone(UTC):%Y-%m-%d %H:%M} by {anchor.by}: {anchor.seq}:{anchor.hash.hex()}"
        )
    elif start is not None and start.seq:
        say(f"        after {start.seq}:{start.hash.hex()}")
    return verdict.is_whole


def _head(option: str, text: str) -> AuditHead:
    seq, _, digest = text.partition(":")
    try:
        head = AuditHead(int(seq), bytes.fromhex(digest))
    except ValueError:
        head = BEGINNING
    if head.seq < 1 or len(head.hash) != 32:
        raise UsageError(f"{option} {text!r}: expected SEQ:HASH, as `waystation audit verify` prints it")
    return head


@asynccontextmanager
async def database(config: Path | None) -> AsyncGenerator[Database]:
    """The database of DATABASE_URI, for one command."""
    settings = settings_of(config)
    uri = database_uri(settings)
    await check(uri)
    async with Database(uri, max_size=2, name="waystation-cli", prepare=False) as db:
        yield db
