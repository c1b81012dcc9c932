"""Live events between processes: the reading side of Redis Streams, for all readers of one loop.

Two connections serve any number of readers: one brings hints (`redis_hints`), on the other all runs that were hinted
at are read in one round trip. Readers at the same position share one answer, and the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from waystation.events.batcher import Batcher
from waystation.events.chunks import PackedEvents, unpack
from waystation.events.live import Found
from waystation.events.log import Event, EventId
from waystation.events.redis_hints import RedisHints
from waystation.events.redis_pipe import RedisAway, RedisPipe
from waystation.events.redis_writer import decode_end, parse_entry_id
from waystation.events.sealing import opened_chunks, opened_end
from waystation.events.watches import Watches
from waystation_db.cipher import Cipher
from waystation_db.errors import Undecipherable
from waystation_db.rows import RunKey

# Entries of one look at one run; with what a stream may hold at all, that bounds a look.
_ENTRIES = 32
_READS_AT_ONCE = 64

_Look = tuple[RunKey, EventId]


class LiveRedis:
    """Redis as the readers of one loop see it."""

    def __init__(self, url: str, watches: Watches, *, key_prefix: str = "", cipher: Cipher | None = None) -> None:
        self._cipher = cipher
        self._watches = watches
        self._pipe = RedisPipe(url, key_prefix=key_prefix, came_back=self._wake_all)
        self._keys = self._pipe.keys
        self._runs: dict[str, RunKey] = {}
        self._hints = RedisHints(self._pipe.redis, wake=self._wake, wake_all=self._wake_all)
        self._looks = Batcher[_Look, Found](self._look_all, limit=_READS_AT_ONCE)

    @property
    def keeps_ends(self) -> bool:
        return self._pipe.is_up

    def holds(self, *, resumable: bool) -> bool:
        return not resumable

    def attach(self, key: RunKey) -> None:
        channel = self._keys.channel(key)
        self._runs[channel] = key
        self._hints.subscribe(channel)

    async def ready(self, key: RunKey) -> None:
        await self._hints.ready(self._keys.channel(key))

    def detach(self, key: RunKey, *, last: bool, finished: bool) -> None:
        if last:
            channel = self._keys.channel(key)
            self._runs.pop(channel, None)
            self._hints.unsubscribe(channel)

    async def fetch(self, key: RunKey, after: EventId) -> Found:
        try:
            return await self._looks.ask((key, after))
        except RedisAway:
            return Found()

    async def latest(self, key: RunKey) -> EventId | None:
        def fill(pipe: Pipeline) -> int:
            pipe.xrevrange(self._keys.stream(key), count=1)
            return 1

        try:
            (entries,) = await self._pipe.ask(fill)
        except RedisAway:
            return None
        return parse_entry_id(entries[0][0]) if entries and not isinstance(entries, Exception) else None

    async def trimmed(self, key: RunKey, position: EventId) -> bool:
        # A stream that was lost begins again with as many entries as were ever added; a trimmed one has fewer.
        def fill(pipe: Pipeline) -> int:
            pipe.xinfo_stream(self._keys.stream(key))
            return 1

        try:
            (info,) = await self._pipe.ask(fill)
        except RedisAway:
            return False
        return not isinstance(info, Exception) and info.get("entries-added", 0) > info["length"]

    async def close(self) -> None:
        await self._hints.close()
        await self._looks.close()
        await self._pipe.close()

    def _wake(self, channel: str) -> None:
        if key := self._runs.get(channel):
            self._watches.wake((key,))

    def _wake_all(self) -> None:
        self._watches.wake_all(doubt=False)

    async def _look_all(self, looks: Sequence[_Look]) -> Sequence[Found | Exception]:
        distinct = list(dict.fromkeys(looks))

        def fill(pipe: Pipeline) -> int:
            for key, (epoch_ms, counter) in distinct:
                # The end first: every event is older than it.
                pipe.get(self._keys.end(key))
                # Counters begin at -1 for nobody but a reader at the beginning.
                lowest = f"({epoch_ms}-{counter}" if counter >= 0 else f"{epoch_ms}-0"
                pipe.xrange(self._keys.stream(key), min=lowest, count=_ENTRIES)
            return 2 * len(distinct)

        answers = await self._pipe.ask(fill)
        found = {
            look: await _found(self._cipher, look, answers[2 * place], answers[2 * place + 1])
            for place, look in enumerate(distinct)
        }
        return [found[look] for look in looks]


async def _found(cipher: Cipher | None, look: _Look, end: Any, entries: Any) -> Found | Exception:
    for answer in (end, entries):
        if isinstance(answer, ResponseError):
            return RedisAway(str(answer))
    key, after = look
    more = len(entries) >= _ENTRIES
    try:
        events: list[Event] = []
        for chunk in await opened_chunks(cipher, key, [_chunk(entry, fields) for entry, fields in entries]):
            events += unpack(chunk, events[-1].id if events else after)
        last = None if more or end is None else decode_end(await opened_end(cipher, key, end))
    except Undecipherable as error:  # its readers hear of it, those of other runs do not
        return error
    return Found(events, last, more)


def _chunk(entry: bytes, fields: Any) -> PackedEvents:
    last = parse_entry_id(entry)
    return PackedEvents(last.epoch_ms, int(fields[b"f"]), last.counter, fields[b"p"])
