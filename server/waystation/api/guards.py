"""What guards know, for operators: how budgets stand, granting more, the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, JSONBytes, RequestBody, ServicesDep, json_response, paging_headers
from waystation.api.guards_kill import NoNul
from waystation.api.routing import Router, errors
from waystation.runs import guard_money
from waystation.runs.guard_money import GrantWish, Scope, Unit
from waystation_db.guard_history import Choice

router = Router(tags=["Guards"])

Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
Name = Annotated[str, Query(min_length=1, max_length=256, pattern=NoNul)]


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_aware)]


class BudgetStanding(BaseModel):
    """An account of a limit, in the limit's unit. `limit` is null where no limit of the policy counts on it: a graph's
    own guard does. `held`: what open calls are expected to come to; `at_risk`: at worst."""

    scope: Scope
    name: str
    owner: str
    unit: Unit
    window: str
    limit: float | None
    spent: float
    held: float
    at_risk: float
    left: float | None
    on_limit: str | None
    resets_at: str | None


class Grant(RequestBody):
    """More for an owner, in the present window of a limit of the policy."""

    scope: Scope
    owner: Annotated[str, Field(min_length=1, max_length=256, pattern=NoNul)]
    unit: Unit = "usd"
    name: Annotated[str, Field(max_length=256, pattern=NoNul)] = Field(
        default="", description="The limit's; of one with a `for` and no name, what the standing says."
    )
    amount: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = Field(description="In the limit's unit.")
    reason: Annotated[str, Field(max_length=500, pattern=NoNul)] = ""


class LedgerEntry(BaseModel):
    """What a call came to. Amounts are billionths of a dollar; null: its price is not known, or another entry of the
    same call has it."""

    call: str
    kind: Literal["model", "tool", "cache_hit", "saving", "correction"]
    thread_id: str
    run_id: str
    attempt: int
    node: str
    assistant_id: str
    graph_id: str
    user: str
    key: str
    model: str
    usage: dict[str, Any]
    cost_nano_usd: int | None
    price_version: str
    detail: dict[str, Any]
    created_at: str


class LedgerSum(BaseModel):
    kind: str
    model: str
    calls: int
    cost_nano_usd: int
    input_tokens: int
    output_tokens: int
    unpriced: int


class LedgerTotals(BaseModel):
    """Of everything that was asked for, not of the page."""

    cost_nano_usd: int
    cost_usd: float
    by_model: list[LedgerSum]


class LedgerPage(BaseModel):
    entries: list[LedgerEntry]
    totals: LedgerTotals


@router.get("/guards/budgets", response_model=list[BudgetStanding], responses=errors(403), summary="How budgets stand")
async def list_budgets(
    services: ServicesDep,
    caller: CallerDep,
    scope: Scope | None = None,
    owner: Name | None = None,
    past: Annotated[bool, Query(description="True: also windows that are over.")] = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """Accounts on which anything was spent or held, those that spent most first. The role `user` sees its own."""
    found = await guard_money.budgets(services, caller, scope=scope, owner=owner, past=past, limit=limit, offset=offset)
    headers = paging_headers(offset=offset, returned=len(found[:limit]), more=len(found) > limit)
    return json_response(found[:limit], headers=headers)


@router.post(
    "/guards/grants",
    response_model=BudgetStanding,
    responses=errors(400, 403, 404, 503),
    summary="Grant more of a budget",
)
async def grant_more(body: Grant, services: ServicesDep, caller: CallerDep) -> Response:
    """Takes back so much of what was spent in the present window: an entry in the ledger. For admins."""
    wish = GrantWish(body.scope, body.owner, body.unit, body.name, body.amount, body.reason)
    return json_response(await guard_money.grant(services, caller, wish))


@router.get("/guards/ledger", response_model=LedgerPage, responses=errors(403), summary="Read the ledger")
async def read_ledger(
    services: ServicesDep,
    caller: CallerDep,
    thread_id: Name | None = None,
    run_id: Name | None = None,
    graph_id: Name | None = None,
    user: Name | None = None,
    kind: Literal["model", "tool", "cache_hit", "saving", "correction"] | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """A page of entries, the newest first, and the sums of all that was asked for. The role `user` sees its own."""
    choice = Choice(thread_id, run_id, graph_id, user, kind, since, until)
    body, returned, more = await guard_money.entries(services, caller, choice, limit=limit, offset=offset)
    return JSONBytes(body, headers=paging_headers(offset=offset, returned=returned, more=more))
