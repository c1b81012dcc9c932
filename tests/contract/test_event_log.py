"""What every layout of the event log promises: memory, one process, Redis, Postgres; resumable or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from event_logs import KEPT_BYTES, MODES, NEEDS, Mode, Run, Stage, open_stage, read_all, take, within
from waystation.errors import SlowReader
from waystation.events import BEGINNING, ONLY_END, End, Event, EventId
from waystation_db.errors import Fenced

pytestmark = pytest.mark.anyio


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param


@pytest.fixture(params=[False, True], ids=["live", "resumable"])
def resumable(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def addresses(mode: Mode, request: pytest.FixtureRequest) -> dict[str, str]:
    """Only of what the mode needs."""
    return {name: request.getfixturevalue(name) for name in NEEDS[mode]}


@pytest.fixture
async def stage(mode: Mode, addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    # The end is committed, then published with its values, for which readers wait a moment; and a Redis that is slow to
    # answer counts as away. Here everything is up, however slow the machine.
    monkeypatch.setattr("waystation.events.reading._END_S", 30.0)
    monkeypatch.setattr("waystation.events.redis_pipe._ANSWER_S", 30.0)
    async with open_stage(mode, **addresses) as stage:
        yield stage


@pytest.fixture
async def run(stage: Stage, resumable: bool) -> Run:
    return await stage.run(resumable=resumable)


async def test_the_whole_log_is_read_in_order_from_the_beginning(stage: Stage, run: Run) -> None:
    written = run.events(5) + run.events(3)
    await stage.append(run, written[:5])
    await stage.append(run, written[5:])
    await stage.end(run)

    assert await read_all(stage.read(run)) == (written, End("success", _values(stage)))


async def test_who_waits_for_the_end_alone_gets_nothing_else(stage: Stage, run: Run) -> None:
    reading = asyncio.create_task(read_all(stage.read(run, after=ONLY_END)))
    await stage.append(run, run.events(5))
    await stage.append(run, run.events(5))
    await stage.end(run)

    assert await within(reading) == ([], End("success", _values(stage)))
    assert await read_all(stage.read(run, after=ONLY_END)) == ([], End("success", _values(stage)))


async def test_reading_after_an_id_gives_what_follows_it(stage: Stage, run: Run) -> None:
    written = run.events(10)
    await stage.append(run, written)

    assert await take(stage.read(run, after=written[3].id), 6) == written[4:]


async def test_a_joiner_gets_what_comes_from_now_on(stage: Stage, run: Run) -> None:
    before = run.events(5)
    await stage.append(run, before)

    first = asyncio.ensure_future(anext(stage.read(run, after=None)))
    while not first.done():
        await stage.append(run, run.events(1))
        await asyncio.wait({first}, timeout=0.05)
    joined = first.result()

    assert not isinstance(joined, End)
    assert joined[0].id > before[-1].id


async def test_a_reader_may_begin_before_the_first_event(stage: Stage, run: Run) -> None:
    reading = asyncio.ensure_future(read_all(stage.read(run)))
    await _until_reading(stage, 1)

    written = run.events(2)
    await stage.append(run, written)
    await stage.end(run)

    assert (await reading)[0] == written


async def test_nothing_is_missed_or_doubled_over_a_hundred_reconnects(stage: Stage, run: Run) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    written: list[Event] = []

    async def write() -> None:
        for _ in range(120):
            batch = run.events(chance.randint(1, 12))
            written.extend(batch)
            await stage.append(run, batch)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await stage.end(run)

    writing = asyncio.ensure_future(write())
    seen: list[Event] = []
    for _ in range(100):
        reading = stage.read(run, after=seen[-1].id if seen else BEGINNING)
        item = await within(anext(reading))
        await reading.aclose()
        if isinstance(item, End):
            break
        # The client was cut off in the middle of what was sent to it.
        seen += item[: chance.randint(1, len(item))]
    seen += (await read_all(stage.read(run, after=seen[-1].id)))[0]
    await writing

    assert [event.id for event in seen] == [event.id for event in written], f"seed {seed}"
    assert seen == written


async def test_all_readers_of_a_run_get_all_of_it(stage: Stage, run: Run) -> None:
    readings = [asyncio.ensure_future(read_all(stage.read(run))) for _ in range(20)]
    await _until_reading(stage, 20)

    written = run.events(50)
    for event in written:
        await stage.append(run, [event])
    await stage.end(run)

    for reading in readings:
        assert (await reading)[0] == written


async def test_many_runs_at_once_keep_to_themselves(stage: Stage, resumable: bool) -> None:
    runs = [await stage.run(resumable=resumable) for _ in range(30)]

    async def write(run: Run) -> list[Event]:
        written: list[Event] = []
        for _ in range(10):
            batch = run.events(3)
            written += batch
            await stage.append(run, batch)
        await stage.end(run)
        return written

    readings = [asyncio.ensure_future(read_all(stage.read(run))) for run in runs]
    written = await asyncio.gather(*[write(run) for run in runs])

    assert [events for events, _ in await asyncio.gather(*readings)] == written


async def test_an_attempt_that_was_superseded_can_write_nothing(stage: Stage, run: Run) -> None:
    await stage.append(run, run.events(2))
    old_attempt, stale = run.attempt, run.events(1)
    await run.claim_again()
    await stage.append(run, run.events(1))

    with pytest.raises(Fenced):
        await stage.writer.append(run.key, old_attempt, stale, resumable=run.resumable)

    await stage.end(run)
    events, _ = await read_all(stage.read(run))
    assert stale[0] not in events
    assert len(events) == 3


async def test_a_second_attempt_goes_on_with_higher_ids(stage: Stage, run: Run) -> None:
    first = run.events(3)
    reading = stage.read(run)
    await stage.append(run, first)
    assert await take(reading, 3) == first

    await run.claim_again()
    second = run.events(2)
    await stage.append(run, second)
    await stage.end(run)

    assert (await read_all(reading))[0] == second
    assert second[0].id > first[-1].id


async def test_the_end_comes_once_and_last(stage: Stage, run: Run) -> None:
    reading = stage.read(run)
    await stage.append(run, run.events(1))
    await take(reading, 1)
    await stage.end(run)

    assert isinstance(await within(anext(reading)), End)
    with pytest.raises(StopAsyncIteration):
        await within(anext(reading))


async def test_a_failed_run_ends_with_its_one_error_event(stage: Stage, run: Run) -> None:
    error = {"error": "ValueError", "message": "no"}
    written = [*run.events(2), run.error_event()]
    reading = asyncio.ensure_future(read_all(stage.read(run)))
    await _until_reading(stage, 1)
    await stage.append(run, written)
    await stage.end(run, End("error", None, error))

    assert await reading == (written, End("error", None, error))
    assert (await read_all(stage.read(run, after=written[-1].id)))[0] == []


async def test_a_log_that_ended_can_still_be_read(stage: Stage, run: Run) -> None:
    written = run.events(4)
    await stage.append(run, written)
    await stage.end(run)

    events, end = await read_all(stage.read(run))
    assert events == written
    assert end is not None
    assert end.status == "success"


async def test_joining_a_log_that_ended_gives_its_end_at_once(stage: Stage, run: Run) -> None:
    await stage.append(run, run.events(4))
    await stage.end(run)

    events, end = await read_all(stage.read(run, after=None))
    assert events == []
    assert end is not None
    assert end.status == "success"


async def test_a_forgotten_run_ends_for_its_readers(stage: Stage, run: Run) -> None:
    reading = stage.read(run)
    await stage.append(run, run.events(1))
    await take(reading, 1)

    await run.delete()
    await stage.writer.forget(run.key)

    assert await read_all(reading) == ([], End(None))
    assert await read_all(stage.read(run)) == ([], End(None))


async def test_events_of_a_megabyte_pass(stage: Stage, run: Run) -> None:
    reading = stage.read(run)
    for event in run.events(3, size=1_000_000):
        await stage.append(run, [event])
        assert await take(reading, 1) == [event]  # before the next one takes its place
    await stage.end(run)

    assert (await read_all(reading))[0] == []


async def test_a_reader_that_stops_reading_costs_nobody_else(stage: Stage, run: Run) -> None:
    slow = stage.read(run)
    await stage.append(run, run.events(1))
    await take(slow, 1)
    quick = stage.read(run)
    await take(quick, 1)

    written = [run.events(1, size=KEPT_BYTES // 8) for _ in range(24)]
    for batch in written:
        await stage.append(run, batch)
        assert await take(quick, 1) == batch

    if stage.mode == "postgres" or (run.resumable and stage.mode != "memory"):
        assert await take(slow, 24) == [event for batch in written for event in batch]
    else:
        with pytest.raises(SlowReader):
            await take(slow, 24)


async def test_closing_the_log_stops_its_readers_without_an_end(stage: Stage, run: Run) -> None:
    reading = asyncio.ensure_future(read_all(stage.read(run)))
    await _until_reading(stage, 1)
    await within(stage.reader.close())

    assert await within(reading) == ([], None)


async def test_appending_nothing_is_nothing(stage: Stage, run: Run) -> None:
    await stage.append(run, [])
    await stage.end(run)

    assert (await read_all(stage.read(run)))[0] == []


def test_an_event_id_is_read_back_from_its_text() -> None:
    assert EventId.parse(str(EventId(1795246500525, 7))) == EventId(1795246500525, 7)


@pytest.mark.parametrize("text", ["", "-1", "7", "7-", "a-b", "7-7-7", f"{10**40}-1", f"1-{10**20}", "1-1\n", "١-١"])
def test_what_is_no_event_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an event id looks like"):
        EventId.parse(text)


def _values(stage: Stage) -> bytes | None:
    # Postgres has the values in the thread's row.
    return None if stage.mode == "postgres" else b"{}"


async def _until_reading(stage: Stage, count: int) -> None:
    """Wait until that many readers are open."""
    async with asyncio.timeout(60):
        while stage.reader.readers < count:  # noqa: ASYNC110  # a reader does not announce itself
            await asyncio.sleep(0)
