"""When the second target is asked, and who wins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scripted_targets import until
from waystation_guards.failover.hedging import Hedge, Latencies, Lost, race

pytestmark = pytest.mark.anyio


class Runner:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.error: BaseException | None = None
        self.closed = 0
        self.cancelled = False

    async def first(self) -> float:
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return 1.0

    async def close(self) -> None:
        self.closed += 1

    def says(self, error: BaseException | None = None) -> Runner:
        self.error = error
        self.go.set()
        return self


def start(one: Runner, two: Runner | None, failed: list[Any], *, delay_s: float = 0.0) -> asyncio.Task[Any]:
    async def second() -> Runner | None:
        return two

    async def on_failed(runner: Runner, error: Exception) -> None:
        failed.append((runner, error))

    return asyncio.create_task(race(one, second, delay_s=delay_s, on_failed=on_failed))


def test_the_delay_is_a_percentile_of_what_the_target_took() -> None:
    times, hedge = Latencies(), Hedge(percentile=0.9, after_s=7, minimum=10)
    for number in range(1, 10):
        times.note("a", number / 10)
    assert times.delay_s("a", hedge) == 7
    times.note("a", 1.0)
    assert times.delay_s("a", hedge) == 0.9
    assert times.delay_s("b", hedge) == 7
    for _ in range(200):
        times.note("a", 0.001)
    assert times.delay_s("a", hedge) == hedge.least_s


async def test_the_first_wins_alone_within_the_delay() -> None:
    one, two = Runner().says(), Runner()
    assert await start(one, two, [], delay_s=60) == (one, 1.0)
    assert (one.closed, two.closed, two.cancelled) == (0, 0, False)


async def test_the_second_wins_and_the_first_is_cancelled_and_closed() -> None:
    one, two = Runner(), Runner().says()
    assert await start(one, two, []) == (two, 1.0)
    assert (one.cancelled, one.closed, two.closed) == (True, 1, 0)


async def test_where_there_is_no_second_the_first_is_waited_for() -> None:
    one = Runner()
    task = start(one, None, [])
    await one.began.wait()
    one.says()
    assert await task == (one, 1.0)


async def test_one_failure_is_told_and_the_other_waited_for() -> None:
    one, two, failed, error = Runner(), Runner().says(ValueError("no")), list[Any](), None
    task = start(one, two, failed)
    await until(lambda: bool(failed))
    one.says()
    assert await task == (one, 1.0)
    ((runner, error),) = failed
    assert (runner, str(error), two.closed) == (two, "no", 1)


async def test_two_failures_lose_the_race() -> None:
    one, two = Runner().says(ValueError("one")), Runner()
    with pytest.raises(Lost) as lost:
        await start(one, two, [], delay_s=60)
    assert (lost.value.contender, str(lost.value.error)) == (one, "one")
    assert (one.closed, two.closed) == (1, 0)


async def test_cancelling_the_race_ends_both() -> None:
    one, two = Runner(), Runner()
    task = start(one, two, [])
    await one.began.wait()
    await two.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (one.cancelled, two.cancelled) == (True, True)
    assert (one.closed, two.closed) == (1, 1)
