"""The event log as the server lays it out, for tests: a writer, a reader, and runs between them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

import uvloop
from psycopg.types.json import Jsonb

from waystation.events import BEGINNING, End, Event, EventId, EventLog, MemoryStore
from waystation.events.log import ThreadWatch
from waystation.events.routed import RoutedLog, in_memory, in_process, over_postgres, over_redis
from waystation_db.events import CHANNEL
from waystation_db.listen import Listener
from waystation_db.pool import Database
from waystation_db.rows import RunKey

Mode = Literal["memory", "process", "redis", "postgres"]
MODES: tuple[Mode, ...] = ("memory", "process", "redis", "postgres")
# The fixtures with the addresses of what a mode runs on.
NEEDS: dict[Mode, tuple[str, ...]] = {
    "memory": (),
    "process": ("database_uri",),
    "redis": ("database_uri", "redis_url"),
    "postgres": ("database_uri",),
}
# Beyond it a reader that does not read loses events, where they are not in Postgres.
KEPT_BYTES = 256 * 1024
DEADLINE_S = 60.0

T = TypeVar("T")


@dataclass
class Run:
    """A run that is executing: its row, where there is a database, and the numbers of its events."""

    db: Database | None
    resumable: bool
    key: RunKey = field(default_factory=lambda: RunKey("default", str(uuid.uuid4()), str(uuid.uuid4())))
    attempt: int = 1
    epoch_ms: int = 1_800_000_000_000
    counter: int = 0

    async def insert(self) -> Self:
        await self._execute("insert into thread (thread_id) values (%(thread_id)s)")
        await self._execute(
            "insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, resumable, status, attempt, epoch_ms, "
            "lease_expires_at) values (%(thread_id)s, %(run_id)s, %(run_id)s, 'g', '{}', %(resumable)s, 'running', "
            "%(attempt)s, %(epoch_ms)s, now() + interval '1 hour')"
        )
        return self

    async def claim_again(self) -> None:
        """The lease ran out, and the next attempt begins."""
        self.attempt += 1
        self.epoch_ms += 1000
        self.counter = 0
        await self._execute("update run set attempt = %(attempt)s, epoch_ms = %(epoch_ms)s where run_id = %(run_id)s")

    async def finish(self, status: str = "success", error: dict[str, Any] | None = None) -> None:
        await self._execute(
            "update run set status = %(status)s, error = %(error)s, ended_at = now(), lease_expires_at = null "
            "where run_id = %(run_id)s",
            status=status,
            error=None if error is None else Jsonb(error),
        )

    async def sweep(self) -> None:
        """The lease ran out."""
        await self._execute("update run set status = 'pending', lease_expires_at = null where run_id = %(run_id)s")

    async def delete(self) -> None:
        await self._execute("delete from run where run_id = %(run_id)s")

    def events(self, count: int, *, size: int = 10) -> list[Event]:
        """The next events of the current attempt, each of at least `size` bytes."""
        start, self.counter = self.counter, self.counter + count
        return [
            Event(EventId(self.epoch_ms, n), "messages", b'"%d:%s"' % (n, b"x" * size), "messages-tuple")
            for n in range(start, start + count)
        ]

    def error_event(self) -> Event:
        """The last event of a run that failed."""
        (event,) = self.events(1)
        return event._replace(name="error", mode="error")

    async def _execute(self, statement: Any, **params: Any) -> None:
        if self.db is None:
            return
        known = {"attempt": self.attempt, "epoch_ms": self.epoch_ms, "resumable": self.resumable}
        async with self.db.connection() as conn:
            await conn.execute(statement, {"thread_id": self.key.thread_id, "run_id": self.key.run_id} | known | params)


@dataclass
class Stage:
    """A writer, a reader, and the database below them."""

    mode: Mode
    writer: EventLog
    reader: RoutedLog
    db: Database | None
    db_uri: str = ""

    async def run(self, *, resumable: bool) -> Run:
        return await Run(self.db, resumable).insert()

    async def append(self, run: Run, events: Sequence[Event]) -> None:
        await self.writer.append(run.key, run.attempt, events, resumable=run.resumable)

    async def end(self, run: Run, end: End | None = None) -> None:
        """Finish the run as a worker does: the row first, then the log."""
        end = end or End("success", b"{}")
        await run.finish(end.status or "success", end.error)
        await self.writer.end(run.key, run.attempt, end, resumable=run.resumable)

    def read(self, run: Run, after: EventId | None = BEGINNING) -> AsyncGenerator[Sequence[Event] | End, None]:
        return self.reader.read(run.key, after=after, resumable=run.resumable)


async def within(work: Awaitable[T]) -> T:
    """Await something that must not hang."""
    async with asyncio.timeout(DEADLINE_S):
        return await work


async def take(reading: AsyncGenerator[Sequence[Event] | End, None], count: int) -> list[Event]:
    """Read until at least `count` events have come."""
    events: list[Event] = []
    while len(events) < count:
        item = await within(anext(reading))
        assert not isinstance(item, End), f"the log ended after {len(events)} events of {count}"
        events += item
    return events


async def read_all(reading: AsyncGenerator[Sequence[Event] | End, None]) -> tuple[list[Event], End | None]:
    """Read to the end of the iteration."""
    events: list[Event] = []
    end: End | None = None
    async with asyncio.timeout(DEADLINE_S):
        async for item in reading:
            assert end is None, "something came after the end"
            if isinstance(item, End):
                end = item
            else:
                assert item, "an empty batch"
                events += item
    return events, end


def open_stage(mode: Mode, database_uri: str = "", redis_url: str = "") -> AbstractAsyncContextManager[Stage]:
    """Set a stage up over what `NEEDS` names."""
    match mode:
        case "memory":
            return _memory()
        case "process":
            return _process(database_uri)
        case "redis":
            return redis_stage(database_uri, redis_url)
        case "postgres":
            return postgres_stage(database_uri)


@asynccontextmanager
async def _memory() -> AsyncGenerator[Stage, None]:
    log = in_memory(MemoryStore(run_bytes=KEPT_BYTES))
    yield Stage("memory", log, log, None)
    await log.close()


@asynccontextmanager
async def _process(database_uri: str) -> AsyncGenerator[Stage, None]:
    memory = MemoryStore(run_bytes=KEPT_BYTES)
    async with Database(database_uri, name="reader") as db:
        reader = in_process(db, memory, poll_s=0.2)
        graph_loop = GraphLoop()
        writer = OnGraphLoop(graph_loop, await graph_loop.call(_writer_in_process(database_uri, memory)))
        try:
            yield Stage("process", writer, reader, db)
        finally:
            await reader.close()
            await writer.close()
            graph_loop.stop()


async def _writer_in_process(database_uri: str, memory: MemoryStore) -> tuple[Database, EventLog]:
    db = await Database(database_uri, name="writer").open()
    return db, in_process(db, memory)


@asynccontextmanager
async def redis_stage(database_uri: str, redis_url: str) -> AsyncGenerator[Stage, None]:
    async with Database(database_uri, name="test") as db, Listener(database_uri, [CHANNEL]) as listener:
        writer = over_redis(db, redis_url, listener=None, key_prefix="test:", stream_bytes=KEPT_BYTES)
        reader = over_redis(db, redis_url, listener=listener, key_prefix="test:", poll_s=0.2)
        try:
            yield Stage("redis", writer, reader, db, database_uri)
        finally:
            await reader.close()
            await writer.close()


@asynccontextmanager
async def postgres_stage(database_uri: str) -> AsyncGenerator[Stage, None]:
    async with Database(database_uri, name="test") as db, Listener(database_uri, [CHANNEL]) as listener:
        writer = over_postgres(db, listener=None)
        reader = over_postgres(db, listener=listener, poll_s=0.2)
        try:
            yield Stage("postgres", writer, reader, db)
        finally:
            await reader.close()
            await writer.close()


class GraphLoop:
    """Another thread with a loop of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="graph-loop")
        self._thread.start()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class OnGraphLoop:
    """A log that lives on the graph loop, called from the test's loop."""

    def __init__(self, graph_loop: GraphLoop, made: tuple[Database, EventLog]) -> None:
        self._graph_loop = graph_loop
        self._db, self._log = made

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        await self._graph_loop.call(self._append(key, attempt, events, resumable=resumable))

    async def _append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        await self._log.append(key, attempt, events, resumable=resumable)

    async def end(self, key: RunKey, attempt: int, end: End, *, resumable: bool) -> None:
        await self._graph_loop.call(self._end(key, attempt, end, resumable=resumable))

    async def _end(self, key: RunKey, attempt: int, end: End, *, resumable: bool) -> None:
        await self._log.end(key, attempt, end, resumable=resumable)

    def read(
        self, key: RunKey, *, after: EventId | None, resumable: bool
    ) -> AsyncGenerator[Sequence[Event] | End, None]:
        raise NotImplementedError("nobody reads on the graph loop")

    def begin(self, key: RunKey) -> None:
        raise NotImplementedError("nobody follows a thread here")

    def following(self, tenant_id: str, thread_id: str) -> AbstractContextManager[ThreadWatch]:
        raise NotImplementedError("nobody follows a thread here")

    async def forget(self, key: RunKey) -> None:
        await self._graph_loop.call(self._forget(key))

    async def _forget(self, key: RunKey) -> None:
        await self._log.forget(key)

    async def close(self) -> None:
        await self._graph_loop.call(self._close())

    async def _close(self) -> None:
        await self._log.close()
        await self._db.close()
