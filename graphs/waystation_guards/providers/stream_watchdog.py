"""Ends a wait that takes too long, for waits that come by the thousand: one timer for a stream, not one per token.

    watchdog = Watchdog()
    piece = await watchdog.within(at, anext(pieces))        TimeoutError when the loop's clock passes `at`
    watchdog.close()

The timer is not moved with each wait. When it goes off and the wait of that moment still has time, it is set again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Watchdog:
    """One wait at a time, on the loop on which it was made; from any task."""

    __slots__ = ("_at", "_is_over", "_loop", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._at = 0.0
        self._is_over = False

    async def within(self, at: float | None, work: Awaitable[T]) -> T:
        """What the work comes to. `at`: on the loop's clock; None is without a limit.

        Raises:
            TimeoutError: it took longer, and was cancelled. Who is cancelled by somebody else stays cancelled.
        """
        task = asyncio.current_task()
        if at is None or task is None:
            return await work
        before = task.cancelling()
        self._watch(task, at)
        try:
            return await work
        except asyncio.CancelledError as error:
            if self._is_over and task.uncancel() <= before:
                raise TimeoutError from error
            raise
        finally:
            self._task = None

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, task: asyncio.Task[object], at: float) -> None:
        self._task, self._at = task, at
        if self._timer is not None and self._timer.when() > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._go_off)
            return
        self._is_over = True
        self._task.cancel()
