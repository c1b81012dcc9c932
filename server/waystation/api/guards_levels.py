"""Levels, breakers and forecasts over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, RequestBody, ServicesDep, json_response
from waystation.api.guards_kill import NoNul
from waystation.api.routing import Router, errors
from waystation.runs import guard_estimate, guard_levels
from waystation.runs.guard_levels import Level, LevelOwner
from waystation.runs.requests import UuidText

router = Router(tags=["Guards"])

Owner = Annotated[str, Query(max_length=256, pattern=NoNul, description="Where levels are those of such.")]


class LevelObject(BaseModel):
    """The level that holds. `source`: `operator`, `rules`, or empty for nobody; `until`: when an operator's ends."""

    name: str
    level: Level
    source: str
    reason: str
    by: str
    until: str


class LevelWish(RequestBody):
    """What an operator lets hold, whatever the rules say."""

    level: Level
    for_s: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds; null: until it is taken back."
    )
    reason: Annotated[str, Field(max_length=500, pattern=NoNul)] = ""


class BreakerObject(BaseModel):
    """A target's breaker. `at_most_s`: after so many seconds at the latest it is tried again."""

    target: str
    is_open: bool
    cause: str
    at_most_s: float | None


class EstimateWish(RequestBody):
    """A run that is to be priced."""

    assistant_id: Annotated[str, Field(min_length=1, max_length=256, pattern=NoNul)]
    input: Any = None
    thread_id: UuidText | None = Field(default=None, description="Its messages are part of the prompt.")


class Amounts(BaseModel):
    """`usd` is null where a model has no price. `seconds` are those of model calls."""

    usd: float | None
    tokens: int
    model_calls: int
    tool_calls: int
    seconds: float


class LimitBeside(BaseModel):
    """A limit that holds for the caller. `fits`: nine of ten such runs have room in what is left."""

    scope: str
    name: str
    unit: str
    window: str
    limit: float
    left: float
    on_limit: str
    fits: bool


class EstimateObject(BaseModel):
    """What a run will come to. `confidence`: none, low, medium or high; `basis` says in words what it is made of."""

    graph_id: str
    expected: Amounts
    p90: Amounts
    worst: Amounts
    confidence: str
    basis: str
    runs: int
    input_tokens: int
    unpriced: list[str]
    fits: bool
    limits: list[LimitBeside]


@router.get("/guards/level", response_model=LevelObject, responses=errors(404, 503), summary="What is offered now")
async def get_level(
    services: ServicesDep,
    caller: CallerDep,
    graph: Owner = "",
    assistant: Owner = "",
    user: Owner = "",
    key: Owner = "",
) -> Response:
    """The degradation level. 404 where the policy has none."""
    return json_response(await guard_levels.level(services, caller, LevelOwner(graph, assistant, user, key)))


@router.put("/guards/level", response_model=LevelObject, responses=errors(403, 404, 503), summary="Set the level")
async def set_level(
    body: LevelWish,
    services: ServicesDep,
    caller: CallerDep,
    graph: Owner = "",
    assistant: Owner = "",
    user: Owner = "",
    key: Owner = "",
) -> Response:
    """Holds in all processes within `check_s`, and over restarts. For admins."""
    owner = LevelOwner(graph, assistant, user, key)
    made = await guard_levels.set_level(
        services, caller, owner, wanted=body.level, for_s=body.for_s, reason=body.reason
    )
    return json_response(made)


@router.delete(
    "/guards/level", response_model=LevelObject, responses=errors(403, 404, 503), summary="Let the rules decide again"
)
async def clear_level(
    services: ServicesDep,
    caller: CallerDep,
    graph: Owner = "",
    assistant: Owner = "",
    user: Owner = "",
    key: Owner = "",
) -> Response:
    """Takes an operator's word back; answers with the level that holds then."""
    return json_response(await guard_levels.clear_level(services, caller, LevelOwner(graph, assistant, user, key)))


@router.get(
    "/guards/breakers", response_model=list[BreakerObject], responses=errors(403), summary="Which targets are up"
)
async def list_breakers(services: ServicesDep, caller: CallerDep) -> Response:
    """The targets of the policy's failovers, and every other one whose breaker is open."""
    return json_response(await guard_levels.breakers(services, caller))


@router.post(
    "/guards/estimate",
    response_model=EstimateObject,
    responses=errors(403, 404),
    summary="Price a run before running it",
)
async def estimate_run(body: EstimateWish, services: ServicesDep, caller: CallerDep) -> Response:
    """From its input and from what the newest runs of its graph came to. Nothing is run and nothing is held."""
    found = await guard_estimate.estimate(
        services, caller, assistant=body.assistant_id, input=body.input, thread_id=body.thread_id
    )
    return json_response(found)
