"""States and updates as JSON with their messages in the short form of the streaming protocol."""

from __future__ import annotations

from typing import Any, cast

import orjson
from langchain_core.messages import BaseMessage, ToolMessage

from waystation.events.protocol import shortened
from waystation_db.json import dumps, plain


def short_dumps(value: Any) -> bytes:
    """Compact JSON of any Python value. Never raises, as `waystation_db.json.dumps`."""
    try:
        data = orjson.dumps(value, _short, orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, ValueError, RecursionError):
        return _from_long(value)
    return _from_long(value) if b"\\u0000" in data else data


def _from_long(value: Any) -> bytes:
    """The slow way, for what orjson refuses."""
    long = dumps(value)
    try:
        return orjson.dumps(shortened(orjson.loads(long)))
    except (orjson.JSONEncodeError, RecursionError):  # integers beyond 64 bits come back as what orjson cannot write
        return long


def _short(value: Any) -> Any:
    if not isinstance(value, BaseMessage):
        return plain(value)
    message = cast("Any", value)  # what is read here is each class's own
    short: dict[str, Any] = {"type": message.type, "content": message.content}
    for name in ("id", "name", "response_metadata"):
        if found := getattr(message, name, None):
            short[name] = found
    if calls := getattr(message, "tool_calls", None):
        short["tool_calls"] = [
            {"type": "tool_call", "name": call["name"], "args": call["args"], "id": call["id"]} for call in calls
        ]
    if isinstance(value, ToolMessage):
        short |= {"tool_call_id": message.tool_call_id, "status": message.status, "artifact": message.artifact}
    return short
