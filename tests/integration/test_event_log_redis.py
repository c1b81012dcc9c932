"""The event log while Redis is flushed, killed, hung and back; what it costs in connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from event_logs import Run, Stage, read_all, redis_stage, take, within
from services import Valkey
from waystation.events import BEGINNING, End, Event

pytestmark = pytest.mark.anyio


@pytest.fixture
def redis(make_redis: Callable[[], Valkey]) -> Valkey:
    return make_redis()


@pytest.fixture
async def stage(database_uri: str, redis: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr("waystation.events.redis_pipe._ANSWER_S", 30.0)  # a killed one is found out at once
    async with redis_stage(database_uri, redis.url) as stage:
        yield stage


async def test_a_flush_does_no_harm_to_a_resumable_stream(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=True)
    reading = stage.read(run)
    written = run.events(5)
    await stage.append(run, written)
    assert await take(reading, 5) == written

    redis.flush()
    rest = run.events(5)
    await stage.append(run, rest)
    redis.flush()
    await stage.end(run)

    assert (await read_all(reading))[0] == rest
    assert (await read_all(stage.read(run, after=written[2].id)))[0] == written[3:] + rest


async def test_a_stream_that_was_flushed_goes_on_and_ends(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    reading = stage.read(run)
    await stage.append(run, run.events(5))
    await take(reading, 5)

    redis.flush()
    rest = run.events(5)
    await stage.append(run, rest)
    assert await take(reading, 5) == rest
    redis.flush()
    await run.finish()

    assert await read_all(reading) == ([], End("success"))


async def test_a_gap_left_by_a_flush_does_not_stop_the_reader(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    reading = stage.read(run)
    await stage.append(run, run.events(5))
    await take(reading, 5)
    await stage.append(run, run.events(1))
    redis.flush()
    rest = run.events(2)
    await stage.append(run, rest)

    assert (await take(reading, 2))[-2:] == rest


async def test_a_resumable_stream_is_whole_over_reconnects_attempts_and_losses_of_redis(
    stage: Stage, redis: Valkey
) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    run = await stage.run(resumable=True)
    written: list[Event] = []

    async def write() -> None:
        for number in range(60):
            match number:
                case 10 | 30:
                    await asyncio.to_thread(redis.flush)
                case 20:
                    await asyncio.to_thread(redis.kill)
                case 25:
                    await asyncio.to_thread(redis.resume)
                case 40:
                    await run.claim_again()
                case _:
                    batch = run.events(chance.randint(1, 6))
                    written.extend(batch)
                    await stage.append(run, batch)
        await stage.end(run)

    writing = asyncio.ensure_future(write())
    seen: list[Event] = []
    ended = False
    while not ended:
        reading = stage.read(run, after=seen[-1].id if seen else BEGINNING)
        for _ in range(chance.randint(1, 4)):
            item = await within(anext(reading))
            if isinstance(item, End):
                ended = True
                break
            kept = chance.randint(1, len(item))
            seen += item[:kept]
            if kept < len(item):
                break
        await reading.aclose()
    await writing

    assert seen == written, f"seed {seed}"


async def test_without_redis_events_go_through_postgres(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    reading = stage.read(run)
    written = run.events(5)
    await stage.append(run, written)
    assert await take(reading, 5) == written

    redis.kill()
    rest = [run.events(3) for _ in range(4)]
    for batch in rest:
        await within(stage.append(run, batch))
        assert await take(reading, 3) == batch
    await stage.end(run)

    assert await read_all(reading) == ([], End("success"))


async def test_what_redis_took_and_lost_unread_is_repeated(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    first, unread, rest = run.events(3), run.events(2), run.events(1)
    reading = stage.read(run)
    await stage.append(run, first)
    await take(reading, 3)
    await stage.append(run, unread)
    redis.kill()
    await stage.append(run, rest)

    assert await take(reading, 3) == unread + rest


async def test_a_run_that_begins_without_redis_is_read_in_full(stage: Stage, redis: Valkey) -> None:
    redis.kill()
    run = await stage.run(resumable=False)
    reading = asyncio.ensure_future(read_all(stage.read(run)))
    written = run.events(10)
    for event in written:
        await within(stage.append(run, [event]))
    await stage.end(run)

    assert await reading == (written, End("success"))


async def test_resumable_streams_need_no_redis(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=True)
    written = run.events(20)
    reading = asyncio.ensure_future(read_all(stage.read(run)))
    for number, event in enumerate(written):
        if number == 10:
            redis.kill()
        await within(stage.append(run, [event]))
    await stage.end(run)

    assert await reading == (written, End("success"))


async def test_a_redis_that_hangs_holds_nobody_up_for_long(database_uri: str, redis: Valkey) -> None:
    async with redis_stage(database_uri, redis.url) as stage:
        run = await stage.run(resumable=False)
        reading = stage.read(run)
        await stage.append(run, run.events(1))
        await take(reading, 1)

        redis.pause()
        try:
            rest = run.events(5)
            async with asyncio.timeout(30):
                await stage.append(run, rest)
            assert await take(reading, 5) == rest
        finally:
            redis.unpause()


async def test_new_runs_use_redis_again_when_it_is_back(stage: Stage, redis: Valkey) -> None:
    old = await stage.run(resumable=False)
    reading = stage.read(old)
    await stage.append(old, old.events(1))
    await take(reading, 1)
    redis.kill()
    await stage.append(old, old.events(1))
    redis.resume()
    await _until_used(stage, redis)

    # What had to change its way stays on it, in order.
    rest = old.events(2)
    await stage.append(old, rest)
    assert (await take(reading, 3))[1:] == rest
    rest = old.events(2)
    await stage.append(old, rest)
    await stage.end(old)
    assert await read_all(reading) == (rest, End("success"))
    run = await stage.run(resumable=False)
    written = run.events(3)
    reading = stage.read(run)
    await stage.append(run, written)
    assert await take(reading, 3) == written
    assert _has_stream(redis, run)


async def test_a_second_attempt_in_redis_follows_a_first_that_ended_up_in_postgres(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    reading = stage.read(run)
    await stage.append(run, run.events(1))
    await take(reading, 1)
    redis.kill()
    lost = run.events(2)
    await stage.append(run, lost)
    redis.resume()

    async with redis_stage(stage.db_uri, redis.url) as other:
        await run.claim_again()
        second = run.events(2)
        await other.append(run, second)

    assert await take(reading, 4) == lost + second


async def test_all_readers_of_a_process_share_two_connections(stage: Stage, redis: Valkey) -> None:
    runs = [await stage.run(resumable=False) for _ in range(100)]
    before = _clients(redis)
    readings = [asyncio.ensure_future(read_all(stage.read(run))) for run in runs]
    for run in runs:
        await stage.append(run, run.events(1))
    clients = _clients(redis)
    for run in runs:
        await stage.end(run)
    for reading in readings:
        assert len((await reading)[0]) == 1

    # Two to read with, one to write with.
    assert clients - before <= 3


async def test_channels_are_given_up_with_their_readers(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    reading = stage.read(run)
    await stage.append(run, run.events(1))
    await take(reading, 1)
    assert _channels(redis) == 1
    await reading.aclose()

    async with asyncio.timeout(60):
        while _channels(redis):  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.01)


async def test_nothing_stays_in_redis_for_ever(stage: Stage, redis: Valkey) -> None:
    run = await stage.run(resumable=False)
    await stage.append(run, run.events(1))
    assert [ttl > 0 for ttl in _lifetimes_s(redis)] == [True]
    await stage.end(run)
    assert [0 < ttl <= 60 for ttl in _lifetimes_s(redis)] == [True, True]


async def _until_used(stage: Stage, redis: Valkey) -> None:
    """Until a new run's events are in Redis."""
    async with asyncio.timeout(60):
        while True:
            run = await stage.run(resumable=False)
            await stage.append(run, run.events(1))
            if _has_stream(redis, run):
                return
            await asyncio.sleep(0.05)


def _has_stream(redis: Valkey, run: Run) -> bool:
    return bool(_ask(redis, "keys", f"*{run.key.run_id}*events"))


def _channels(redis: Valkey) -> int:
    return len(_ask(redis, "pubsub", "channels"))


def _clients(redis: Valkey) -> int:
    return len(_ask(redis, "client", "list").splitlines())


def _lifetimes_s(redis: Valkey) -> list[int]:
    return [_ask(redis, "ttl", key) for key in _ask(redis, "keys", "test:*")]


def _ask(redis: Valkey, *command: Any) -> Any:
    """The raw answer to a command."""
    with redis.client() as client:
        return cast("Any", client.execute_command(*command))  # pyright: ignore[reportUnknownMemberType]  # no types
