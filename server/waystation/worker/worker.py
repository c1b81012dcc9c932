"""The worker: slots, claims, and the course of each run from its claim to its outcome.

It lives on the graph loop. `reserve`, `release`, `start`, `work_available` and `stop_run` may be called from any
thread: the
API of the same process uses them, everybody else's hints come through Postgres.

    wake-up or poll ──▶ claim as many as there are free slots ──▶ Execution.run ──▶ conclude: write the outcome down
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from structlog.contextvars import bound_contextvars

from waystation.config import Settings
from waystation.events import EventLog
from waystation.services import GraphSide
from waystation.telemetry import counting, metrics
from waystation.worker.conclude import Concluder
from waystation.worker.execute import Execution, Limits
from waystation.worker.leases import LeaseKeeper
from waystation.worker.loop_watch import LoopWatch
from waystation.worker.outcomes import Failed, Outcome
from waystation.worker.reasons import Cancelled, Draining, FencedOff
from waystation_db import runs
from waystation_db.errors import DatabaseUnavailable
from waystation_db.retrying import is_passing
from waystation_db.rows import CancelAction, CancelWish, ClaimedRun, RunKey

log = structlog.get_logger(__name__)

Conn = AsyncConnection[TupleRow]

UNWRITABLE = Failed("UnwritableOutcome", "What became of the run could not be stored; the server's log says why.")


class _Slots:
    """How many runs may execute here, and how many do. Thread-safe."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._closed = False
        self._lock = threading.Lock()

    def take(self, wanted: int = 1) -> int:
        with self._lock:
            got = 0 if self._closed else max(0, min(wanted, self.size - self.taken))
            self.taken += got
            if got:
                counting.runs_executing(self.taken)
            return got

    def give_back(self, count: int = 1) -> bool:
        """True when there was no slot free before."""
        with self._lock:
            was_full = self.taken >= self.size
            self.taken -= count
            if count:
                counting.runs_executing(self.taken)
            return was_full

    def close(self) -> None:
        with self._lock:
            self._closed = True


