"""Time that passes only when everybody waits for it: for guards that take their clock and their sleep from outside."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_TURNS = 200
"""Of the loop, after which whatever could go on without time passing has."""


class VirtualTime:
    """`clock` and `sleep` for what is tested; `run` lets it happen."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._settling = 0

    def clock(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._count, woken))
        await woken

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work; whenever it can only wait, time goes on to the next moment that somebody waits for."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self._turns()
            while self._sleepers and not task.done() and not self._settling:
                at, _, woken = heapq.heappop(self._sleepers)
                if not woken.done():
                    self._now = max(self._now, at)
                    woken.set_result(None)
                    break
        return await task

    async def settle(self) -> None:
        """Let everything happen that can happen now; time stands still until then."""
        self._settling += 1
        try:
            await self._turns()
        finally:
            self._settling -= 1

    async def _turns(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
