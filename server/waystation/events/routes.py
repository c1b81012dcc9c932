"""The ways a run's events can go from the loop that executes it; `routed` says which is taken when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from waystation.events.log import End, Event
from waystation.events.memory import MemoryStore
from waystation.events.postgres import ChunkWriter
from waystation.events.redis_pipe import RedisAway
from waystation.events.redis_writer import RedisWriter
from waystation.events.watches import thread_key
from waystation_db.rows import RunKey


class Route(Protocol):
    """The writing side of a log. Where it raises, see `EventLog`; `end` and `forget` may raise anything of their
    store's."""

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None: ...

    async def end(self, key: RunKey, attempt: int, end: End) -> None: ...

    def begin(self, key: RunKey) -> None: ...

    async def forget(self, key: RunKey) -> None: ...

    async def close(self) -> None: ...


class MemoryRoute:
    """Readers are in this process. What must survive it is committed first."""

    def __init__(self, memory: MemoryStore, chunks: ChunkWriter | None) -> None:
        self._memory = memory
        self._chunks = chunks

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        if resumable and self._chunks is not None:
            await self._chunks.append(key, attempt, events, notify=False)
        self._memory.append(key, attempt, events)

    async def end(self, key: RunKey, attempt: int, end: End) -> None:
        self._memory.end(key, attempt, end)

    def begin(self, key: RunKey) -> None:
        self._memory.begin(key)

    async def forget(self, key: RunKey) -> None:
        self._memory.forget(key)
        if self._chunks is not None:
            await self._chunks.forget(key)

    async def close(self) -> None:
        if self._chunks is not None:
            await self._chunks.close()


class RedisRoute:
    """Readers are in other processes, and Redis is there unless it is not."""

    def __init__(self, redis: RedisWriter, chunks: ChunkWriter) -> None:
        self._redis = redis
        self._chunks = chunks

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        if resumable:
            await self._chunks.append(key, attempt, events, notify=not self._redis.is_up)
            self._redis.hint(key)
            if events and events[0].id.counter == 0:
                self.begin(key)
            return
        try:
            await self._redis.append(key, attempt, events)
        except RedisAway:
            # The last events that Redis took may not have reached anybody: they are repeated, readers know them by
            # their ids.
            await self._chunks.append(key, attempt, [*self._redis.give_up(key), *events], notify=True)

    async def end(self, key: RunKey, attempt: int, end: End) -> None:
        try:
            await self._redis.end(key, end)
        except RedisAway:
            await self._chunks.announce(key)

    def begin(self, key: RunKey) -> None:
        self._redis.hint(thread_key(key.tenant_id, key.thread_id))

    async def forget(self, key: RunKey) -> None:
        try:
            await self._redis.forget(key)
        except RedisAway:
            pass  # what Redis has left of the run expires
        await self._chunks.forget(key)

    async def close(self) -> None:
        await self._redis.close()
        await self._chunks.close()


class PostgresRoute:
    """Postgres carries everything."""

    def __init__(self, chunks: ChunkWriter) -> None:
        self._chunks = chunks

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        await self._chunks.append(key, attempt, events, notify=True)

    async def end(self, key: RunKey, attempt: int, end: End) -> None:
        await self._chunks.announce(key)

    def begin(self, key: RunKey) -> None:
        """The notification of the run's first event says it."""

    async def forget(self, key: RunKey) -> None:
        await self._chunks.forget(key)

    async def close(self) -> None:
        await self._chunks.close()
