"""Hedged requests: where a target is slower than it usually is, the next is asked too, and the first to answer wins.

A hedge costs a second call's input for a few per cent of the calls, and takes the long tail off the time to the first
token (Dean and Barroso, "The Tail at Scale", 2013).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol, TypeVar

from waystation_guards.blocking import finished


@dataclass(frozen=True, slots=True)
class Hedge:
    """When the second target is asked: after the `percentile` of the target's recent times to the first token.

    `after_s`: the delay until `minimum` times are known. `least_s`: never earlier than that.
    """

    percentile: float = 0.95
    after_s: float = 3.0
    minimum: int = 20
    least_s: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 1:
            raise ValueError(f"percentile of a hedge is {self.percentile!r}; expected is a number between 0 and 1")


@dataclass(slots=True)
class Latencies:
    """The recent times to the first token of each target, in this process. Any thread may use it.

    A call that was hedged counts with the time it had been waited for: so the delay follows a target that slows down.
    """

    kept: int = 200
    _times: dict[str, deque[float]] = field(default_factory=dict[str, "deque[float]"])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, target: str, seconds: float) -> None:
        with self._lock:
            self._times.setdefault(target, deque(maxlen=self.kept)).append(seconds)

    def delay_s(self, target: str, hedge: Hedge) -> float:
        """Seconds to wait for a target's first token before another one is asked."""
        with self._lock:
            times = sorted(self._times.get(target, ()))
        if len(times) < hedge.minimum:
            return hedge.after_s
        return max(hedge.least_s, times[min(len(times) - 1, ceil(hedge.percentile * len(times)) - 1)])


class Contender(Protocol):
    """Who takes part in a race: waits for its first token, and can be ended."""

    async def first(self) -> float: ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Contender)


class Lost(Exception):
    """All contenders failed; this one last. The others' failures were told before."""

    def __init__(self, contender: Any, error: Exception) -> None:
        super().__init__(str(error))
        self.contender = contender
        self.error = error


async def race(
    first: C,
    second: Callable[[], Awaitable[C | None]],
    *,
    delay_s: float,
    on_failed: Callable[[C, Exception], Awaitable[Any]],
) -> tuple[C, float]:
    """The contender whose first token came first, and the seconds that it took. The other one is cancelled and closed.

    `second` is asked for after `delay_s`; None means that there is none. Cancelling closes both.

    Raises:
        Lost: the first failed before there was a second, or both did.
    """
    running: dict[asyncio.Task[float], C] = {asyncio.create_task(first.first()): first}
    try:
        done, _ = await asyncio.wait(running, timeout=delay_s)
        if not done and (other := await second()) is not None:
            running[asyncio.create_task(other.first())] = other
        while True:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                contender = running.pop(task)
                error = task.exception()
                if error is None:
                    return contender, task.result()
                if not isinstance(error, Exception):
                    raise error
                await contender.close()
                if not running:
                    raise Lost(contender, error)
                await on_failed(contender, error)
    finally:
        await finished(_end(running))


async def _end(running: dict[asyncio.Task[float], C]) -> None:
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for contender in running.values():
        await contender.close()