class Worker:
    """Executes runs. Made and left by `async with Worker.running(...)` on the graph loop."""

    def __init__(self, worker_id: str, side: GraphSide, events: EventLog, settings: Settings) -> None:
        self._worker_id = worker_id
        self._side = side
        self._settings = settings
        self._events = events
        self._limits = Limits(settings.bg_job_timeout_s, settings.abandon_s)
        self._slots = _Slots(settings.n_jobs_per_worker)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_chances_at = 0.0
        self._executions: dict[RunKey, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Task[Outcome]] = set()
        self._concluder = Concluder(side, events, on_successor=self._wake.set)
        self._leases = LeaseKeeper(
            side.db.conninfo,
            lease_s=settings.lease_s,
            renew_s=settings.renew_s,
            on_lost=self._on_lost_lease,
            on_wish=self._on_wish,
            watch=LoopWatch(
                self._loop, warn_s=settings.lease_s, fatal_s=settings.bg_job_timeout_s + settings.abandon_s
            ),
        )
        metrics.WORKER_SLOTS.set(settings.n_jobs_per_worker)
        counting.runs_executing(0)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, worker_id: str, side: GraphSide, events: EventLog, settings: Settings
    ) -> AsyncGenerator[Worker]:
        """A worker that claims runs until the block is left. Call `drain` before leaving, or its runs are cut off."""
        worker = cls(worker_id, side, events, settings)
        worker._leases.start()
        claiming = asyncio.create_task(worker._claim_until_closed(), name="claim")
        try:
            yield worker
        finally:
            worker._slots.close()
            claiming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await claiming
            await worker._cut_off()
            await asyncio.to_thread(worker._leases.close)

    @property
    def worker_id(self) -> str:
        return self._worker_id

    @property
    def active(self) -> int:
        """Slots in use."""
        return self._slots.taken

    @property
    def size(self) -> int:
        """Slots in all."""
        return self._slots.size

    # -- hints, from any thread ------------------------------------------------------------------------------------

    def reserve(self) -> bool:
        return self._slots.take() == 1

    def release(self) -> None:
        self._slots.give_back()

    def start(self, run: ClaimedRun) -> None:
        self._loop.call_soon_threadsafe(self._spawn, run)

    def work_available(self) -> None:
        self._loop.call_soon_threadsafe(self._wake.set)

    def stop_run(self, key: RunKey, action: CancelAction, reason: str | None) -> None:
        self._loop.call_soon_threadsafe(self._stop, key, action, reason)

    def run_deleted(self, key: RunKey) -> None:
        """The run's row is gone: nothing it still does counts."""
        self._loop.call_soon_threadsafe(self._lose, key, None)

    # -- claiming --------------------------------------------------------------------------------------------------

    async def _claim_until_closed(self) -> None:
        while True:
            self._wake.clear()
            more = False
            try:
                await self._claim_last_chance()
                more = await self._claim_some()
            except DatabaseUnavailable as e:
                log.warning("cannot claim runs, trying again", error=str(e))
            except Exception:
                # The loop's boundary: a worker that has stopped claiming looks as if it were idle.
                log.exception("cannot claim runs, trying again")
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.poll_s * random.uniform(0.8, 1.0)):
                        await self._wake.wait()

    async def _claim_some(self) -> bool:
        """Fill the free slots; True when there may be more to claim."""
        settings = self._settings
        free = self._slots.take(settings.n_jobs_per_worker)
        claimed = await self._claimed(
            free,
            lambda conn: runs.claim_next(
                conn, self._worker_id, limit=free, lease_s=settings.lease_s, max_crashes=settings.max_crashes
            ),
        )
        return bool(claimed) and claimed == free

    async def _claim_last_chance(self) -> None:
        """Try a run that may be poison, unless another one is being tried here. Asked once per poll: it can wait."""
        settings = self._settings
        now = self._loop.time()
        if now < self._last_chances_at or any(self._is_last_chance(e.claimed) for e in self._executions.values()):
            return
        self._last_chances_at = now + settings.poll_s * 0.8
        await self._claimed(
            self._slots.take(),
            lambda conn: runs.claim_last_chance(
                conn, self._worker_id, lease_s=settings.lease_s, max_crashes=settings.max_crashes
            ),
        )

    def _is_last_chance(self, run: ClaimedRun) -> bool:
        return run.crashes > 0 and run.crashes + 1 >= self._settings.max_crashes

    async def _claimed(self, free: int, claim: Callable[[Conn], Awaitable[list[ClaimedRun]]]) -> int:
        """Execute what can be claimed for so many slots, which are taken already; returns how many runs that is."""
        if not free:
            return 0
        claimed: list[ClaimedRun] = []
        try:
            async with self._side.db.connection() as conn:
                claimed = await claim(conn)
        finally:
            self._slots.give_back(free - len(claimed))
        for run in claimed:
            self._spawn(run)
        return len(claimed)

    def _spawn(self, run: ClaimedRun) -> None:
        """Execute a claimed run on a slot that is taken for it already."""
        if run.waited_s is not None:
            metrics.RUN_WAIT_SECONDS.observe(run.waited_s)
        self._leases.hold(run.key, run.attempt)
        execution = Execution(run, self._side, self._events, self._limits, abandon=self._keep_abandoned)
        self._executions[run.key] = execution
        self._idle.clear()
        task = self._loop.create_task(self._course(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _course(self, execution: Execution) -> None:
        run = execution.claimed
        with bound_contextvars(run_id=run.key.run_id, thread_id=run.key.thread_id, attempt=run.attempt):
            try:
                began_at = self._loop.time()
                try:
                    outcome = await execution.run()
                finally:
                    execution.is_over = True
                    counting.run_executed(self._loop.time() - began_at, execution.supersteps)
                await self._conclude(execution, outcome)
            except asyncio.CancelledError:
                raise
            except Exception:
                # A slot's boundary: the run's lease runs out and the sweeper puts it back; the other slots go on.
                log.exception("the run's course broke off; its lease will run out")
            finally:
                self._forget(execution)

    async def _conclude(self, execution: Execution, outcome: Outcome) -> None:
        try:
            await self._concluder.conclude(execution, outcome)
        except Exception as error:
            if is_passing(error):
                raise
            # Trying the run again would end here again, after user code was executed a second time.
            log.exception("the run's outcome cannot be written down; it ends in an error")
            await self._concluder.conclude(execution, UNWRITABLE)

    def _forget(self, execution: Execution) -> None:
        run = execution.claimed
        self._leases.let_go(run.key, run.attempt)
        if self._executions.get(run.key) is execution:
            del self._executions[run.key]
        # Nothing else can have become claimable here: the run's successor on its thread has been told of.
        if self._slots.give_back():
            self._wake.set()
        if not self._executions:
            self._idle.set()

    def _keep_abandoned(self, task: asyncio.Task[Outcome]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    # -- stopping --------------------------------------------------------------------------------------------------

    def _on_lost_lease(self, key: RunKey, attempt: int) -> None:
        self._loop.call_soon_threadsafe(self._lose, key, attempt)

    def _on_wish(self, wish: CancelWish) -> None:
        self.stop_run(wish.key, wish.action, wish.reason)

    def _lose(self, key: RunKey, attempt: int | None) -> None:
        execution = self._executions.get(key)
        if execution is None or execution.is_over:
            return  # its outcome has just been committed, or the statement that writes it will find out
        if attempt in (None, execution.claimed.attempt):
            log.warning("lease lost; the attempt stops", run_id=key.run_id, attempt=attempt)
            metrics.LEASES_LOST.inc()
            execution.stop(FencedOff())

    def _stop(self, key: RunKey, action: CancelAction, reason: str | None) -> None:
        execution = self._executions.get(key)
        if execution is not None:
            execution.stop(Cancelled(action, reason))

    async def drain(self, grace_s: float) -> None:
        """Refuse new runs; let those that run finish, or hand over at their next superstep, for at most `grace_s`
        seconds.

        What is left then is cancelled and put back in the queue. No crash is counted.
        """
        self._slots.close()
        for execution in list(self._executions.values()):
            execution.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        for execution in list(self._executions.values()):
            execution.stop(Draining())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.abandon_s + 5):
                await self._idle.wait()

    async def _cut_off(self) -> None:
        for task in [*self._tasks, *self._abandoned]:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
