"""Writes an outcome down: the run's status and its thread's face in one transaction, then the end of the event log.

Commit, then publish: whoever sees the end may read the database and find the outcome there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import structlog

from waystation.events import End, EventLog
from waystation.runs.snapshot import ThreadFace
from waystation.telemetry import counting
from waystation.worker.outcomes import Failed, HandedOver, Lost, Outcome, Stopped, Succeeded
from waystation.worker.reasons import Cancelled, TimedOut
from waystation_db import runs, thread_events
from waystation_db.errors import DatabaseUnavailable
from waystation_db.json import dumps
from waystation_db.pool import Database
from waystation_db.retrying import is_passing
from waystation_db.rows import FINAL_STATUSES, ClaimedRun, FinalStatus, RestingStatus
from waystation_db.runs import Conn, Ended

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome as the row wants it."""

    status: FinalStatus
    resting_status: RestingStatus
    cancelled: bool
    values: bytes | None
    interrupts: bytes | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What the events of the thread have of a run: how many numbers it took, its last event's included, and JSON of
    what it asked."""

    numbers: int
    asked: bytes | None = None


def verdict(outcome: Succeeded | Failed | Stopped, face: ThreadFace | None) -> Verdict:
    """What an outcome means for run and thread. `face` is the thread's state where it had to be read."""
    interrupts = face.interrupts if face is not None else b"{}"
    values = face.values if face is not None else None
    match outcome:
        case Succeeded():
            resting: RestingStatus = face.resting_status if face is not None else "idle"
            # A paused run's output names its interrupts; the thread's values do not.
            return Verdict("success", resting, False, values if outcome.paused else outcome.values, interrupts, None)
        case Failed():
            error = {"error": outcome.error, "message": outcome.message, **outcome.detail}
            rests: RestingStatus = face.resting_status if face is not None and outcome.rejected else "error"
            return Verdict("error", rests, False, values, interrupts, error)
        case Stopped(reason=reason):
            return _stopped(reason, face, values, interrupts)


def _stopped(reason: Cancelled | TimedOut, face: ThreadFace | None, values: bytes | None, interrupts: bytes) -> Verdict:
    match reason:
        case Cancelled():
            resting = face.resting_status if face is not None else "idle"
            return Verdict("interrupted", resting, True, values, interrupts, cancel_error(reason))
        case TimedOut(limit_s=limit_s):
            error = {"error": "RunTimeout", "message": f"The run took longer than {limit_s:g} s and was stopped."}
            return Verdict("timeout", "error", False, values, interrupts, error)


def cancel_error(reason: Cancelled) -> dict[str, str]:
    """What a thread shows after one of its runs was cancelled."""
    kind = "UserRollback" if reason.action == "rollback" else "Killed" if reason.is_kill else "UserInterrupt"
    return {"error": kind, "message": reason.reason or "cancelled"}


class Finisher:
    """Writes outcomes, however often Postgres has to be asked. Lives on the graph loop."""

    def __init__(self, db: Database, events: EventLog, *, on_successor: Callable[[], None]) -> None:
        self._db = db
        self._events = events
        self._on_successor = on_successor

    async def write(self, run: ClaimedRun, result: Verdict, taken: Taken, *, output: bytes | None) -> bool:
        """Commit the outcome, then end the log; False: the attempt is over, or a cancel wish came first.

        `output` is the JSON that a waiting client gets, where it is known.
        """
        written = await self._insist(lambda: self._finish(run, result, taken))
        if not written:
            return False
        counting.run_ended(result.status)
        error = result.error if result.status in ("error", "timeout") else None
        await self._end(run, End(result.status, output, error))
        return True

    async def write_rollback(self, run: ClaimedRun, reason: Cancelled, face: ThreadFace, taken: Taken) -> bool:
        """Delete the run, whose checkpoints are gone already, and end the log."""

        async def delete() -> bool:
            async with self._db.connection() as conn:
                left = await runs.finish_rolled_back(
                    conn,
                    run.key,
                    run.attempt,
                    values=_text(face.values),
                    interrupts=face.interrupts.decode(),
                    error=orjson.dumps(cancel_error(reason)).decode(),
                    events=taken.numbers,
                )
                await self._go_on(conn, run, left)
                return left is not None or await runs.run_state(conn, run.key) is None

        if not await self._insist(delete):
            return False
        counting.run_ended("rollback")
        await self._end(run, End(None))
        return True

    async def release(self, run: ClaimedRun) -> bool:
        """Hand the run back to the queue; no crash is counted."""

        async def release() -> bool:
            async with self._db.connection() as conn:
                return await runs.release(conn, run.key, run.attempt)

        return await self._insist(release)

    async def _finish(self, run: ClaimedRun, result: Verdict, taken: Taken) -> bool:
        async with self._db.connection() as conn:
            left = await runs.finish(
                conn,
                run.key,
                run.attempt,
                status=result.status,
                cancelled=result.cancelled,
                resting_status=result.resting_status,
                values=_text(result.values),
                interrupts=_text(result.interrupts),
                error=None if result.error is None else dumps(result.error).decode(),
                events=taken.numbers,
                asked=_text(taken.asked),
            )
            await self._go_on(conn, run, left)
            if left is not None:
                return True
            # The statement may have been committed by a try whose answer was lost.
            state = await runs.run_state(conn, run.key)
        return state is not None and state.attempt == run.attempt and state.status in FINAL_STATUSES

    async def _go_on(self, conn: Conn, run: ClaimedRun, left: Ended | None) -> None:
        if left is None or left.active_runs:
            self._on_successor()
        if left is not None and left.owed:
            await thread_events.settle_owed(conn, run.key.tenant_id, run.key.thread_id)

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Try until Postgres answers: no outage, deadlock or time-out ends a run. The lease may be lost meanwhile; the
        fence sees to that."""
        delay_s = 0.05
        while True:
            try:
                return await write()
            except Exception as e:
                if not is_passing(e):
                    raise
                log.warning("outcome not written yet, trying again", error=str(e), retry_s=delay_s)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
                delay_s = min(delay_s * 2, 1.0)

    async def _end(self, run: ClaimedRun, end: End) -> None:
        with contextlib.suppress(DatabaseUnavailable):  # readers find the end in the run's row
            await self._events.end(run.key, run.attempt, end, resumable=run.resumable)


def needs_face(outcome: Outcome) -> bool:
    """Whether the thread's state has to be read to know its face: not after an ordinary success."""
    match outcome:
        case Succeeded(paused=paused):
            return paused
        case Failed() | Stopped():
            return True
        case HandedOver() | Lost():
            return False


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
