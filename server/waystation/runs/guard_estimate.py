"""What a run will come to, before it is run: from its input and from what runs of its graph came to.

input, messages of the thread ─▶ tokens ─┐
ledger: the newest runs of the graph ────┴▶ forecast ─▶ beside it, the limits that it may not fit
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from waystation.auth import Principal
from waystation.errors import NotFound
from waystation.guarding.kill import key_of
from waystation.runs.admission import resolve_assistant
from waystation.runs.permission import visible_assistant, visible_thread
from waystation.services import GraphSide, Services
from waystation_db import assistants, guard_history, threads

if TYPE_CHECKING:  # loaded when it is asked for
    from waystation_guards.budget.forecasting import PastRun

RUNS: Final = 200
WITHIN_S: Final = 30 * 86_400.0
"""How many runs of a graph, and how old ones, are looked at."""


async def estimate(
    services: Services, caller: Principal, *, assistant: str, input: Any, thread_id: str | None
) -> dict[str, Any]:
    """A forecast as JSON, with `limits`: how the limits that hold for the caller stand, and whether the run may fit.

    Raises:
        InvalidRequest: `assistant` is neither a UUID nor a graph.
        NotFound: no such assistant or thread. Forbidden: the caller may not.
    """
    assistant_id = resolve_assistant(services, assistant)
    graph_id = await _graph_of(services, caller, assistant_id)
    before = None if thread_id is None else await _messages_of(services, caller, thread_id)
    async with services.db.connection() as conn:
        past = await guard_history.runs_of_graph(conn, caller.tenant_id, graph_id, within_s=WITHIN_S, limit=RUNS)

    async def there(side: GraphSide) -> dict[str, Any]:
        from waystation_guards.budget.forecasting import forecast, shortfalls, tokens_of
        from waystation_guards.budget.pricing import Prices

        policy = None if side.guards is None else side.guards.policy
        runs = _past_runs(past)
        tokens = tokens_of(input) + (tokens_of(before) if before else 0)
        found = forecast(tokens, history=runs, prices=Prices() if policy is None else policy.prices)
        standings: list[Any] = []
        if policy is not None and side.guards is not None:
            from waystation.guarding.whose import Whose

            whose = Whose(graph_id, assistant_id, caller.tenant_id, caller.identity, key_of(caller.user))
            budget = policy.of(whose).budget
            if budget is not None:
                ports = side.guards.ports_for(caller.tenant_id, whose.key)
                standings = await budget.standing(ports, policy.site_of(whose, thread=thread_id or ""))
        short = {id(one.limit) for one in shortfalls(found, standings)}
        shown = [_limit(one, fits=id(one.limit) not in short) for one in standings]
        return {"graph_id": graph_id, **found.as_json(), "fits": not short, "limits": shown}

    return await services.graphs.call(there)


async def _graph_of(services: Services, caller: Principal, assistant_id: str) -> str:
    visible = await visible_assistant(caller, "read", assistant_id)
    async with services.db.connection() as conn:
        found = await assistants.graph_of(conn, caller.tenant_id, assistant_id, visible=visible)
    if found is None:
        raise NotFound("Assistant not found")
    return found.graph_id


async def _messages_of(services: Services, caller: Principal, thread_id: str) -> list[Any]:
    visible = await visible_thread(caller, "read", thread_id)
    async with services.db.connection() as conn:
        found = await threads.get(conn, caller.tenant_id, thread_id, visible=visible)
    if found is None:
        raise NotFound("Thread not found")
    values: Any = orjson.loads(found).get("values")
    messages: Any = cast("dict[str, Any]", values).get("messages") if isinstance(values, dict) else None
    return cast("list[Any]", messages) if isinstance(messages, list) else []


def _past_runs(past: Sequence[guard_history.PastRun]) -> list[PastRun]:
    """As forecasts take them. A run's first prompt is its input, the thread's messages, and what the graph adds to all:
    the least that any run had beyond its own input."""
    from waystation_guards.budget.forecasting import PastCall, PastRun, tokens_of

    added = [run.calls[0][2] - tokens_of(run.input) for run in past if run.input is not None]
    least = max(0, min(added)) if added else None
    return [
        PastRun(
            [PastCall(*call) for call in run.calls],
            run.tool_calls,
            None if least is None else max(0, run.calls[0][2] - least),
        )
        for run in past
    ]


def _limit(standing: Any, *, fits: bool) -> dict[str, Any]:
    limit = standing.limit
    return {
        "scope": limit.scope,
        "name": limit.name,
        "unit": limit.unit,
        "window": limit.window,
        "limit": limit.size,
        "left": standing.left,
        "on_limit": limit.on_limit,
        "fits": fits,
    }
