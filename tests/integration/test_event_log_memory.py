"""What the memory of one process keeps of events, and for how long."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from event_logs import Run, read_all, within
from waystation.events import BEGINNING, End, MemoryStore, in_memory
from waystation.events import memory as module
from waystation_db.errors import Fenced
from waystation_db.rows import RunKey

pytestmark = pytest.mark.anyio


class Clock:
    """Stands in for the monotonic clock: these tests are about seconds that pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def _append(store: MemoryStore, run: Run, count: int, size: int) -> None:
    for event in run.events(count, size=size):
        store.append(run.key, run.attempt, [event])


def _other(store: MemoryStore) -> None:
    """Something happens with another run: that is when time is looked at."""
    store.append(RunKey("default", "t", str(uuid.uuid4())), 1, Run(None, False).events(1))


def test_a_run_keeps_its_newest_events_up_to_a_bound() -> None:
    store = MemoryStore(run_bytes=100_000)
    run = Run(None, False)
    store.attach(run.key)
    _append(store, run, 1000, 1000)

    assert store.size <= 100_000
    kept = store.fetch(run.key, BEGINNING).events
    assert kept[-1].id.counter == 999
    assert store.trimmed(run.key, BEGINNING)


def test_an_event_larger_than_the_bound_is_kept() -> None:
    store = MemoryStore(run_bytes=1000)
    run = Run(None, False)
    _append(store, run, 1, 5000)

    assert len(store.fetch(run.key, BEGINNING).events) == 1


def test_all_runs_together_stay_within_a_bound() -> None:
    store = MemoryStore(run_bytes=10**9, total_bytes=20_000_000)
    for _ in range(20):
        _append(store, Run(None, False), 40, 100_000)

    assert store.size < 30_000_000


def test_a_run_that_nobody_reads_keeps_little_once_its_creator_had_time(clock: Clock) -> None:
    store = MemoryStore()
    run = Run(None, False)
    _append(store, run, 30, 100_000)
    assert store.size > 3_000_000

    clock.now += 6
    _append(store, run, 1, 100_000)
    assert store.size < 400_000


def test_the_events_of_an_ended_run_go_with_the_reader_that_had_them_all() -> None:
    store = MemoryStore()
    run = Run(None, False)
    store.attach(run.key)
    _append(store, run, 5, 1000)
    store.end(run.key, run.attempt, End("success"))
    assert store.fetch(run.key, BEGINNING).events

    store.detach(run.key, finished=False)
    assert store.fetch(run.key, BEGINNING).events
    store.attach(run.key)
    store.detach(run.key, finished=True)
    assert store.size == 0
    assert store.fetch(run.key, BEGINNING).end == End("success")


def test_an_ended_run_waits_some_seconds_for_its_creator(clock: Clock) -> None:
    store = MemoryStore()
    run = Run(None, False)
    _append(store, run, 5, 1000)
    store.end(run.key, run.attempt, End("success", b"{}"))

    clock.now += 4
    _other(store)
    assert len(store.fetch(run.key, BEGINNING).events) == 5
    clock.now += 2
    _other(store)
    assert store.fetch(run.key, BEGINNING).end == End("success", b"{}")
    assert not store.fetch(run.key, BEGINNING).events
    clock.now += 30
    _other(store)
    assert store.fetch(run.key, BEGINNING).end is None


def test_a_reader_that_left_before_the_run_began_leaves_nothing() -> None:
    store = MemoryStore()
    run = Run(None, False)
    store.attach(run.key)
    store.detach(run.key, finished=False)

    assert store.runs == 0


def test_a_run_that_never_ended_here_is_dropped_in_the_end(clock: Clock) -> None:
    store = MemoryStore()
    run = Run(None, False)
    _append(store, run, 1, 10)
    clock.now += 1000
    _other(store)

    assert store.runs == 1


def test_nothing_is_appended_after_the_end() -> None:
    store = MemoryStore()
    run = Run(None, False)
    store.end(run.key, run.attempt, End("interrupted"))

    with pytest.raises(Fenced):
        _append(store, run, 1, 10)


async def test_readers_are_woken_once_a_tick_however_much_is_appended() -> None:
    store = MemoryStore()
    runs = [Run(None, False) for _ in range(3)]
    woken: list[set[RunKey]] = []
    store.listen(woken.append)
    for run in runs:
        store.attach(run.key)
    for run in runs:
        _append(store, run, 500, 10)
    await asyncio.sleep(0.01)

    assert woken == [{run.key for run in runs}]


async def test_readers_on_two_loops_share_a_run() -> None:
    store = MemoryStore()
    run = Run(None, False)
    here = in_memory(store)
    reading = asyncio.ensure_future(read_all(here.read(run.key, after=BEGINNING, resumable=False)))

    def elsewhere() -> int:
        async def read() -> int:
            there = in_memory(store)
            waiting = asyncio.ensure_future(read_all(there.read(run.key, after=BEGINNING, resumable=False)))
            while not there.readers:  # noqa: ASYNC110  # a reader does not announce itself
                await asyncio.sleep(0)
            ready.set()
            return len((await waiting)[0])

        return asyncio.run(read())

    loop = asyncio.get_running_loop()
    ready = _ThreadsafeEvent(loop)
    other = asyncio.ensure_future(asyncio.to_thread(elsewhere))
    await within(ready.wait())
    _append(store, run, 100, 10)
    store.end(run.key, run.attempt, End("success"))

    assert len((await within(reading))[0]) == 100
    assert await within(other) == 100


class _ThreadsafeEvent:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()
