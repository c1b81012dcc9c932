"""The event log that the server uses: which way a run's events go from the worker to its readers.

| processes           | a run's events        | a resumable run's events                      |
|---------------------|-----------------------|-----------------------------------------------|
| one                 | memory                | committed to Postgres, then shown from memory |
| several, with Redis | Redis Streams         | committed to Postgres, Redis brings the hint  |
| several, without    | Postgres, with NOTIFY | Postgres, with NOTIFY                         |

When Redis fails an append, the rest of that run's events go to Postgres, and so do those of new runs until Redis takes
writes again. Readers merge both by id.

A log belongs to one loop: the graph loop has one to append with, the API's loop one to read with, each over the pool
of its loop. In one process they share the `MemoryStore`. `end` and `forget` may be called on either.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager

from waystation.events.live import NothingLive
from waystation.events.log import End, Event, EventId, ThreadWatch
from waystation.events.memory import LiveMemory, MemoryStore
from waystation.events.postgres import ChunkReader, ChunkWriter
from waystation.events.reading import Reading
from waystation.events.redis_reader import LiveRedis
from waystation.events.redis_writer import STREAM_BYTES, RedisWriter
from waystation.events.routes import MemoryRoute, PostgresRoute, RedisRoute, Route
from waystation_db.listen import Listener
from waystation_db.pool import Database
from waystation_db.rows import RunKey

logger = logging.getLogger(__name__)


class RoutedLog:
    """An `EventLog`, made of a way to write and a way to read. See `in_memory`, `in_process`, `over_redis`,
    `over_postgres`."""

    def __init__(self, route: Route, reading: Reading) -> None:
        self._route = route
        self._reading = reading

    @property
    def readers(self) -> int:
        """How many readers are open on this loop."""
        return self._reading.readers

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        """See `EventLog`."""
        await self._route.append(key, attempt, events, resumable=resumable)

    async def end(self, key: RunKey, attempt: int, end: End, *, resumable: bool) -> None:
        """See `EventLog`."""
        try:
            await self._route.end(key, attempt, end)
        except Exception as error:  # the run's row has the end: readers find it there within a second
            logger.warning("the end of a run could not be told", extra={"error": str(error)})
        self._reading.hint(key)

    def read(
        self, key: RunKey, *, after: EventId | None, resumable: bool
    ) -> AsyncGenerator[Sequence[Event] | End, None]:
        """See `EventLog`."""
        return self._reading.read(key, after=after, resumable=resumable)

    def begin(self, key: RunKey) -> None:
        """See `EventLog`."""
        self._route.begin(key)
        self._reading.begin(key)

    def following(self, tenant_id: str, thread_id: str) -> AbstractContextManager[ThreadWatch]:
        """See `EventLog`."""
        return self._reading.following(tenant_id, thread_id)

    async def forget(self, key: RunKey) -> None:
        """See `EventLog`. Raises DatabaseUnavailable while Postgres is away; what is left then, upkeep removes."""
        try:
            await self._route.forget(key)
        finally:
            self._reading.hint(key)

    async def close(self) -> None:
        """See `EventLog`."""
        await self._reading.close()
        await self._route.close()


def in_memory(memory: MemoryStore | None = None) -> RoutedLog:
    """A log without a database, for tests: nothing survives, and an end that nobody appends never comes."""
    memory = memory or MemoryStore()
    reading = Reading(lambda watches: LiveMemory(memory, watches.wake), chunks=None)
    return RoutedLog(MemoryRoute(memory, None), reading)


def in_process(db: Database, memory: MemoryStore, *, poll_s: float = 1.0) -> RoutedLog:
    """For one process that executes its own runs. `memory` is the same on both loops."""
    reading = Reading(lambda watches: LiveMemory(memory, watches.wake), chunks=ChunkReader(db), poll_s=poll_s)
    return RoutedLog(MemoryRoute(memory, ChunkWriter(db)), reading)


def over_redis(
    db: Database,
    redis_url: str,
    *,
    listener: Listener | None,
    key_prefix: str = "",
    stream_bytes: int = STREAM_BYTES,
    poll_s: float = 1.0,
) -> RoutedLog:
    """For several processes with Redis.

    `listener` listens on `waystation_db.events.CHANNEL`; without it, polls find what was written while Redis was away.
    """
    redis = RedisWriter(redis_url, key_prefix=key_prefix, stream_bytes=stream_bytes, cipher=db.cipher)
    reading = Reading(
        lambda watches: LiveRedis(redis_url, watches, key_prefix=key_prefix, cipher=db.cipher),
        chunks=ChunkReader(db),
        listener=listener,
        poll_s=poll_s,
    )
    return RoutedLog(RedisRoute(redis, ChunkWriter(db)), reading)


def over_postgres(db: Database, *, listener: Listener | None, poll_s: float = 1.0) -> RoutedLog:
    """For several processes without Redis. `listener` as in `over_redis`."""
    reading = Reading(lambda _: NothingLive(), chunks=ChunkReader(db), listener=listener, poll_s=poll_s)
    return RoutedLog(PostgresRoute(ChunkWriter(db)), reading)
