"""The three long answers of a run: its stream, its output, and its output for somebody who joins."""

from __future__ import annotations

from waystation.api.sse import EventStream, WaitingJSON, located
from waystation.events import BEGINNING
from waystation.runs.admission import Admitted
from waystation.runs.cancel import cancel_because_client_left
from waystation.runs.output import joined_output, output_of
from waystation.services import Services
from waystation_db.rows import RunKey


def stream_answer(services: Services, run: Admitted, *, leave_cancels: bool, content: str | None = None) -> EventStream:
    """All events of a run that was just created. `content` is its `Content-Location`, where it is not the thread's."""
    base = f"/threads/{run.key.thread_id}/runs/{run.key.run_id}"
    return EventStream(
        services.log.read(run.key, after=BEGINNING, resumable=run.resumable),
        with_ids=run.resumable,
        headers=located(f"{base}/stream", content=content or base),
        on_leave=(lambda: cancel_because_client_left(services, run.key)) if leave_cancels else None,
    )


def wait_answer(services: Services, run: Admitted, *, leave_cancels: bool) -> WaitingJSON:
    """The output of a run that was just created."""
    base = f"/threads/{run.key.thread_id}/runs/{run.key.run_id}"
    return WaitingJSON(
        output_of(services, run.key, resumable=run.resumable),
        headers=located(f"{base}/join", content=base),
        on_leave=(lambda: cancel_because_client_left(services, run.key)) if leave_cancels else None,
    )


def join_answer(services: Services, key: RunKey, *, leave_cancels: bool) -> WaitingJSON:
    """The output of a run that exists already, or does not."""
    base = f"/threads/{key.thread_id}/runs/{key.run_id}"
    return WaitingJSON(
        joined_output(services, key),
        headers=located(f"{base}/join", content=base),
        on_leave=(lambda: cancel_because_client_left(services, key)) if leave_cancels else None,
    )
