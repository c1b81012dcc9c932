"""What `waystation audit` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.terminal import say
from waystation.guarding.audit import PostgresAuditLog
from waystation.process import database_uri
from waystation_db import audit as rows
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditHead
from waystation_guards.audit.chain import Verdict, verify, verify_log
from waystation_guards.audit.export import as_line, from_lines


def export_all(config: Path | None, *, tenant: str, after: int, action: str | None) -> None:
    """Print a tenant's records, one a line.

    Raises:
        ConfigError: no DATABASE_URI. DatabaseUnavailable: Postgres does not answer.
    """

    async def export() -> None:
        async with _database(config) as db:
            async for record in PostgresAuditLog(db).read(tenant, after=after, action=action):
                say(as_line(record))

    asyncio.run(export())


def verify_all(config: Path | None, *, tenant: str | None, file: Path | None, expect: str | None) -> bool:
    """Print what becomes of each chain; whether all are whole.

    Raises:
        UsageError: `expect` or the file cannot be read. ConfigError, DatabaseUnavailable: as `export_all`.
    """
    expected = None if expect is None else _head(expect)
    if file is not None:
        return _told(str(file), asyncio.run(_of_file(file, expected)))

    async def of_database() -> bool:
        async with _database(config) as db:
            log = PostgresAuditLog(db)
            async with db.connection() as conn:
                tenants = [tenant] if tenant is not None else await rows.list_tenants(conn)
            verdicts = [(one, await verify_log(log, one, expected=expected)) for one in tenants]
        if not verdicts:
            say("There is none.")
        whole = [_told(one, verdict) for one, verdict in verdicts]
        return all(whole)

    return asyncio.run(of_database())


async def _of_file(file: Path, expected: AuditHead | None) -> Verdict:
    try:
        with file.open(encoding="utf-8") as lines:
            return await verify(from_lines(lines), expected=expected)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}") from None


def _told(name: str, verdict: Verdict) -> bool:
    if verdict.fault is None:
        say(f"whole   {name}  {verdict.records} records  {verdict.head.seq}:{verdict.head.hash.hex()}")
    else:
        say(f"BROKEN  {name}  record {verdict.fault.seq} {verdict.fault.problem}")
    return verdict.is_whole


def _head(text: str) -> AuditHead:
    seq, _, digest = text.partition(":")
    try:
        head = AuditHead(int(seq), bytes.fromhex(digest))
    except ValueError:
        raise UsageError(f"--expect {text!r}: expected SEQ:HASH, as `waystation audit verify` prints it") from None
    if head.seq < 1 or len(head.hash) != 32:
        raise UsageError(f"--expect {text!r}: expected SEQ:HASH, as `waystation audit verify` prints it")
    return head


@asynccontextmanager
async def _database(config: Path | None) -> AsyncGenerator[Database]:
    settings = settings_of(config)
    uri = database_uri(settings)
    async with Database(uri, max_size=2, name="waystation-cli", prepare=False) as db:
        yield db
