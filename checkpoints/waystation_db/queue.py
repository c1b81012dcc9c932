"""The queue as operators see it: how many runs wait, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from waystation_db.sql import load

_STATISTICS = load("queue")["statistics"]


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Over all tenants and processes. Waiting times in seconds, None when no due run waits."""

    pending: int
    running: int
    oldest_wait_s: float | None
    median_wait_s: float | None
    oldest_unblocked_wait_s: float | None


async def queue_statistics(conn: AsyncConnection[Any]) -> QueueStatistics:
    """Count the queue now."""
    row = await (await conn.execute(_STATISTICS)).fetchone()
    return QueueStatistics(*row) if row else QueueStatistics(0, 0, None, None, None)
