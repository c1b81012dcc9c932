"""An attempt as its trace and its log lines see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from waystation.telemetry import trace_context
from waystation.telemetry.tracing import About, Tracing
from waystation.worker.outcomes import Failed, HandedOver, Lost, Outcome, Stopped, Succeeded
from waystation.worker.reasons import TimedOut
from waystation_db.rows import ClaimedRun

if TYPE_CHECKING:
    from waystation.worker.execute import Execution


def origin_ids(run: ClaimedRun) -> dict[str, str]:
    """By what the lines of an attempt are found beside its own ids: its request, and its trace if it has one."""
    config = cast("dict[str, Any]", run.kwargs.get("config") or {})
    configurable = cast("dict[str, Any]", config.get("configurable") or {})
    trace_id = trace_context.trace_id_of(run.kwargs.get(trace_context.KEY))
    found = {"request_id": configurable.get("langgraph_request_id"), "trace_id": trace_id}
    return {name: value for name, value in found.items() if isinstance(value, str)}


async def traced(tracing: Tracing, execution: Execution, attempt: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Execute with a span over it, to which belongs whatever users' code traces itself."""
    run = execution.claimed
    parent = run.kwargs.get(trace_context.KEY)
    about = About(
        run_id=run.key.run_id,
        attempt=run.attempt,
        thread_id=run.key.thread_id,
        assistant_id=run.assistant_id,
        graph_id=run.graph_id,
        tenant_id=run.key.tenant_id,
        parent=parent if isinstance(parent, str) else None,
        waited_s=run.waited_s,
    )
    span = execution.span = tracing.attempt(about)
    trace_context.enter(span.traceparent)
    try:
        with span.current():
            outcome = await attempt()
    except asyncio.CancelledError:
        span.end("lost", error="CancelledError")
        raise
    ending, error = _ending(outcome)
    span.end(ending, error=error)
    return outcome


def _ending(outcome: Outcome) -> tuple[str, str | None]:
    match outcome:
        case Succeeded(paused=paused):
            return ("paused" if paused else "success"), None
        case Failed(error=error):
            return "error", error
        case Stopped(reason=TimedOut()):
            return "timeout", "RunTimeout"
        case Stopped():
            return "interrupted", None
        case HandedOver():
            return "handed over", None
        case Lost():
            return "lost", "Lost"
