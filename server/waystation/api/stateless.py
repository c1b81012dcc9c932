"""Runs without a thread of the client's: create, wait, stream, batch. Joining one goes through the thread made for
it."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import Body, Request
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, JSONBytes, RunId, ServicesDep
from waystation.api.long_answer import ensure_room
from waystation.api.objects_runs import RunObject
from waystation.api.request_limits import count_runs
from waystation.api.routing import STREAMED, Router, errors
from waystation.api.run_answers import join_stream_answer, stream_answer, wait_answer
from waystation.api.runs import OUTPUT, RUN, IdempotencyKey, LastEventId, StreamModes, origin_of
from waystation.api.sse import parse_modes
from waystation.runs import listing
from waystation.runs.admission import create_batch, create_stateless, stateless_thread_id
from waystation.runs.requests import StatelessRunCreate

router = Router(tags=["Stateless runs"])

MAX_BATCH = 1000


@router.post("/runs", summary="Create a stateless run", responses=RUN | errors(400, 404, 409, 503))
async def create_run(
    body: StatelessRunCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Creates a thread and a run on it in the background. With `on_completion: delete` both go when it ends."""
    run = await create_stateless(services, caller, request=body, origin=origin_of(request, idempotency_key))
    return JSONBytes(run.face(), headers={"Content-Location": f"/runs/{run.key.run_id}"})


@router.post(
    "/runs/stream", summary="Create a stateless run and stream it", responses=STREAMED | errors(400, 404, 409, 503)
)
async def stream_run(
    body: StatelessRunCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Server-sent events from the first one; closes when the run is final."""
    ensure_room(request)
    run = await create_stateless(services, caller, request=body, origin=origin_of(request, idempotency_key))
    return stream_answer(services, run, leave_cancels=body.cancel_on_leave, content=f"/runs/{run.key.run_id}")


@router.get("/runs/{run_id}/stream", summary="Join a stateless run's stream", responses=STREAMED | errors(503))
async def join_stream(
    run_id: RunId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    stream_mode: StreamModes = None,
    cancel_on_disconnect: bool = False,
    last_event_id: LastEventId = None,
) -> Response:
    """Where `Location` of `/runs/stream` leads: the run by its id alone."""
    ensure_room(request)
    key = await listing.readable_run(
        services,
        caller,
        thread_id=stateless_thread_id(run_id),
        run_id=run_id,
        to_cancel=cancel_on_disconnect,
    )
    return await join_stream_answer(
        services,
        key,
        base=f"/runs/{run_id}",
        modes=parse_modes(stream_mode),
        last_event_id=last_event_id,
        leave_cancels=cancel_on_disconnect,
    )


@router.post(
    "/runs/wait",
    summary="Create a stateless run and wait for its output",
    responses=OUTPUT | errors(400, 404, 409, 503),
)
async def wait_for_run(
    body: StatelessRunCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The output values when the run is final; a failed run answers 200 with `__error__`."""
    ensure_room(request)
    run = await create_stateless(services, caller, request=body, origin=origin_of(request, idempotency_key))
    return wait_answer(services, run, leave_cancels=body.cancel_on_leave)


@router.post(
    "/runs/batch",
    summary="Create several stateless runs",
    responses={200: {"model": list[RunObject]}} | errors(400, 404, 503),
)
async def create_runs(
    body: Annotated[list[StatelessRunCreate], Body(min_length=1, max_length=MAX_BATCH)],
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
) -> Response:
    """All of them or none; answered in the same order."""
    await count_runs(request, len(body))
    made = await create_batch(services, caller, requests=body, origin=origin_of(request, None))
    return JSONBytes(orjson.dumps([orjson.Fragment(run.face()) for run in made]))
