"""The kill switch over HTTP: for admins, within their own tenant."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, JSONBytes, KillId, RequestBody, ServicesDep, paging_headers
from waystation.api.routing import Router, errors
from waystation.runs import guard_kill
from waystation.runs.requests import UuidText

router = Router(tags=["Guards"])

NoNul = r"^[^\x00]*$"


class KillWish(RequestBody):
    """What is to be stopped."""

    scope: Literal["tenant", "graph", "assistant", "user", "key"]
    id: Annotated[str, Field(min_length=1, max_length=256, pattern=NoNul)] = Field(
        description="The graph's name, the assistant's UUID, the user's identity, the key's id or the tenant's own id."
    )
    reason: Annotated[str, Field(max_length=500, pattern=NoNul)] = Field(
        default="", description="Shown to whoever is stopped."
    )
    for_s: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds until it is over by itself; null: until it is lifted."
    )


class KillObject(BaseModel):
    """A use of the kill switch. `tenant_id` is `*` where an operator stopped all tenants."""

    kill_id: UuidText
    tenant_id: str
    scope: Literal["tenant", "graph", "assistant", "user", "key"]
    id: str
    reason: str
    made_by: str
    created_at: str
    until: str | None
    lifted_at: str | None
    lifted_by: str | None
    in_force: bool


class StoppedRuns(BaseModel):
    """Runs that waited and ended at once, and runs that were told to stop."""

    pending: int
    running: int


class UsedKill(KillObject):
    stopped: StoppedRuns


@router.post(
    "/guards/kill", response_model=UsedKill, responses=errors(403, 404), summary="Stop runs, and let none begin"
)
async def use_kill_switch(body: KillWish, services: ServicesDep, caller: CallerDep) -> Response:
    """Stops all pending and running runs of the scope at once, and refuses new ones with the code `killed` until it is
    lifted. Crons of the scope do not fire; webhooks are sent. In force in all processes within about a second."""
    made = await guard_kill.use(services, caller, scope=body.scope, owner=body.id, reason=body.reason, for_s=body.for_s)
    return JSONBytes(made)


@router.get("/guards/kill", response_model=list[KillObject], responses=errors(403), summary="List what is stopped")
async def list_kills(
    services: ServicesDep,
    caller: CallerDep,
    in_force: Annotated[bool, Query(description="False: also what was lifted or is over.")] = True,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """The newest first."""
    found = await guard_kill.list_all(services, caller, in_force=in_force, limit=limit + 1, offset=offset)
    headers = paging_headers(offset=offset, returned=len(found[:limit]), more=len(found) > limit)
    return JSONBytes(b"[" + b",".join(found[:limit]) + b"]", headers=headers)


@router.delete("/guards/kill/{kill_id}", response_model=KillObject, responses=errors(403, 404), summary="Lift a kill")
async def lift_kill(kill_id: KillId, services: ServicesDep, caller: CallerDep) -> Response:
    """Lets what it stopped begin again. Runs that were stopped stay so."""
    return JSONBytes(await guard_kill.lift(services, caller, kill_id=kill_id))
