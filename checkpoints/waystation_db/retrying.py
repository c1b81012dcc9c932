"""Which database errors pass by themselves, and waiting for them to pass: a restart or an outage of Postgres is no
failure of the work that was under way. Used by everything whose statements may be sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from waystation_db.errors import DatabaseUnavailable

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_TOO_LARGE = "54"  # Postgres's class of limits that a value exceeds: it does so each time

T = TypeVar("T")


def is_passing(error: BaseException) -> bool:
    """Whether trying again may help: lost connections, restarts, failovers, deadlocks, full pools, time-outs."""
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "").startswith(_TOO_LARGE):
        return False
    return isinstance(
        error,
        DatabaseUnavailable
        | psycopg.OperationalError
        | psycopg.InterfaceError
        | psycopg.errors.ReadOnlySqlTransaction
        | TimeoutError,
    )


class Backoff:
    """The pauses between tries, and the moment after which there is no other try. Monotonic clock."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._pause_s = _FIRST_PAUSE_S

    def remaining_s(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    async def pause(self) -> None:
        """Sleep before the next try, twice as long as before, up to a second, and not past the deadline."""
        await asyncio.sleep(max(0.0, min(self._pause_s, self.remaining_s())))
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


async def until_done(work: Callable[[], Awaitable[T]], *, retry_s: float) -> T:
    """Run idempotent `work`, again and again while the database is away, for up to `retry_s` seconds.

    Raises DatabaseUnavailable when it stayed away, and whatever else `work` raises at once.
    """
    backoff = Backoff(asyncio.get_running_loop().time() + retry_s)
    while True:
        try:
            async with asyncio.timeout_at(backoff.deadline):
                return await work()
        except Exception as error:
            if not is_passing(error):
                raise
            if backoff.remaining_s() <= 0:
                raise DatabaseUnavailable(f"the database did not answer for {retry_s:g} s") from error
            await backoff.pause()
