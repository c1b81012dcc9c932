"""The events of the streaming protocol: their form on the wire, and how a run's log has them.

    native run:   the worker writes whole events into the run's log, mode `protocol`     ──▶ passed on as they are
    classic run:  the log has what its stream modes made                               ──▶ converted by whoever reads

A native event's name in the log is its channel with the namespace behind it (`values|child:…`), so that readers filter
without looking into the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import orjson

from waystation.events.log import Event

PROTOCOL_MODE: Final = "protocol"
"""The mode of a native run's events in the log."""

Namespace = tuple[str, ...]

_SEQ = re.compile(rb'"seq":([0-9]+)')
_MESSAGE_TYPES: Final = frozenset(
    {"ai", "human", "system", "tool", "function", "chat", "remove", "AIMessageChunk", "HumanMessageChunk"}
)
_OF_TOOLS: Final = ("tool_call_id", "status", "artifact")


class ThreadEvent(NamedTuple):
    """One event of a thread. `channel` is what subscriptions ask for (`custom:<name>` for a named one), `data` the
    whole event as one line of JSON."""

    seq: int
    method: str
    channel: str
    namespace: Namespace
    data: bytes


def method_of(channel: str) -> str:
    """The `method` of a channel's events."""
    if channel == "input":
        return "input.requested"
    return "custom" if channel.startswith("custom:") else channel


def log_name(channel: str, namespace: Sequence[str]) -> str:
    """A native event's name in the log."""
    return "|".join((channel, *namespace)) if namespace else channel


@lru_cache(maxsize=4096)
def split_name(name: str) -> tuple[str, Namespace]:
    """Channel or stream mode, and namespace, of an event in the log."""
    channel, *namespace = name.split("|")
    return channel, tuple(namespace)


def encode(
    event_id: str,
    seq: int,
    channel: str,
    namespace: Sequence[str],
    *,
    timestamp_ms: int,
    data: bytes,
    node: str | None = None,
) -> bytes:
    """A whole event as JSON; `data` is JSON already."""
    head = b'{"type":"event","event_id":%b,"seq":%d,"method":"%b","params":{"namespace":%b,"timestamp":%d,"data":' % (
        _text(event_id),
        seq,
        method_of(channel).encode(),
        orjson.dumps(list(namespace)) if namespace else b"[]",
        timestamp_ms,
    )
    return b"".join((head, data, b"}}")) if node is None else b"".join((head, data, b',"node":', _text(node), b"}}"))


def native_event(event: Event) -> ThreadEvent:
    """A native run's event out of its log. Raises ValueError for one without a number."""
    channel, namespace = split_name(event.name)
    return ThreadEvent(seq_of(event.data), method_of(channel), channel, namespace, event.data)


def seq_of(data: bytes) -> int:
    """The number in an encoded event. Raises ValueError where there is none."""
    # It stands in front, behind an id that cannot hold an unescaped quote.
    found = _SEQ.search(data)
    if found is None:
        raise ValueError("not an event of the protocol")
    return int(found[1])


def shortened(value: Any) -> Any:
    """JSON of a state with its messages in the protocol's short form."""
    match value:
        case list():
            return [shortened(item) for item in cast("list[Any]", value)]
        case dict():
            members = cast("dict[str, Any]", value)
            if members.get("type") in _MESSAGE_TYPES and "content" in members and "additional_kwargs" in members:
                return short_message(members)
            return {name: shortened(item) for name, item in members.items()}
        case _:
            return value


def short_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is empty, null or nobody's business."""
    kind = message["type"]
    short: dict[str, Any] = {"type": kind, "content": message["content"]}
    for name in ("id", "name", "response_metadata"):
        if message.get(name):
            short[name] = message[name]
    if calls := message.get("tool_calls"):
        short["tool_calls"] = [_short_call(call) for call in calls]
    if kind == "tool":
        short |= {name: message.get(name) for name in _OF_TOOLS}
    return short


def _short_call(call: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_call", "name": call.get("name"), "args": call.get("args"), "id": call.get("id")}


def _text(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:  # a lone surrogate in a node's name
        return orjson.dumps(text.encode("utf-8", "replace").decode())
