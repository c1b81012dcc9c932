"""What a run's row keeps of its request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from waystation.auth import Principal
from waystation.runs.requests import NATIVE, STRICT_RESUME, RunCreate
from waystation.telemetry import trace_context
from waystation_db.rows import RunKey
from waystation_db.threads import Ttl


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run inherits from the HTTP request that creates it."""

    request_id: str | None = None
    idempotency_key: str | None = None
    run_id: str | None = None
    """The id of the run, where the request decides it. Given twice it is refused: as `NotFound` for a stateless run,
    else by Postgres."""
    ttl: Ttl | None = None
    """How long a stateless run's thread lives that is kept, where not the project says it."""
    cron_id: str | None = None
    """The cron that the run is a firing of."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers of the request that the project lets graphs see. They win against what a body says under their names:
    what stands in front of the server sets them."""


def stored_kwargs(
    key: RunKey, assistant_id: str, caller: Principal, request: RunCreate, origin: Origin, *, temporary: bool
) -> dict[str, Any]:
    """What the run's row keeps: the request's members as clients see them in `kwargs`, and what the worker starts
    from."""
    config = request.config.model_dump(exclude_none=True, exclude_defaults=True)
    configurable: dict[str, Any] = {**request.config.configurable, **request.context}
    context = dict(configurable)
    checkpoint = request.checkpoint.model_dump(exclude_none=True) if request.checkpoint else {}
    if request.checkpoint_id is not None:
        checkpoint.setdefault("checkpoint_id", request.checkpoint_id)
    configurable |= origin.headers
    configurable |= {
        "langgraph_auth_user": caller.user,
        "langgraph_auth_user_id": caller.identity,
        "langgraph_auth_permissions": list(caller.permissions),
        "langgraph_request_id": origin.request_id or str(uuid4()),
        "run_id": key.run_id,
        "thread_id": key.thread_id,
        "assistant_id": assistant_id,
        "user_id": caller.identity,
    }
    if origin.cron_id is not None:
        configurable["cron_id"] = origin.cron_id
    return {
        "input": request.input,
        "command": None if request.command is None else request.command.model_dump(exclude_unset=True),
        "checkpoint": checkpoint or None,
        "config": {**config, "configurable": configurable},
        "context": context,
        "stream_mode": request.stream_modes,
        "interrupt_before": request.interrupt_before,
        "interrupt_after": request.interrupt_after,
        "webhook": request.webhook or None,
        "feedback_keys": request.feedback_keys,
        "temporary": temporary,
        "subgraphs": request.stream_subgraphs,
        "resumable": request.stream_resumable,
        "checkpoint_during": request.effective_durability != "exit",
        "durability": request.effective_durability,
        **({NATIVE: True} if request.is_native else {}),
        **({} if (parent := trace_context.current()) is None else {trace_context.KEY: parent}),
        **({STRICT_RESUME: True} if request.strict_resume else {}),
    }
