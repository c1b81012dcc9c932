"""A queue in which one after the other gets its turn, in the order in which they came: any loop, any thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


class TurnMissed(Exception):
    """The turn did not come in time."""


@dataclass(slots=True, eq=False)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    costs: Sequence[int]
    is_given: bool = False


@dataclass(slots=True)
class Turns:
    """Whose turn it is, and when that one expects to be done, as far as it said (`expect`)."""

    due: float = 0.0
    _having: Sequence[int] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: deque[_Waiting] = field(default_factory=deque[_Waiting])
    _is_taken: bool = False

    @asynccontextmanager
    async def turn(self, costs: Sequence[int], *, timeout_s: float) -> AsyncGenerator[None]:
        """Wait for the turn and have it within the block.

        Raises:
            TurnMissed: it did not come in time.
        """
        with self._lock:
            waiting = None if not self._is_taken else self._line_up(costs)
            self._is_taken = True
        if waiting is not None:
            await self._wait(waiting, timeout_s)
        self._having = costs
        try:
            yield
        finally:
            self._pass_on()

    @property
    def is_free(self) -> bool:
        """Whether nobody has the turn; nobody waits then either."""
        return not self._is_taken

    def expect(self, due: float) -> None:
        """Whoever has the turn knows when it will be done; what it costs is in that."""
        self.due, self._having = due, ()

    def ahead(self) -> list[int]:
        """The sum of each cost over all that wait, and over the one whose turn it is while it does not know more."""
        with self._lock:
            every = [costs for costs in (self._having, *(one.costs for one in self._waiting)) if costs]
            return [sum(costs) for costs in zip(*every, strict=True)]

    def _line_up(self, costs: Sequence[int]) -> _Waiting:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future(), costs)
        self._waiting.append(waiting)
        return waiting

    async def _wait(self, waiting: _Waiting, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.turn
        except BaseException as error:
            with self._lock:
                is_mine = waiting.is_given
                if not is_mine:
                    self._waiting.remove(waiting)
            if is_mine:  # it came in the same moment
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise TurnMissed from None
            raise

    def _pass_on(self) -> None:
        with self._lock:
            self.due, self._having = 0.0, ()
            while self._waiting:
                following = self._waiting.popleft()
                following.is_given = True
                if following.loop is _running_loop():
                    _give(following.turn)
                    return
                with suppress(RuntimeError):  # its loop is closed: nobody waits there any more
                    following.loop.call_soon_threadsafe(_give, following.turn)
                    return
            self._is_taken = False


def _give(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
