"""How several events of one attempt travel as one value: a chunk, the row of Postgres and the entry of a Redis stream.

A chunk holds consecutive counters of one epoch. Its payload is a msgpack array of [name, mode, data]; the counters
follow from the first one. `data` passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import ormsgpack

from waystation.events.log import Event, EventId

# A chunk that is read is held in memory whole, several at a time; an event larger than this has a chunk to itself.
CHUNK_BYTES = 256 * 1024
# What an event takes besides its data: name, ids and object heads, roughly, in Python's memory.
EVENT_OVERHEAD_BYTES = 200


class PackedEvents(NamedTuple):
    """Consecutive events of one epoch, encoded."""

    epoch_ms: int
    first_counter: int
    last_counter: int
    payload: bytes


def size_of(events: Sequence[Event]) -> int:
    """Roughly the bytes that these events hold in memory."""
    return sum([len(event.data) for event in events]) + EVENT_OVERHEAD_BYTES * len(events)


def follows(previous: EventId, following: EventId) -> bool:
    """Whether nothing can be missing between the two: the next counter, or anything after the beginning."""
    return (
        following.epoch_ms == previous.epoch_ms and following.counter == previous.counter + 1
    ) or previous.epoch_ms == 0


def pack(events: Sequence[Event]) -> list[PackedEvents]:
    """Encode events in as few chunks as their ids and sizes allow."""
    return [_pack_run(run) for run in _runs(events)]


def unpack(chunk: PackedEvents, after: EventId) -> list[Event]:
    """The chunk's events with ids greater than `after`. Raises ValueError for a payload that `pack` did not make."""
    items = cast("list[tuple[str, str, bytes]]", ormsgpack.unpackb(chunk.payload))  # the shape `_pack_run` writes
    epoch_ms, first = chunk.epoch_ms, chunk.first_counter
    skip = max(0, after.counter + 1 - first) if epoch_ms == after.epoch_ms else 0
    return [
        Event(EventId(epoch_ms, counter), name, data, mode)
        for counter, (name, mode, data) in enumerate(items[skip:], first + skip)
    ]


def _pack_run(run: Sequence[Event]) -> PackedEvents:
    payload = ormsgpack.packb([(event.name, event.mode, event.data) for event in run])
    return PackedEvents(run[0].id.epoch_ms, run[0].id.counter, run[-1].id.counter, payload)


def _runs(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    start = 0
    held = 0
    for index, event in enumerate(events):
        size = len(event.data) + len(event.name)
        if index > start and (held + size > CHUNK_BYTES or not _is_consecutive(events[index - 1].id, event.id)):
            yield events[start:index]
            start, held = index, 0
        held += size
    if start < len(events):
        yield events[start:]


def _is_consecutive(left: EventId, right: EventId) -> bool:
    return left.epoch_ms == right.epoch_ms and left.counter + 1 == right.counter
