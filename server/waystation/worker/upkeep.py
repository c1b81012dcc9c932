"""What has to be done now and then, by any worker: sweeping dead leases, ending poison runs, throwing away what is
over.

Every statement skips what another process is working on, so any number of workers may do this at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import orjson
import structlog

from waystation.catalog.keys import CheckpointTtlKeys
from waystation.config import Settings
from waystation.events import End, EventLog
from waystation.runs.prune import sweep_threads
from waystation.services import GraphSide
from waystation.telemetry import counting, metrics
from waystation_db import events as chunks
from waystation_db import guard_ledger, guard_state, runs, thread_events, thread_removal
from waystation_db.errors import DatabaseError

log = structlog.get_logger(__name__)

LOST = {
    "error": "WorkerLost",
    "message": "The process that executed this run died each time it was tried; it is not tried again.",
}
"""The error of a run that took its process down too often."""

HOUSEKEEPING_S = 30.0
STORE_SWEEP_S = 300.0
AUDIT_PRUNE_S = 3600.0
BATCH = 500


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The chores of a worker process."""

    side: GraphSide
    events: EventLog
    settings: Settings

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Do the chores until the block is left."""
        loops = [
            asyncio.create_task(_forever(self.sweep, self.settings.sweep_s), name="sweep"),
            asyncio.create_task(_forever(self.tidy, HOUSEKEEPING_S), name="tidy"),
            asyncio.create_task(_forever(self.tidy_guards, HOUSEKEEPING_S), name="tidy guards"),
            asyncio.create_task(_forever(self.sweep_store, self._store_sweep_s), name="sweep store"),
            asyncio.create_task(_forever(self.expire, self._expiry_s), name="expire"),
        ]
        if self._audit_days is not None:
            loops.append(asyncio.create_task(_forever(self.prune_audit, AUDIT_PRUNE_S), name="prune audit"))
        try:
            yield
        finally:
            for task in loops:
                task.cancel()
            await asyncio.wait(loops)

    async def sweep(self) -> None:
        """Put back the runs of dead workers; end those that were put back too often."""
        max_crashes, lease_s = self.settings.max_crashes, self.settings.lease_s
        async with self.side.db.connection() as conn:
            swept = await runs.sweep_expired(conn, max_crashes=max_crashes, lease_s=lease_s)
            lost = orjson.dumps(LOST).decode()
            buried = await runs.bury_poisoned(conn, max_crashes=max_crashes, lease_s=lease_s, error=lost)
        for key, attempt in swept:
            metrics.RUNS_SWEPT.labels("pending").inc()
            log.warning("a run's worker is gone; the run is tried again", run_id=key.run_id, attempt=attempt)
        for run in buried:
            metrics.RUNS_SWEPT.labels(run.status).inc()
            counting.run_ended(run.status)
            log.error("a run took its worker down too often; it is not tried again", run_id=run.key.run_id)
            await self.events.end(run.key, run.attempt, End(run.status, error=LOST), resumable=run.resumable)

    async def tidy(self) -> None:
        """Throw away what stateless runs left, old stream events and old idempotency keys."""
        async with self.side.db.connection() as conn:
            await thread_removal.delete_hidden(conn, BATCH)
            await chunks.delete_expired(conn, ttl_s=self.settings.resumable_stream_ttl_s)
            await thread_events.delete_old_traces(conn, ttl_s=self.settings.resumable_stream_ttl_s)
            await runs.forget_idempotency(conn)

    async def tidy_guards(self) -> None:
        """Give back what dead attempts and lost calls hold of budgets; throw away what guards have no more use for."""
        async with self.side.db.connection() as conn:
            given_back = await guard_ledger.sweep(conn, limit=BATCH)
            await guard_ledger.prune_accounts(conn, limit=BATCH)
            await guard_state.forget(conn, limit=BATCH)
        if given_back:
            log.info("holds of calls that never came back were given back", holds=given_back)

    async def expire(self) -> None:
        """End threads whose time is over, by their strategy; as many at a time as `checkpointer.ttl` says."""
        await sweep_threads(self.side, limit=self._ttl.sweep_limit if self._ttl else BATCH)

    @property
    def _ttl(self) -> CheckpointTtlKeys | None:
        checkpointer = self.side.catalog.project.checkpointer
        return checkpointer.ttl if checkpointer else None

    @property
    def _expiry_s(self) -> float:
        return self._ttl.sweep_interval_minutes * 60 if self._ttl else HOUSEKEEPING_S

    async def prune_audit(self) -> None:
        """Remove what is older than `waystation.audit.keep_days` from the audit log."""
        if (days := self._audit_days) is not None:
            from waystation.guarding.audit_pruning import keep_days  # loaded where a project keeps an audit log

            await keep_days(self.side.db, days=days)

    @property
    def _audit_days(self) -> int | None:
        audit = self.side.catalog.project.waystation.audit
        return None if audit is None else audit.keep_days

    async def sweep_store(self) -> None:
        """Delete the store's items that have expired. Nobody sees them any more in any case."""
        await self.side.store.sweep()

    @property
    def _store_sweep_s(self) -> float:
        store = self.side.catalog.project.store
        minutes = store.ttl.sweep_interval_minutes if store and store.ttl else None
        return STORE_SWEEP_S if minutes is None else minutes * 60


async def _forever(chore: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        try:
            await chore()
        except DatabaseError as e:
            log.warning("upkeep failed, trying again", chore=chore.__name__, error=str(e))
        except Exception:
            # The loop's boundary: one bad row must not end all upkeep of the process.
            log.exception("upkeep failed, trying again", chore=chore.__name__)
        await asyncio.sleep(every_s * random.uniform(0.8, 1.2))
