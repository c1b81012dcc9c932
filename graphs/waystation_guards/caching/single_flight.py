"""Of all who miss the same value at the same time, in all processes, one computes it and the others wait for it.

    turn = await take_turn(cache, key, read, rules) ─▶ a value that another has computed meanwhile
                                                    └▶ a Turn: `leads` if this one computes for the others; else it
                                                       has waited long enough and computes for itself
    async with turn: ...                               the lock is renewed until the end, whatever the end is

Callers of one process wait for each other without asking the store (`Flights`). A computing process that dies stops
renewing; after `lock_s` the next one takes over. One that fails lets go at once, and the next one tries: waiters do not
fall upon a provider that is in trouble all together.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Final, TypeVar
from uuid import uuid4

from waystation_guards.blocking import finished
from waystation_guards.ports import Cache

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_POLL_S: Final = 0.01
_LAST_POLL_S: Final = 0.25
_FAILURES: Final = 3
"""After so many answers that a store owes in a row, whoever waits stops to."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`lock_s`: how long a computing process may be silent. `wait_s`: how long others wait before they do it
    themselves. `store_s`: how long the cache itself may take to answer."""

    lock_s: float = 20.0
    wait_s: float = 30.0
    store_s: float = 0.5


class Flights:
    """What is being looked for by the tasks of this process, by loop: of each key one task asks the store."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], asyncio.Event] = {}

    def of(self, key: str) -> asyncio.Event | None:
        """Set when the task that looks for the key is done; None if there is none."""
        return self._open.get((id(asyncio.get_running_loop()), key))

    def begin(self, key: str) -> Callable[[], None]:
        """This task looks for it. What is returned ends that."""
        place, event = (id(asyncio.get_running_loop()), key), asyncio.Event()
        self._open[place] = event

        def end() -> None:
            if self._open.get(place) is event:
                del self._open[place]
            event.set()

        return end


@dataclass(slots=True)
class Turn:
    """The right to compute. Without `leads` nobody waits for it."""

    cache: Cache
    key: str
    leads: bool
    patience: Patience
    holder: str = ""
    on_end: Callable[[], None] | None = None
    _renewing: asyncio.Task[None] | None = field(default=None)

    async def __aenter__(self) -> Turn:
        if self.leads:
            self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        await self.end()

    async def end(self) -> None:
        """Let the next one try. Also done when this task is being cancelled; what fails here the lock's end mends."""
        if not self.leads:
            return
        self.leads = False
        try:
            await finished(self._let_go())
        finally:
            if self.on_end is not None:
                self.on_end()

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(self.patience.store_s):
                await self.cache.unlock(self.key, holder=self.holder)
        except Exception as error:  # whatever the store's trouble is, the lock ends by itself
            log.warning("a cache does not answer; a lock on it ends by itself", exc_info=error)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.patience.lock_s / 3)
            try:
                async with asyncio.timeout(self.patience.store_s):
                    await self.cache.lock(self.key, holder=self.holder, ttl_s=self.patience.lock_s)
            except Exception as error:  # another may begin to compute the same, which costs and does not break
                log.warning("a cache does not answer; a lock on it is not renewed", exc_info=error)


async def take_turn(
    cache: Cache,
    key: str,
    *,
    read: Callable[[], Awaitable[T | None]],
    patience: Patience,
    holder: str = "",
    flights: Flights | None = None,
) -> T | Turn:
    """Wait for another's value, or become the one who computes it. `holder`: who asks; it never waits for itself.
    `flights`: of this process, for code whose turns begin and end on the same loop.

    Raises what the cache raises while it is away; TimeoutError when it takes longer than `store_s`.
    """
    deadline = monotonic() + patience.wait_s
    if flights is None:
        return await _take_turn(cache, key, read, patience, holder, deadline)
    while (other := flights.of(key)) is not None:
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                await other.wait()
        except TimeoutError:
            return Turn(cache, key, leads=False, patience=patience)
        if (value := await _read(read, patience)) is not None:
            return value
    end = flights.begin(key)
    try:
        found = await _take_turn(cache, key, read, patience, holder, deadline)
    except BaseException:
        end()
        raise
    if isinstance(found, Turn) and found.leads:
        found.on_end = end
    else:
        end()
    return found


async def _take_turn(
    cache: Cache,
    key: str,
    read: Callable[[], Awaitable[T | None]],
    patience: Patience,
    holder: str,
    deadline: float,
) -> T | Turn:
    holder, pause, failures = holder or uuid4().hex, _FIRST_POLL_S, 0
    while True:
        try:
            async with asyncio.timeout(patience.store_s):
                leads = await cache.lock(key, holder=holder, ttl_s=patience.lock_s)
            if leads:
                return await _lead(Turn(cache, key, leads=True, patience=patience, holder=holder), read)
            if (value := await _read(read, patience)) is not None:
                return value
            failures = 0
        except Exception:  # a store that is busy with all who wait; one that stays away is the caller's to hear of
            failures += 1
            if failures == _FAILURES or pause == _FIRST_POLL_S:
                raise
        if monotonic() >= deadline:
            return Turn(cache, key, leads=False, patience=patience)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.6, _LAST_POLL_S)


async def _lead(turn: Turn, read: Callable[[], Awaitable[T | None]]) -> T | Turn:
    """Between this one's look and its lock another may have finished: look once more."""
    try:
        value = await _read(read, turn.patience)
    except BaseException:
        await turn.end()
        raise
    if value is None:
        return turn
    await turn.end()
    return value


async def _read(read: Callable[[], Awaitable[T | None]], patience: Patience) -> T | None:
    async with asyncio.timeout(patience.store_s):
        return await read()
