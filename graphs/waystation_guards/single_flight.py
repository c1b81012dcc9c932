"""Of all who miss the same value at the same time, in all processes, one computes it and the others wait for it.

    turn = await take_turn(cache, key, read, rules) ─▶ a value that another has computed meanwhile
                                                    └▶ a Turn: `leads` if this one computes for the others; else it
                                                       has waited long enough and computes for itself
    async with turn: ...                               the lock is renewed until the end, whatever the end is

A computing process that dies stops renewing; after `lock_s` the next one takes over. One that fails lets go at once,
and the next one tries: waiters do not fall upon a provider that is in trouble all together.
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


@dataclass(frozen=True, slots=True)
class Patience:
    """`lock_s`: how long a computing process may be silent. `wait_s`: how long others wait before they do it
    themselves. `store_s`: how long the cache itself may take to answer."""

    lock_s: float = 20.0
    wait_s: float = 30.0
    store_s: float = 0.5


@dataclass(slots=True)
class Turn:
    """The right to compute. Without `leads` nobody waits for it."""

    cache: Cache
    key: str
    leads: bool
    patience: Patience
    holder: str = ""
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
        await finished(self._let_go())

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
    cache: Cache, key: str, *, read: Callable[[], Awaitable[T | None]], patience: Patience, holder: str = ""
) -> T | Turn:
    """Wait for another's value, or become the one who computes it. `holder`: who asks; it never waits for itself.

    Raises what the cache raises while it is away; TimeoutError when it takes longer than `store_s`.
    """
    holder, deadline, pause = holder or uuid4().hex, monotonic() + patience.wait_s, _FIRST_POLL_S
    while True:
        async with asyncio.timeout(patience.store_s):
            leads = await cache.lock(key, holder=holder, ttl_s=patience.lock_s)
        if leads:
            return await _lead(Turn(cache, key, leads=True, patience=patience, holder=holder), read)
        if monotonic() >= deadline:
            return Turn(cache, key, leads=False, patience=patience)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.6, _LAST_POLL_S)
        if (value := await _read(read, patience)) is not None:
            return value


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
