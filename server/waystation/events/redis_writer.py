"""Live events between processes: the writing side of Redis Streams.

A run's stream has one entry for each chunk, with the chunk's last event id as its id. Redis refuses an entry whose id
is not above the newest, so an attempt that was superseded writes nothing. The end of the run is a key of its own.
Both carry an expiry, and are followed by a message on the run's channel, which is only a hint.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import orjson
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from waystation.events.chunks import PackedEvents, pack
from waystation.events.log import End, Event, EventId, fenced
from waystation.events.redis_pipe import RedisAway, RedisPipe, publish
from waystation.events.sealing import sealed_chunks, sealed_end
from waystation.events.watches import thread_key
from waystation_db.cipher import Cipher
from waystation_db.rows import RunKey

# What a stream keeps for readers that fall behind.
STREAM_BYTES = 16 * 1024 * 1024
_LIVE_S = 3600
_ENDED_S = 60
_CLEAN_S = 60
_REFUSED = "equal or smaller"


@dataclass(slots=True)
class _Sent:
    """What this process has put into a run's stream: entries and their sizes, oldest first."""

    touched: float = 0.0
    expiry_due: float = 0.0
    size: int = 0
    entries: deque[tuple[str, int]] = field(default_factory=deque[tuple[str, int]])
    last: Sequence[Event] = ()
    is_given_up: bool = False

    def add(self, entry: str, size: int, limit: int) -> str | None:
        """Count an entry in; the oldest one that may stay, if there is too much."""
        self.size += size
        self.entries.append((entry, size))
        if self.size <= limit:
            return None
        while self.size > limit and len(self.entries) > 1:
            self.size -= self.entries.popleft()[1]
        return self.entries[0][0]


