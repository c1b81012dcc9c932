"""Whether the queue takes another run: overload is refused, not suffered.

The count is taken from Postgres at most once a second, and what this process has added since is counted on top. Several
processes may together overshoot by what they accept within that second; the bound is against floods, not a quota.
"""

from __future__ import annotations

from time import monotonic

from waystation.errors import Unavailable
from waystation_db import runs
from waystation_db.pool import Database

FRESH_S = 1.0


class QueueRoom:
    """The room that is left in the queue of pending runs. Belongs to the API's loop."""

    def __init__(self, db: Database, *, limit: int) -> None:
        self._db = db
        self._limit = limit
        self._counted_at = -FRESH_S
        self._pending = 0

    async def take(self, count: int = 1) -> None:
        """Before `count` runs are added that will wait.

        Raises:
            Unavailable: that many runs wait already.
        """
        now = monotonic()
        if now - self._counted_at >= FRESH_S:
            self._counted_at = now
            async with self._db.connection() as conn:
                self._pending = await runs.pending_up_to(conn, self._limit)
        if self._pending + count > self._limit:
            raise Unavailable("Too many runs are waiting; try again later.", headers={"Retry-After": "2"})
        self._pending += count
