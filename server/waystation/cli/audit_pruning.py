"""What `waystation audit prune` does: it removes what it verified, and archives it before where it is asked to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from waystation.cli.audit import database
from waystation.cli.failures import CommandError, UsageError
from waystation.cli.keys import operator
from waystation.cli.terminal import say
from waystation.guarding.audit_pruning import Prefix, find_prefix, records_of, remove
from waystation_db import audit as rows
from waystation_db.errors import AuditBroken
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditRecord
from waystation_guards.audit.export import as_line


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is to be removed: records before `before`, or of days before so many whole ones (UTC)."""

    tenant: str | None
    before: datetime | None
    older_than: int | None
    archive: Path | None
    apply: bool


def prune_all(config: Path | None, asked: Pruning) -> bool:
    """Say what goes, and with `apply` let it go; whether all of it was whole.

    Raises:
        UsageError: the archive cannot be written, or is there already, or the time is still to come. CommandError:
        somebody else prunes. ConfigError: no DATABASE_URI. DatabaseUnavailable: Postgres does not answer.
    """
    if asked.archive is not None and asked.archive.exists():
        raise UsageError(f"{asked.archive} is there already: an archive is never written over")

    async def work() -> bool:
        async with database(config) as db:
            before = await _before(db, asked)
            async with db.connection() as conn:
                tenants = [asked.tenant] if asked.tenant is not None else await rows.list_due(conn, before=before)
            found = [await find_prefix(db, one, before=before) for one in tenants]
            prefixes = [one for one in found if one is not None]
            if not prefixes:
                say(f"Nothing is older than {before:%Y-%m-%d %H:%M} UTC.")
            elif not asked.apply:
                say("Nothing is removed without --apply:")
            return all([await _prune(db, one, asked) for one in prefixes])

    return asyncio.run(work())


async def _before(db: Database, asked: Pruning) -> datetime:
    async with db.connection() as conn:
        if asked.before is None:
            return (await rows.days_ago(conn, days=asked.older_than or 1)).astimezone(UTC)
        before = asked.before if asked.before.tzinfo is not None else asked.before.replace(tzinfo=UTC)
    if before > datetime.now(UTC):
        raise UsageError(f"--before {before:%Y-%m-%d %H:%M} UTC: that time is still to come")
    return before.astimezone(UTC)


async def _prune(db: Database, prefix: Prefix, asked: Pruning) -> bool:
    """One tenant's; false where it is not whole."""
    file = asked.archive if asked.apply else None
    try:
        await (_verified(db, prefix) if file is None else _archived(db, prefix, file))
        if asked.apply and not await remove(db, prefix, by=operator(), archive="" if file is None else file.name):
            raise CommandError(f"{prefix.tenant}: another prune was here meanwhile; look again")
    except AuditBroken as error:
        say(f"BROKEN  {prefix.tenant}  {error}; nothing of it is removed")
        return False
    say(
        f"{'pruned ' if asked.apply else 'would prune'}  {prefix.tenant}  {prefix.count} records  up to "
        f"{prefix.upto.seq}:{prefix.upto.hash.hex()}"
    )
    return True


async def _verified(db: Database, prefix: Prefix) -> None:
    async for _ in records_of(db, prefix):
        pass


async def _archived(db: Database, prefix: Prefix, file: Path) -> None:
    """Write what goes to a file that is there as a whole or not at all, and is on the disk before anything goes."""
    part = file.with_name(f"{file.name}.part")
    try:
        await _write(part, records_of(db, prefix))
        os.link(part, file)  # which writes over nobody's, as a rename would
        _sync(file.parent)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


async def _write(part: Path, records: AsyncIterator[AuditRecord]) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it says who did what
    with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
        async for record in records:
            lines.write(as_line(record) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
