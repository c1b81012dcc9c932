"""The three long answers of a run: its stream, its output, and its output for somebody who joins."""

from __future__ import annotations

from waystation.api.sse import EventStream, WaitingJSON, failed, located
from waystation.events import BEGINNING, EventId
from waystation.events.classic import classic
from waystation.runs import listing
from waystation.runs.admission import Admitted
from waystation.runs.cancel import cancel_because_client_left
from waystation.runs.output import joined_output, output_of
from waystation.services import Services
from waystation_db.rows import RunKey


def stream_answer(services: Services, run: Admitted, *, leave_cancels: bool, content: str | None = None) -> EventStream:
    """All events of a run that was just created. `content` is its `Content-Location`, where it is not the thread's."""
    base = content or f"/threads/{run.key.thread_id}/runs/{run.key.run_id}"
    return EventStream(
        services.log.read(run.key, after=BEGINNING, resumable=run.resumable),
        with_ids=run.resumable,
        headers=located(f"{base}/stream", content=base),
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


async def join_stream_answer(
    services: Services,
    key: RunKey,
    *,
    base: str,
    modes: frozenset[str] | None,
    last_event_id: str | None,
    leave_cancels: bool,
) -> EventStream:
    """The events of a run that exists already, from now on or after an id. `base` is the run's path for this client."""
    headers = located(f"{base}/stream", content=base)
    state = await listing.run_state(services, key)
    if state is None:
        return failed("HTTPException", "404: Run not found", headers=headers)
    after = parse_event_id(last_event_id) if state.resumable else None
    if after is None and state.status == "pending":
        after = BEGINNING
    return EventStream(
        classic(services.log.read(key, after=after, resumable=state.resumable), key.run_id),
        with_ids=state.resumable,
        modes=modes,
        headers=headers,
        on_leave=(lambda: cancel_because_client_left(services, key)) if leave_cancels else None,
    )


_LAST = EventId(2**62, 2**30)
"""Later than any event. Postgres can count on from it: one reader's overflow would fail the reads of others, too."""


def parse_event_id(value: str | None) -> EventId | None:
    """`-1` and `0` mean from the beginning; what is not an id means from now on."""
    if value is None:
        return None
    if value in ("-1", "0"):
        return BEGINNING
    epoch, _, counter = value.partition("-")
    if epoch.isdecimal() and counter.isdecimal() and len(value) < 40:
        return EventId(min(int(epoch), _LAST.epoch_ms), min(int(counter), _LAST.counter))
    return None
