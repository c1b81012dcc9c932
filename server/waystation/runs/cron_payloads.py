"""What a cron keeps of the request that made it, and the run request that each firing makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import ValidationError

from waystation.errors import BadRequest, InvalidRequest
from waystation.runs.requests import StatelessRunCreate, ThreadRunCreate
from waystation_db.json import dumps

_RUN_MEMBERS: Final = (
    *("input", "config", "context", "webhook", "interrupt_before", "interrupt_after", "stream_mode"),
    *("stream_subgraphs", "stream_resumable", "durability", "checkpoint_during"),
)


def with_cron_id(payload: Mapping[str, Any], cron_id: str) -> dict[str, Any]:
    """The payload as clients see it: its runs have the cron's id in `configurable`."""
    config: dict[str, Any] = payload.get("config") or {}
    configurable: dict[str, Any] = config.get("configurable") or {}
    return {**payload, "config": {**config, "configurable": {**configurable, "cron_id": cron_id}}}


def run_request(
    payload: Mapping[str, Any],
    *,
    assistant_id: str,
    on_thread: bool,
    metadata: Mapping[str, Any],
    on_run_completed: str | None,
) -> ThreadRunCreate | StatelessRunCreate:
    """The run that a firing creates. The cron's metadata is in the run's own.

    Raises:
        InvalidRequest, BadRequest: such a run cannot be; told when the cron is made or changed.
    """
    members: dict[str, Any] = {name: payload[name] for name in _RUN_MEMBERS if name in payload}
    config: dict[str, Any] = dict(members.get("config") or {})
    configurable: dict[str, Any] = dict(config.get("configurable") or {})
    configurable.pop("cron_id", None)
    if configurable and members.get("context"):
        raise BadRequest(
            "context and config.configurable were both given: send one of them; context is the newer form."
        )
    # Postgres gives large numbers of metadata back as integers; as floats they can be stored again.
    whole: dict[str, Any] = orjson.loads(dumps({**(payload.get("metadata") or {}), **metadata}))
    members |= {"assistant_id": assistant_id, "config": {**config, "configurable": configurable}, "metadata": whole}
    try:
        if on_thread:
            strategy = payload.get("multitask_strategy") or "enqueue"
            return ThreadRunCreate.model_validate({**members, "multitask_strategy": strategy})
        return StatelessRunCreate.model_validate({**members, "on_completion": on_run_completed or "delete"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"payload.{place}: {first['msg']}") from None
