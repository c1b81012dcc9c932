"""Fires crons when they are due. Every process with a worker does; a tick is fired by whoever takes it first.

It lives on the API's loop, which no user code blocks, so that a tick is not late because a graph is busy. It sleeps
until the next tick, and at most a second, so that a cron which another process made is seen in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import cast

import structlog

from waystation.runs.cron_firing import fire_next
from waystation.services import Services
from waystation_db import crons, runs
from waystation_db.errors import DatabaseError
from waystation_db.retrying import is_passing

log = structlog.get_logger(__name__)

LANES = 4
"""Firings at a time, in a pool that is large enough: each holds a connection, and may need another one meanwhile."""

ROUND = 200
"""Firings in one round, after which the queue's room is looked at again."""

CROWDED_S = 2.0
"""How long to wait while the queue has no room for crons."""

SOON_S = 0.05
"""The shortest pause between two rounds: what is still due is being fired by another process."""


class CronClock:
    """The clock of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Fire what is due until the block is left. A firing under way is committed or not, never half."""
        task = asyncio.create_task(self._run(), name="crons")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def round(self) -> float:
        """Fire what is due now; how many seconds to wait before the next round."""
        wait_s = await self._until_due()
        if wait_s > 0:
            return wait_s
        room = await self._room()
        if room <= 0:
            log.warning("too many runs wait; crons are held back")
            return CROWDED_S
        lanes = max(1, min(LANES, self._services.db.max_size // 4))
        share = -(-min(ROUND, room) // lanes)
        async with asyncio.TaskGroup() as firing:
            for _ in range(lanes):
                firing.create_task(self._fire_up_to(share))
        return max(SOON_S, await self._until_due())

    async def _until_due(self) -> float:
        async with self._services.db.connection() as conn:
            wait_s = await crons.until_due(conn)
        poll_s = self._services.settings.poll_s * random.uniform(0.9, 1.0)
        return poll_s if wait_s is None else min(poll_s, wait_s)

    async def _fire_up_to(self, count: int) -> None:
        for _ in range(count):
            if not await fire_next(self._services):
                return

    async def _room(self) -> int:
        """Crons may fill half of the queue: masses of them shut nobody else out."""
        half = max(1, self._services.settings.max_queue // 2)
        async with self._services.db.connection() as conn:
            return half - await runs.pending_up_to(conn, half)

    async def _run(self) -> None:
        while True:
            try:
                wait_s = await self.round()
            except (DatabaseError, ExceptionGroup) as error:
                wait_s = 1.0
                _tell(error)
            except Exception:
                # The loop's boundary: a process that has stopped firing looks as if nothing were due.
                wait_s = 1.0
                log.exception("crons could not be fired, trying again")
            await asyncio.sleep(wait_s)


def _tell(error: Exception) -> None:
    causes: tuple[Exception, ...] = (error,)
    if isinstance(error, ExceptionGroup):
        causes = cast("ExceptionGroup[Exception]", error).exceptions  # its members' type is lost by isinstance
    if all(is_passing(cause) or isinstance(cause, DatabaseError) for cause in causes):
        log.warning("crons could not be fired, trying again", error=str(causes[0]))
    else:
        log.error("crons could not be fired, trying again", exc_info=error)
