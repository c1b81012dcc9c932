"""The answers of /metrics: what this process counted, and the queue as Postgres sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from waystation.runs.guard_figures import GuardFigures
from waystation.services import Services
from waystation.telemetry import counting, metrics
from waystation.telemetry.shared_metrics import registry
from waystation_db.errors import DatabaseUnavailable
from waystation_db.queue import PriorityStatistics, QueueStatistics, queue_priorities, queue_statistics

FRESH_S = 1.0
"""How long the queue's figures are good for: a scrape storm costs one query a second."""


class Numbers:
    """The figures of one process."""

    def __init__(self, services: Services) -> None:
        self._db = services.db
        self._guards = GuardFigures(services)
        self._priorities = {0}
        self._taken_at = -FRESH_S
        self._queue: QueueStatistics | None = None

    async def as_text(self) -> bytes:
        """Everything in Prometheus's text format. Without the database, everything but the queue's present state."""
        await self._queue_now()
        await self._guards.look()
        return generate_latest(registry())

    async def as_json(self) -> dict[str, Any]:
        """The figures that dashboards of the platform read; those of the queue are null without the database."""
        queue = await self._queue_now()
        shown = registry()
        slots = int(shown.get_sample_value("waystation_worker_slots") or 0)
        active = int(shown.get_sample_value("waystation_worker_active_runs") or 0)
        return {
            "queue": {
                "n_pending": queue and queue.pending,
                "pending_runs_wait_time_max_secs": queue and queue.oldest_wait_s,
                "pending_runs_wait_time_med_secs": queue and queue.median_wait_s,
                "pending_unblocked_runs_wait_time_max_secs": queue and queue.oldest_unblocked_wait_s,
                "n_running": queue and queue.running,
            },
            "api": {"http_requests_total": list(_requests(shown))},
            "workers": {"max": slots, "active": active, "available": max(0, slots - active)},
        }

    async def _queue_now(self) -> QueueStatistics | None:
        now = monotonic()
        if now - self._taken_at < FRESH_S:
            return self._queue
        try:
            async with self._db.connection() as conn:
                self._queue = await queue_statistics(conn)
                waiting = await queue_priorities(conn)
        except DatabaseUnavailable:
            return None
        self._taken_at = now
        counting.queue_counted(self._queue.pending, self._queue.running, self._queue.oldest_wait_s)
        self._count_priorities(waiting)
        return self._queue

    def _count_priorities(self, waiting: Sequence[PriorityStatistics]) -> None:
        """What nobody waits with any more is shown as 0: a gauge that stays away looks as if it stayed."""
        found = {one.priority: one for one in waiting}
        self._priorities |= found.keys()
        for priority in self._priorities:
            one = found.get(priority)
            metrics.QUEUE_PRIORITY_PENDING.labels(str(priority)).set(one.pending if one else 0)
            metrics.QUEUE_PRIORITY_OLDEST_SECONDS.labels(str(priority)).set((one and one.oldest_wait_s) or 0)


def _requests(shown: CollectorRegistry) -> Iterator[dict[str, Any]]:
    for family in shown.collect():
        for sample in family.samples:
            if sample.name == "waystation_http_requests_total":
                labels = sample.labels
                yield {
                    "method": labels["method"],
                    "path": labels["route"],
                    "status": int(labels["status"]),
                    "count": int(sample.value),
                }