class RedisWriter:
    """Appends to Redis for the loop that executes runs."""

    def __init__(
        self, url: str, *, key_prefix: str = "", stream_bytes: int = STREAM_BYTES, cipher: Cipher | None = None
    ) -> None:
        self._cipher = cipher
        self._pipe = RedisPipe(url, key_prefix=key_prefix)
        self._keys = self._pipe.keys
        self._stream_bytes = stream_bytes
        self._sent: dict[RunKey, _Sent] = {}
        self._hints: set[RunKey] = set()
        self._hinting: asyncio.Task[None] | None = None
        self._next_cleaning = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the last thing asked of Redis was done."""
        return self._pipe.is_up

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event]) -> None:
        """Raises Fenced when a later attempt has written, RedisAway when it is not known whether the events are
        kept."""
        sent = self._sent.setdefault(key, _Sent())
        if sent.is_given_up:
            raise RedisAway("the run's events go another way since Redis was away")
        if not events:
            return
        chunks = await sealed_chunks(self._cipher, key, pack(events))
        answers = await self._pipe.ask(lambda pipe: self._put(pipe, key, chunks))
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors:
            await self._explain(key, attempt, chunks[-1], errors)
        sent.last = events
        self._clean()

    def give_up(self, key: RunKey) -> Sequence[Event]:
        """From now on the run's events go another way; returns those that Redis may have lost before they were
        read."""
        sent = self._sent.setdefault(key, _Sent(touched=monotonic()))
        lost, sent.last = sent.last, ()
        sent.is_given_up = True
        return lost

    async def end(self, key: RunKey, end: End) -> None:
        """Keep the end for a while and tell the readers.

        Raises RedisAway. So it does for a run that was given up: its readers must not find the end before the events.
        """

        kept = await sealed_end(self._cipher, key, encode_end(end))

        def fill(pipe: Pipeline) -> int:
            pipe.set(self._keys.end(key), kept, ex=_ENDED_S)
            pipe.expire(self._keys.stream(key), _ENDED_S)
            publish(pipe, self._keys.channel(key))
            if sent is not None and sent.entries:
                return 3
            publish(pipe, self._keys.channel(thread_key(key.tenant_id, key.thread_id)))
            return 4

        sent = self._sent.pop(key, None)
        if sent is not None and sent.is_given_up:
            raise RedisAway("the run's events went another way since Redis was away")
        await self._pipe.ask(fill)

    async def forget(self, key: RunKey) -> None:
        """Drop the events and tell the readers that the run is gone. Raises RedisAway."""

        def fill(pipe: Pipeline) -> int:
            pipe.unlink(self._keys.stream(key))
            pipe.set(self._keys.end(key), encode_end(End(None)), ex=_ENDED_S)
            publish(pipe, self._keys.channel(key))
            return 3

        self._sent.pop(key, None)
        await self._pipe.ask(fill)

    def hint(self, key: RunKey) -> None:
        """Tell the readers of a run to look, soon. Where that fails, their poll finds what there is."""
        self._hints.add(key)
        if self._hinting is None:
            self._hinting = asyncio.get_running_loop().create_task(self._hint_all())

    async def close(self) -> None:
        if self._hinting is not None:
            await self._hinting
        await self._pipe.close()

    async def _hint_all(self) -> None:
        try:
            while self._hints:
                keys, self._hints = self._hints, set()
                await self._pipe.ask(lambda pipe, keys=keys: self._publish(pipe, keys))
        except RedisAway:
            self._hints.clear()
        finally:
            self._hinting = None

    def _publish(self, pipe: Pipeline, keys: set[RunKey]) -> int:
        for key in keys:
            publish(pipe, self._keys.channel(key))
        return len(keys)

    def _put(self, pipe: Pipeline, key: RunKey, chunks: Sequence[PackedEvents]) -> int:
        sent = self._sent.setdefault(key, _Sent())
        now = sent.touched = monotonic()
        stream = self._keys.stream(key)
        hints = 1
        if not sent.entries:
            publish(pipe, self._keys.channel(thread_key(key.tenant_id, key.thread_id)))
            hints = 2
        for chunk in chunks:
            entry = f"{chunk.epoch_ms}-{chunk.last_counter}"
            oldest = sent.add(entry, len(chunk.payload), self._stream_bytes)
            pipe.xadd(stream, {"f": chunk.first_counter, "p": chunk.payload}, id=entry, minid=oldest, approximate=False)
        publish(pipe, self._keys.channel(key))
        if now < sent.expiry_due:
            return len(chunks) + hints
        sent.expiry_due = now + _LIVE_S / 4
        pipe.expire(stream, _LIVE_S)
        return len(chunks) + hints + 1

    async def _explain(self, key: RunKey, attempt: int, newest: PackedEvents, errors: Sequence[Exception]) -> None:
        """Raise what the refusals mean; return when the entries were there already."""
        if not all(isinstance(error, ResponseError) and _REFUSED in str(error) for error in errors):
            self._pipe.mark_away()
            raise RedisAway(str(errors[0])) from errors[0]

        def fill(pipe: Pipeline) -> int:
            pipe.xrevrange(self._keys.stream(key), count=1)
            return 1

        (entries,) = await self._pipe.ask(fill)
        if entries and parse_entry_id(entries[0][0]).epoch_ms > newest.epoch_ms:
            self._sent.pop(key, None)
            raise fenced(key, attempt)

    def _clean(self) -> None:
        """Forget runs whose end was told elsewhere: another worker has them."""
        now = monotonic()
        if now < self._next_cleaning:
            return
        self._next_cleaning = now + _CLEAN_S
        for key in [key for key, sent in self._sent.items() if now - sent.touched > _LIVE_S]:
            del self._sent[key]


def parse_entry_id(entry: bytes) -> EventId:
    """The event id that a stream entry's id is."""
    epoch_ms, counter = entry.split(b"-")
    return EventId(int(epoch_ms), int(counter))


def encode_end(end: End) -> bytes:
    """An end as Redis keeps it: JSON without the values, a line feed, the values."""
    head = orjson.dumps({"status": end.status, "error": end.error, "values": end.values is not None})
    return head + b"\n" + (end.values or b"")


def decode_end(data: bytes) -> End:
    """What `encode_end` wrote."""
    line, _, values = data.partition(b"\n")
    head: dict[str, Any] = orjson.loads(line)
    return End(head["status"], values if head["values"] else None, head["error"])
