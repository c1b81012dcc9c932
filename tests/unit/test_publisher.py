"""What a run emits reaches the log in order: the first events at once, a flood of them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager

import pytest

from waystation.events import End, Event, EventId
from waystation.events.log import ThreadWatch
from waystation.worker.publisher import Publisher, WireEvent
from waystation_db.errors import Fenced
from waystation_db.rows import ClaimedRun, RunKey

pytestmark = pytest.mark.anyio


class Journal:
    """An event log that keeps what is appended, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.over = False

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        if self.over:
            raise Fenced("the attempt is over")
        self.batches.append(list(events))

    async def end(self, key: RunKey, attempt: int, end: End, *, resumable: bool) -> None: ...

    async def forget(self, key: RunKey) -> None: ...

    def begin(self, key: RunKey) -> None: ...

    def following(self, tenant_id: str, thread_id: str) -> AbstractContextManager[ThreadWatch]:
        raise NotImplementedError

    def read(
        self, key: RunKey, *, after: EventId | None, resumable: bool
    ) -> AsyncGenerator[Sequence[Event] | End, None]:
        raise NotImplementedError

    async def close(self) -> None: ...

    @property
    def numbers(self) -> list[int]:
        return [event.id.counter for batch in self.batches for event in batch]


def publisher_to(journal: Journal) -> Publisher:
    run = ClaimedRun(RunKey("t", "th", "r"), "a", "g", 1, 0, 7, {}, {}, {}, {}, False, False, None, None)
    return Publisher(journal, run)


def event(number: int) -> list[WireEvent]:
    return [("custom", b"%d" % number, "custom")]


async def test_first_events_of_a_run_do_not_wait_for_more() -> None:
    journal = Journal()
    publisher = publisher_to(journal)
    for number in range(3):
        publisher.emit(event(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(journal.batches) == number + 1


async def test_flood_leaves_in_few_batches_and_in_order() -> None:
    journal = Journal()
    publisher = publisher_to(journal)
    for number in range(200):
        publisher.emit(event(number))
        await asyncio.sleep(0)
    await publisher.flush()
    assert journal.numbers == list(range(200))
    assert len(journal.batches) < 100


async def test_what_waits_leaves_without_a_flush() -> None:
    journal = Journal()
    publisher = publisher_to(journal)
    for number in range(5):
        publisher.emit(event(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while journal.numbers != list(range(5)):  # noqa: ASYNC110  # the pause is short and nobody tells of its end
            await asyncio.sleep(0.001)


async def test_refused_append_is_raised_by_flush_and_by_the_next_emit() -> None:
    journal = Journal()
    publisher = publisher_to(journal)
    journal.over = True
    publisher.emit(event(0))
    with pytest.raises(Fenced):
        await publisher.flush()
    with pytest.raises(Fenced):
        publisher.emit(event(1))
