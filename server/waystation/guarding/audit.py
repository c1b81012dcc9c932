"""The audit log on Postgres: entries are gathered in memory and written in batches, by one task of each process.

    record(entry) ─▶ waiting ─▶ one batch in flight ─▶ waystation_audit_append, tenant by tenant

`record` costs a request or a tool call some microseconds. What waits when a process is killed is lost, at most what
came in within one write; `durable` makes `record` wait for the commit instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from waystation.telemetry import metrics
from waystation_db import audit as rows
from waystation_db.errors import DatabaseError, DatabaseUnavailable
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditEntry, AuditHead, AuditRecord
from waystation_guards.audit.chain import GENESIS

log = logging.getLogger(__name__)

GATHER_S: Final = 0.05
"""How long the first entry waits for others to be written with it."""
MOST_WAITING: Final = 20_000
_BATCH = 500
_PAGE = 1000
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_CLOSE_S = 5.0


class PostgresAuditLog:
    """The chains in Postgres: `waystation_guards.audit.AuditLog` without the gathering. On the database's loop."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def record(self, *entries: AuditEntry) -> None:
        """As `append`."""
        await self.append(entries)

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Write entries, tenant by tenant; those of one tenant all or none. Commits.

        Raises:
            DatabaseUnavailable: Postgres does not answer; of several tenants some may be written.
        """
        for tenant in sorted({entry.tenant for entry in entries}):
            texts = [entry.as_json() for entry in entries if entry.tenant == tenant]
            async with self.db.connection() as conn:
                await rows.append(conn, tenant, texts)

    async def read(
        self, tenant: str, *, after: int = 0, limit: int | None = None, action: str | None = None
    ) -> AsyncIterator[AuditRecord]:
        """A tenant's records in order, page by page; no connection is held while the caller looks at them."""
        left = limit
        while left is None or left > 0:
            wanted = _PAGE if left is None else min(_PAGE, left)
            async with self.db.connection() as conn:
                page = await rows.read_page(conn, tenant, after=after, limit=wanted, action=action)
            for row in page:
                yield AuditRecord(tenant, row.seq, row.at, row.entry, row.prev, row.hash)
            if len(page) < wanted:
                return
            after = page[-1].seq
            left = None if left is None else left - len(page)

    async def head(self, tenant: str) -> AuditHead:
        """Where the tenant's chain ends."""
        async with self.db.connection() as conn:
            found = await rows.get_head(conn, tenant)
        return AuditHead(0, GENESIS) if found is None else AuditHead(*found)

    async def anchor(self, tenant: str) -> rows.AnchorRow | None:
        """What was removed last of the chain's beginning; None where nothing ever was."""
        async with self.db.connection() as conn:
            return await rows.get_anchor(conn, tenant)


class AuditWriter:
    """Gathers entries of all loops and threads of a process, and writes them on the loop that it was opened on."""

    def __init__(self, inner: PostgresAuditLog, *, durable: bool = False) -> None:
        self.log = inner
        self.durable = durable
        self._waiting: deque[tuple[AuditEntry, Future[None] | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def running(cls, inner: PostgresAuditLog, *, durable: bool = False) -> AsyncGenerator[AuditWriter]:
        """A writer that writes until the block is left, and what waits then for some seconds more."""
        writer = cls(inner, durable=durable)
        task = asyncio.create_task(writer._write_all(), name="audit")
        try:
            yield writer
        finally:
            writer._closing = True
            writer._came.set()
            done, _ = await asyncio.wait([task], timeout=_CLOSE_S)
            if not done:
                task.cancel()
                await asyncio.wait([task])
            writer._lose(len(writer._waiting))

    async def record(self, *entries: AuditEntry) -> None:
        """Give entries to the log. Never raises; waits for the commit where the log is durable."""
        written = self.note(*entries)
        if written is not None:
            await asyncio.wait([asyncio.wrap_future(written)])

    def note(self, *entries: AuditEntry) -> Future[None] | None:
        """As `record`, without waiting: the future is done when the last of them is written, or lost."""
        if not entries or len(self._waiting) >= MOST_WAITING or self._closing:
            self._lose(len(entries))
            return None
        written = Future[None]() if self.durable else None
        for entry in entries[:-1]:
            self._waiting.append((entry, None))
        self._waiting.append((entries[-1], written))
        if not self._came.is_set():
            try:
                self._loop.call_soon_threadsafe(self._came.set)
            except RuntimeError:  # the loop has ended, and the log with it
                self._lose(len(entries))
        return written

    async def _write_all(self) -> None:
        while not (self._closing and not self._waiting):
            await self._came.wait()
            if not self._closing and not self.durable:
                await asyncio.sleep(GATHER_S)
            self._came.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                try:
                    await self._write([entry for entry, _ in batch])
                finally:
                    for _, written in batch:
                        if written is not None:
                            written.set_result(None)

    async def _write(self, entries: Sequence[AuditEntry]) -> None:
        for tenant in sorted({entry.tenant for entry in entries}):
            mine = [entry for entry in entries if entry.tenant == tenant]
            try:
                await self._insist(mine)
                metrics.AUDIT_RECORDS.inc(len(mine))
            except (psycopg.Error, DatabaseError):
                await self._write_one_by_one(mine)

    async def _write_one_by_one(self, entries: Sequence[AuditEntry]) -> None:
        """What cannot be written must not take others with it. It is in the log of the process, without its members."""
        for entry in entries:
            try:
                await self._insist([entry])
                metrics.AUDIT_RECORDS.inc()
            except (psycopg.Error, DatabaseError):
                log.exception("an audit entry could not be written", extra={"action": entry.action})
                self._lose(1)

    async def _insist(self, entries: Sequence[AuditEntry]) -> None:
        """Write, again while Postgres is away: entries come in the order in which things happened; none overtakes.

        A commit whose answer was lost is made twice: the log says so rather twice than not at all.
        """
        number = 0
        while True:
            try:
                return await self.log.append(entries)
            except DatabaseUnavailable:
                if self._closing:
                    raise
                log.warning(
                    "the audit log's database does not answer; entries wait", extra={"waiting": len(self._waiting)}
                )
                await asyncio.sleep(_RETRY_S[min(number, len(_RETRY_S) - 1)])
                number += 1

    def _lose(self, count: int) -> None:
        if count:
            metrics.AUDIT_LOST.inc(count)
            log.error("audit entries were lost: too many waited, or the process stopped", extra={"lost": count})
