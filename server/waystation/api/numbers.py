"""The answers of /metrics: what this process counted, and the queue as Postgres sees it."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

from prometheus_client import REGISTRY, generate_latest

from waystation.telemetry import metrics
from waystation_db.errors import DatabaseUnavailable
from waystation_db.pool import Database
from waystation_db.queue import QueueStatistics, queue_statistics

FRESH_S = 1.0
"""How long the queue's figures are good for: a scrape storm costs one query a second."""


class Numbers:
    """The figures of one process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._taken_at = -FRESH_S
        self._queue: QueueStatistics | None = None

    async def as_text(self) -> bytes:
        """Everything in Prometheus's text format. Without the database, everything but the queue's present state."""
        await self._queue_now()
        return generate_latest(REGISTRY)

    async def as_json(self) -> dict[str, Any]:
        """The figures that dashboards of the platform read; those of the queue are null without the database."""
        queue = await self._queue_now()
        slots = int(REGISTRY.get_sample_value("waystation_worker_slots") or 0)
        active = int(REGISTRY.get_sample_value("waystation_worker_active_runs") or 0)
        return {
            "queue": {
                "n_pending": queue and queue.pending,
                "pending_runs_wait_time_max_secs": queue and queue.oldest_wait_s,
                "pending_runs_wait_time_med_secs": queue and queue.median_wait_s,
                "pending_unblocked_runs_wait_time_max_secs": queue and queue.oldest_unblocked_wait_s,
                "n_running": queue and queue.running,
            },
            "api": {"http_requests_total": list(_requests())},
            "workers": {"max": slots, "active": active, "available": max(0, slots - active)},
        }

    async def _queue_now(self) -> QueueStatistics | None:
        now = monotonic()
        if now - self._taken_at < FRESH_S:
            return self._queue
        try:
            async with self._db.connection() as conn:
                self._queue = await queue_statistics(conn)
        except DatabaseUnavailable:
            return None
        self._taken_at = now
        metrics.QUEUE_PENDING.set(self._queue.pending)
        metrics.AGENT_QUEUE_SIZE.set(self._queue.pending)
        metrics.QUEUE_RUNNING.set(self._queue.running)
        metrics.QUEUE_OLDEST_SECONDS.set(self._queue.oldest_wait_s or 0)
        return self._queue


def _requests() -> Iterator[dict[str, Any]]:
    for family in metrics.HTTP_REQUESTS.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                labels = sample.labels
                yield {
                    "method": labels["method"],
                    "path": labels["route"],
                    "status": int(labels["status"]),
                    "count": int(sample.value),
                }
