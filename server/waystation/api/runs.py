"""Runs on threads: create, wait, stream, join, list, get, cancel, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Query, Request
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, JSONBytes, RunId, ServicesDep, ThreadId, no_content
from waystation.api.headers import HeaderRules
from waystation.api.long_answer import ensure_room
from waystation.api.objects_runs import RunObject, RunOutput, SelectedRun, Stopped
from waystation.api.routing import STREAMED, Router, errors
from waystation.api.run_answers import join_answer, join_stream_answer, stream_answer, wait_answer
from waystation.api.sse import WaitingJSON, located, parse_modes
from waystation.errors import InvalidRequest
from waystation.runs import cancel, listing
from waystation.runs.admission import create_on_thread
from waystation.runs.requests import CancelMany, ThreadRunCreate
from waystation.runs.run_kwargs import Origin
from waystation.telemetry import trace_context
from waystation_db.rows import CancelAction

router = Router(tags=["Runs"])

RUN: dict[int | str, dict[str, Any]] = {200: {"model": RunObject}}
RUNS: dict[int | str, dict[str, Any]] = {200: {"model": list[SelectedRun]}}
OUTPUT: dict[int | str, dict[str, Any]] = {200: {"model": RunOutput}}

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=255, description="The same key gives the same run for a day."),
]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Continue after this event; -1: all.")]
StreamModes = Annotated[list[str] | None, Query(description="Only these modes; repeated or joined by commas.")]
Action = Annotated[str, Query(description="`interrupt` keeps what was done, `rollback` undoes it.")]


def origin_of(request: Request, idempotency_key: str | None, *, run_id: str | None = None) -> Origin:
    """What a run inherits from the request that makes it."""
    rules: HeaderRules | None = request.app.state.configurable_headers
    given = request.headers.get("x-request-id", "")[: trace_context.LONGEST_ID]
    return Origin(
        request_id=given or request.scope.get("state", {}).get("request_id"),
        idempotency_key=idempotency_key,
        run_id=run_id,
        headers={} if rules is None else rules.choose(request.headers.raw),
    )


@router.post("/threads/{thread_id}/runs", summary="Create a run", responses=RUN | errors(400, 404, 409, 503))
async def create_run(
    thread_id: ThreadId,
    body: ThreadRunCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Creates a run in the background and answers with it, pending."""
    origin = origin_of(request, idempotency_key)
    run = await create_on_thread(services, caller, thread_id=thread_id, request=body, origin=origin)
    location = f"/threads/{run.key.thread_id}/runs/{run.key.run_id}"
    return JSONBytes(run.face(), headers={"Content-Location": location})


@router.post(
    "/threads/{thread_id}/runs/stream",
    summary="Create a run and stream its events",
    responses=STREAMED | errors(400, 404, 409, 503),
)
async def stream_run(
    thread_id: ThreadId,
    body: ThreadRunCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Server-sent events from the first one; closes when the run is final. Leaving does not stop the run."""
    ensure_room(request)
    origin = origin_of(request, idempotency_key)
    run = await create_on_thread(services, caller, thread_id=thread_id, request=body, origin=origin)
    return stream_answer(services, run, leave_cancels=body.cancel_on_leave)


@router.post(
    "/threads/{thread_id}/runs/wait",
    summary="Create a run and wait for its output",
    responses=OUTPUT | errors(400, 404, 409, 503),
)
async def wait_for_run(
    thread_id: ThreadId,
    body: ThreadRunCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The output values when the run is final; a failed run answers 200 with `__error__`."""
    ensure_room(request)
    origin = origin_of(request, idempotency_key)
    run = await create_on_thread(services, caller, thread_id=thread_id, request=body, origin=origin)
    return wait_answer(services, run, leave_cancels=body.cancel_on_leave)


@router.get(
    "/threads/{thread_id}/runs",
    summary="List a thread's runs",
    responses={200: {"model": list[SelectedRun]}} | errors(404),
)
async def list_runs(
    thread_id: ThreadId,
    services: ServicesDep,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=0, le=1_000_000)] = 10,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    status: Annotated[str | None, Query(description="Only runs in this state.")] = None,
    select: Annotated[list[str] | None, Query(description="Only these members.")] = None,
) -> Response:
    """Newest first."""
    return JSONBytes(
        await listing.list_runs(
            services, caller, thread_id=thread_id, limit=limit, offset=offset, status=status, select=select
        )
    )


