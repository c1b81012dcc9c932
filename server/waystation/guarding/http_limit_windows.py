"""Sliding windows of requests, counted by the library `limits`: in Redis for all processes, else in this one's memory.

A window's count is that of the present window and the part of the one before that still lies in it. Redis's clock and
one script decide. (https://limits.readthedocs.io/en/stable/strategies.html#sliding-window-counter)
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from waystation.guarding.http_limit_rules import Window
from waystation_guards.ports import PortUnavailable

ANSWER_S: Final = 1.0
_AWAY_S: Final = 1.0
"""For how long Redis is not asked again when it did not answer: nobody should wait a second for each request."""
_SWEEP_S: Final = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Level:
    """How a window stands. `wait_s`: until one more request fits, 0.0 if it does. `reset_s`: until it is empty."""

    left: int
    wait_s: float
    reset_s: float


class _Storage(Protocol):
    """What is used of the library's storages."""

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool: ...

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]: ...


class Windows:
    """The windows of a process. Belongs to the loop that it is used on."""

    def __init__(self, storage: _Storage) -> None:
        self._storage = storage
        self._away_until = 0.0

    @property
    def client(self) -> str:
        """The library that asks; empty for memory."""
        return self._storage.target_server if isinstance(self._storage, RedisStorage) else ""

    async def level(self, window: Window, cost: int = 1) -> Level:
        """How a window stands, and when `cost` requests fit into it. Raises PortUnavailable."""
        before, before_left_s, now, now_left_s = await self._ask(
            lambda storage: storage.get_sliding_window(window.key, window.seconds)
        )
        return _level(window, cost, before, min(before_left_s, window.seconds), now, now_left_s)

    async def take(self, window: Window, cost: int = 1) -> bool:
        """Count requests, if they fit; a negative cost takes some back. Raises PortUnavailable."""
        return await self._ask(
            lambda storage: storage.acquire_sliding_window_entry(window.key, window.amount, window.seconds, cost)
        )

    async def close(self) -> None:
        """Close the connections."""
        if isinstance(self._storage, RedisStorage):
            await cast("Any", self._storage).bridge.get_connection().aclose()

    async def _ask(self, work: Callable[[_Storage], Awaitable[T]]) -> T:
        if time.monotonic() < self._away_until:
            raise PortUnavailable("Redis did not answer a moment ago")
        try:
            return await work(self._storage)
        except (StorageError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + _AWAY_S
            raise PortUnavailable(str(error)) from error


def windows_in_redis(uri: str, *, key_prefix: str) -> Windows:
    """Windows that all processes share."""
    if uri.startswith("unix://"):
        uri = f"redis+{uri}"  # else the library takes another client
    return Windows(
        RedisStorage(
            f"async+{uri}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=f"{key_prefix}waystation:http",
            **cast(
                "dict[str, Any]",
                {
                    "protocol": 2,
                    "socket_timeout": ANSWER_S,
                    "socket_connect_timeout": ANSWER_S,
                    "retry": Retry(NoBackoff(), 0),
                },
            ),
        )
    )


def windows_in_memory() -> Windows:
    """Windows of this process alone."""
    return Windows(_Memory())


class _Memory(MemoryStorage):
    """The library's, without a walk over all keys at each request."""

    def __init__(self) -> None:
        super().__init__()
        self._sweep_at = 0.0

    async def get(self, key: str) -> int:
        return self.storage.get(key, 0) if self.expirations.get(key, 0.0) > time.time() else 0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        self._sweep(now)
        if self.expirations.get(key, 0.0) <= now:
            self.storage[key], self.expirations[key] = 0, now + expiry
        self.storage[key] += amount
        return self.storage[key]

    async def decr(self, key: str, amount: int = 1) -> int:
        self.storage[key] = max(0, self.storage.get(key, 0) - amount)
        return self.storage[key]

    def _sweep(self, now: float) -> None:
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_S
        for key in [key for key, until in self.expirations.items() if until <= now]:
            self.storage.pop(key, None)
            self.expirations.pop(key, None)


def _level(window: Window, cost: int, before: int, before_left_s: float, now: int, now_left_s: float) -> Level:
    """`before_left_s`: how much longer the previous window counts. `now_left_s`: how much longer the present one is
    kept, which is a whole window beyond its own end."""
    weighted = math.floor(before * before_left_s / window.seconds) + now
    left = max(0, window.amount - weighted)
    until_next = max(0.0, now_left_s - window.seconds) if now else 0.0
    reset_s = max(before_left_s if before else 0.0, until_next + window.seconds if now else 0.0)
    if weighted + cost <= window.amount:
        return Level(left, 0.0, reset_s)
    if before and now + cost <= window.amount:  # what is left of the previous window has to shrink
        wait_s = before_left_s - (window.amount - now - cost + 1) * window.seconds / before
        return Level(left, max(0.001, wait_s), reset_s)
    # The present window becomes the previous one, and then has to shrink.
    shrink_s = window.seconds - (window.amount - cost + 1) * window.seconds / now if now else 0.0
    return Level(left, until_next + max(0.001, shrink_s), reset_s)
