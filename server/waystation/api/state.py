"""The state of threads: read it, change it, look back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from starlette.responses import Response

from waystation.api.bodies_threads import CheckpointRead, HistoryQuery, StateUpdateBody, configurable_of
from waystation.api.dependencies import CallerDep, JSONBytes, ServicesDep, ThreadId
from waystation.api.objects_threads import ThreadStateObject, UpdatedState
from waystation.api.routing import Router, errors
from waystation.runs import state
from waystation.runs.state_update import update_state

router = Router(tags=["Thread state"])

Subgraphs = Annotated[bool, Query(description="With the states of subgraphs that are in progress.")]

_STATE: dict[int | str, dict[str, Any]] = {200: {"model": ThreadStateObject}, **errors(400, 404, 409, 503)}
_STATES: dict[int | str, dict[str, Any]] = {200: {"model": list[ThreadStateObject]}, **errors(400, 404, 409, 503)}


@router.get("/threads/{thread_id}/state", summary="Get a thread's state", responses=_STATE)
async def get_state(
    thread_id: ThreadId, services: ServicesDep, caller: CallerDep, subgraphs: Subgraphs = False
) -> Response:
    """The latest state; empty for a thread without checkpoints."""
    return JSONBytes(await state.get_state(services, caller, thread_id=thread_id, subgraphs=subgraphs))


@router.post(
    "/threads/{thread_id}/state",
    summary="Update a thread's state",
    responses={200: {"model": UpdatedState}, **errors(400, 404, 409, 503)},
)
async def post_state(thread_id: ThreadId, body: StateUpdateBody, services: ServicesDep, caller: CallerDep) -> Response:
    """Writes a checkpoint with the values applied, as if a node had returned them. Not while a run is active."""
    updated = await update_state(
        services, caller, thread_id=thread_id, values=body.values, as_node=body.as_node, checkpoint=body.base()
    )
    return JSONBytes(updated)


@router.post("/threads/{thread_id}/state/checkpoint", summary="Get the state at a checkpoint", responses=_STATE)
async def post_state_checkpoint(
    thread_id: ThreadId, body: CheckpointRead, services: ServicesDep, caller: CallerDep
) -> Response:
    """Also the way to read a subgraph's state, by its `checkpoint_ns`."""
    checkpoint = configurable_of(body.checkpoint)
    return JSONBytes(
        await state.get_state(services, caller, thread_id=thread_id, checkpoint=checkpoint, subgraphs=body.subgraphs)
    )


@router.get("/threads/{thread_id}/state/{checkpoint_id}", summary="Get the state at a checkpoint", responses=_STATE)
async def get_state_at(
    thread_id: ThreadId,
    checkpoint_id: Annotated[str, Path(description="An unknown one gives an empty state.")],
    services: ServicesDep,
    caller: CallerDep,
    subgraphs: Subgraphs = False,
) -> Response:
    """The state as it was at that checkpoint."""
    checkpoint = {"checkpoint_id": checkpoint_id}
    return JSONBytes(
        await state.get_state(services, caller, thread_id=thread_id, checkpoint=checkpoint, subgraphs=subgraphs)
    )


@router.get("/threads/{thread_id}/history", summary="List past states", responses=_STATES)
async def get_history(
    thread_id: ThreadId,
    services: ServicesDep,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=0, le=1_000_000, description="1,000 are given at most.")] = 1,
    before: Annotated[str | None, Query(description="A checkpoint's id; only older ones.")] = None,
) -> Response:
    """Newest first."""
    return JSONBytes(await state.get_history(services, caller, thread_id=thread_id, limit=limit, before=before))


@router.post("/threads/{thread_id}/history", summary="Search past states", responses=_STATES)
async def post_history(thread_id: ThreadId, body: HistoryQuery, services: ServicesDep, caller: CallerDep) -> Response:
    """Newest first; by metadata, before a checkpoint, of a subgraph."""
    return JSONBytes(
        await state.get_history(
            services,
            caller,
            thread_id=thread_id,
            limit=body.limit,
            before=body.before_id(),
            metadata=body.metadata,
            checkpoint=configurable_of(body.checkpoint),
        )
    )
