"""A silent loop is noticed from outside; one that answers, and a process that was stopped, are left alone."""

from __future__ import annotations

import asyncio

import pytest

from waystation.worker import loop_watch
from waystation.worker.loop_watch import LoopWatch


class Clock:
    """Time as the watch sees it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop_watch, "time", clock)
    return clock


def _checks(watch: LoopWatch, clock: Clock, seconds: float, count: int) -> None:
    for _ in range(count):
        clock.now += seconds
        watch.check()


def test_a_loop_that_does_not_answer_ends_the_process(clock: Clock) -> None:
    codes: list[int] = []
    loop = asyncio.new_event_loop()  # it does not run, so it is silent
    watch = LoopWatch(loop, warn_s=3, fatal_s=10, end=codes.append)
    _checks(watch, clock, 2, 6)
    assert codes == []
    _checks(watch, clock, 2, 1)
    assert codes == [70]
    loop.close()


@pytest.mark.anyio
async def test_a_loop_that_answers_is_left_alone(clock: Clock) -> None:
    codes: list[int] = []
    watch = LoopWatch(asyncio.get_running_loop(), warn_s=3, fatal_s=10, end=codes.append)
    for _ in range(20):
        _checks(watch, clock, 2, 2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert codes == []


def test_a_process_that_was_stopped_is_given_time_to_answer(clock: Clock) -> None:
    codes: list[int] = []
    loop = asyncio.new_event_loop()
    watch = LoopWatch(loop, warn_s=3, fatal_s=10, end=codes.append)
    _checks(watch, clock, 2, 1)
    _checks(watch, clock, 3600, 1)
    assert codes == []
    loop.close()
