"""The queue as operators see it: how many runs wait, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from waystation_db.sql import load

_STATISTICS = load("queue")["statistics"]
_BY_PRIORITY = load("queue")["by_priority"]
_UNATTENDED = load("queue")["unattended"]


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Over all tenants and processes. Waiting times in seconds, None when no due run waits."""

    pending: int
    running: int
    oldest_wait_s: float | None
    median_wait_s: float | None
    oldest_unblocked_wait_s: float | None


@dataclass(frozen=True, slots=True)
class PriorityStatistics:
    """The runs of one priority that wait, over all tenants."""

    priority: int
    pending: int
    oldest_wait_s: float | None


@dataclass(frozen=True, slots=True)
class Unattended:
    """What no worker took up in time, over all tenants: `pending` runs that are due and unblocked (`oldest_wait_s`: the
    longest wait of one, None where none is due), `lost` runs whose worker is gone, `crons` that are due. `executing`:
    runs that a worker holds."""

    pending: int
    oldest_wait_s: float | None
    lost: int
    crons: int
    executing: int


async def queue_unattended(conn: AsyncConnection[Any], *, grace_s: float) -> Unattended:
    """Look for what living workers would have taken up within `grace_s` seconds."""
    row = await (await conn.execute(_UNATTENDED, {"grace_s": grace_s})).fetchone()
    return Unattended(*row) if row else Unattended(0, None, 0, 0, 0)


async def queue_priorities(conn: AsyncConnection[Any]) -> list[PriorityStatistics]:
    """Count the queue now, priority by priority; none without a run that waits."""
    return [PriorityStatistics(*row) for row in await (await conn.execute(_BY_PRIORITY)).fetchall()]


async def queue_statistics(conn: AsyncConnection[Any]) -> QueueStatistics:
    """Count the queue now."""
    row = await (await conn.execute(_STATISTICS)).fetchone()
    return QueueStatistics(*row) if row else QueueStatistics(0, 0, None, None, None)