@router.get("/threads/{thread_id}/runs/{run_id}", summary="Get a run", responses=RUN | errors(404))
async def get_run(thread_id: ThreadId, run_id: RunId, services: ServicesDep, caller: CallerDep) -> Response:
    """The run as it is now."""
    return JSONBytes(await listing.get_run(services, caller, thread_id=thread_id, run_id=run_id))


@router.delete("/threads/{thread_id}/runs/{run_id}", status_code=204, summary="Delete a run", responses=errors(404))
async def delete_run(thread_id: ThreadId, run_id: RunId, services: ServicesDep, caller: CallerDep) -> Response:
    """An active run is stopped first. Its checkpoints stay."""
    await cancel.delete_run(services, caller, thread_id=thread_id, run_id=run_id)
    return no_content()


@router.get(
    "/threads/{thread_id}/runs/{run_id}/join", summary="Wait for a run's output", responses=OUTPUT | errors(503)
)
async def join_run(
    thread_id: ThreadId,
    run_id: RunId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    cancel_on_disconnect: bool = False,
) -> Response:
    """As `wait`, for a run that exists. An unknown run answers 200 with `__error__`."""
    ensure_room(request)
    key = await listing.readable_run(
        services, caller, thread_id=thread_id, run_id=run_id, to_cancel=cancel_on_disconnect
    )
    return join_answer(services, key, leave_cancels=cancel_on_disconnect)


@router.get(
    "/threads/{thread_id}/runs/{run_id}/stream", summary="Join a run's stream", responses=STREAMED | errors(503)
)
async def join_stream(
    thread_id: ThreadId,
    run_id: RunId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    stream_mode: StreamModes = None,
    cancel_on_disconnect: bool = False,
    last_event_id: LastEventId = None,
) -> Response:
    """Events from now on, or after `Last-Event-ID` if the run is resumable. An unknown run is an `error` event."""
    ensure_room(request)
    key = await listing.readable_run(
        services, caller, thread_id=thread_id, run_id=run_id, to_cancel=cancel_on_disconnect
    )
    return await join_stream_answer(
        services,
        key,
        base=f"/threads/{thread_id}/runs/{run_id}",
        modes=parse_modes(stream_mode),
        last_event_id=last_event_id,
        leave_cancels=cancel_on_disconnect,
    )


@router.post(
    "/threads/{thread_id}/runs/{run_id}/cancel",
    status_code=202,
    summary="Cancel a run",
    response_class=Response,
    responses={200: {"model": Stopped, "description": "It has stopped (`wait`)"}} | errors(404),
)
async def cancel_run(
    thread_id: ThreadId,
    run_id: RunId,
    services: ServicesDep,
    caller: CallerDep,
    wait: Annotated[str | None, Query(description="`true` or `1`: answer when the run has stopped.")] = None,
    action: Action = "interrupt",
) -> Response:
    """202 at once; with `wait`, 200 when the run has stopped."""
    key = await cancel.cancel_run(services, caller, thread_id=thread_id, run_id=run_id, action=parse_action(action))
    if (wait or "").lower() not in ("true", "1"):
        return Response(status_code=202)
    base = f"/threads/{thread_id}/runs/{run_id}"

    async def stopped() -> bytes:
        await cancel.until_final(services, key, resumable=False)
        return b"{}"

    return WaitingJSON(stopped(), headers=located(f"{base}/join", content=base))


@router.post("/runs/cancel", status_code=204, summary="Cancel many runs", responses=errors(404))
async def cancel_runs(
    body: CancelMany, services: ServicesDep, caller: CallerDep, action: Action = "interrupt"
) -> Response:
    """Either some runs of one thread, or all runs in a state."""
    by_ids = body.thread_id is not None or body.run_ids is not None
    if by_ids == (body.status is not None) or (by_ids and (body.thread_id is None or body.run_ids is None)):
        raise InvalidRequest("body: give either `status`, or `thread_id` and `run_ids`.")
    wanted = parse_action(action)
    if body.thread_id is not None and body.run_ids is not None:
        await cancel.cancel_many(services, caller, thread_id=body.thread_id, run_ids=body.run_ids, action=wanted)
    else:
        statuses = ["pending", "running"] if body.status == "all" else [str(body.status)]
        await cancel.cancel_by_status(services, caller, statuses=statuses, action=wanted)
    return no_content()


def parse_action(action: str) -> CancelAction:
    """Anything that is not `rollback` acts as `interrupt`, as the protocol has it."""
    return "rollback" if action == "rollback" else "interrupt"
