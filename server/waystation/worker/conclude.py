"""From an execution's outcome to what is committed: reads the thread's face where it is needed, then writes.

A cancel wish that arrives while an outcome is being written wins: the row refuses the outcome, and the wish is honoured
instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import orjson
import structlog

from waystation.events import EventLog
from waystation.runs.requests import is_native
from waystation.runs.snapshot import ThreadFace, latest_state, thread_face
from waystation.services import GraphSide
from waystation.telemetry import metrics
from waystation.worker.execute import Execution, failure_event
from waystation.worker.finishing import Finisher, Taken, needs_face, verdict
from waystation.worker.outcomes import Failed, HandedOver, Lost, Outcome, Stopped, Succeeded
from waystation.worker.reasons import Cancelled
from waystation.worker.run_config import graph_config
from waystation_db import runs
from waystation_db.errors import CorruptCheckpoint, DatabaseError, DatabaseUnavailable, Fenced, Undecipherable
from waystation_db.json import dumps
from waystation_db.rows import ClaimedRun

log = structlog.get_logger(__name__)


class Concluder:
    """Writes outcomes of executions down. Lives on the graph loop."""

    def __init__(self, side: GraphSide, events: EventLog, *, on_successor: Callable[[], None]) -> None:
        """`on_successor` is called when the thread of a run that has ended has another one that waits."""
        self._side = side
        self._finisher = Finisher(side.db, events, on_successor=on_successor)

    async def conclude(self, execution: Execution, outcome: Outcome) -> None:
        """Commit what became of the execution. Returns when it is written, or when the attempt turns out to be over."""
        try:
            match outcome:
                case Lost():
                    return
                case HandedOver():
                    with contextlib.suppress(DatabaseUnavailable):  # nobody has seen what was not kept
                        await execution.publisher.flush()
                    if not await self._finisher.release(execution.claimed):
                        _refused()
                case Stopped(reason=Cancelled(action="rollback") as reason):
                    await self._roll_back(execution, reason)
                case Succeeded() | Failed() | Stopped():
                    await self._finish(execution, outcome)
        except Fenced:
            _refused()

    async def _finish(self, execution: Execution, outcome: Succeeded | Failed | Stopped) -> None:
        run = execution.claimed
        face = await self._face(run) if needs_face(outcome) else None
        result = verdict(outcome, face)
        if result.status in ("error", "timeout") and result.error is not None and not is_native(run.kwargs):
            execution.publisher.emit([failure_event(result.error)])
        await execution.publisher.flush()
        taken = await _taken(execution, outcome, face)
        if not await self._finisher.write(run, result, taken, output=_output(outcome, face)):
            await self._honour_wish(execution)

    async def _honour_wish(self, execution: Execution) -> None:
        run = execution.claimed
        async with self._side.db.connection() as conn:
            wish = await runs.cancel_wish(conn, run.key)
        if wish is not None and wish.attempt == run.attempt:
            await self.conclude(execution, Stopped(Cancelled(wish.action, wish.reason)))
        else:
            _refused()

    async def _roll_back(self, execution: Execution, reason: Cancelled) -> None:
        """Delete what the run wrote, then the run. In this order: a crash in between leaves the wish, and it is done
        again."""
        run = execution.claimed
        saver = self._side.saver.for_tenant(run.key.tenant_id)
        await saver.adelete_for_runs([run.key.run_id], thread_id=run.key.thread_id)
        face = await self._face(run) or ThreadFace(None, b"{}", "idle", ())
        if not await self._finisher.write_rollback(run, reason, face, Taken(await execution.numbers() + 1)):
            _refused()

    async def _face(self, run: ClaimedRun) -> ThreadFace | None:
        """What the thread shows now; None when its state cannot be read, and its row then stays as it is."""
        config = graph_config(run, saver=self._side.saver.for_tenant(run.key.tenant_id), at_head=True)
        try:
            async with self._side.catalog.open(
                run.graph_id, access="threads.read", config=config, tenant_id=run.key.tenant_id
            ) as graph:
                self._side.saver.allow_types_of(graph)
                return thread_face(await latest_state(graph, config))
        except (CorruptCheckpoint, Undecipherable) as error:
            log.warning("the thread's state could not be read after the run", error=str(error))
            return None
        except DatabaseError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt):
            # User code (a factory, a state's types) runs here; its failure must not keep the run from becoming final.
            log.warning("the thread's state could not be read after the run", exc_info=True)
            return None


def _refused() -> None:
    metrics.FENCED_WRITES.inc()
    log.info("the attempt is over; its outcome is dropped")


async def _taken(execution: Execution, outcome: Outcome, face: ThreadFace | None) -> Taken:
    """What the thread's events have of the run, its last one included."""
    numbers = await execution.numbers() + 1
    if not (isinstance(outcome, Succeeded) and outcome.paused):
        return Taken(numbers)
    asked = [{"id": interrupt.id, "value": interrupt.value} for interrupt in execution.asked]
    if not asked and face is not None:
        # An attempt that found the run at its question already has asked nothing itself.
        asked = [question for questions in orjson.loads(face.interrupts).values() for question in questions]
    is_told = is_native(execution.claimed.kwargs)
    return Taken(numbers if is_told else numbers + len(asked), dumps(asked) if asked else None)


def _output(outcome: Succeeded | Failed | Stopped, face: ThreadFace | None) -> bytes | None:
    """What a waiting client gets: the run's own output, or for a stopped run the state so far."""
    match outcome:
        case Succeeded():
            return outcome.values
        case Stopped():
            return face.values if face is not None else None
        case Failed():
            return None
