"""What the OpenAPI document says of every operation, for tests that try all of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import jsonschema_rs

from waystation.api.openapi import describe_api
from waystation.app import operations

DOCUMENT = describe_api(operations())

RPC = frozenset({"/mcp", "/a2a/{assistant_id}"})
"""Paths that speak JSON-RPC and refuse in its words; `test_mcp_http.py` and `test_a2a_http.py` try them."""

ENDLESS = frozenset({"/threads/{thread_id}/stream", "/threads/{thread_id}/stream/events"})
"""Paths whose answers have no end."""

OWN_WORDS = frozenset({*ENDLESS, "/threads/{thread_id}/commands"})
"""Paths of the event streaming protocol, which refuses in its own words; `test_event_protocol_hostile.py` tries
them."""

LASTING = frozenset({"/runs/wait", "/runs/stream"})
"""Ends of paths whose answers last as long as a run."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """One operation of the document."""

    method: str
    path: str
    spec: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def body(self) -> dict[str, Any] | None:
        """The schema of its body, with everything it refers to."""
        content = self.spec.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            return None
        return {**content["application/json"]["schema"], "components": DOCUMENT["components"]}

    @property
    def lasts(self) -> bool:
        return any(self.path.endswith(end) for end in LASTING)

    @property
    def parameters(self) -> list[dict[str, Any]]:
        return self.spec.get("parameters", [])

    def of(self, kind: str) -> list[str]:
        """The names of its parameters in the `path`, `query` or `header`."""
        return [parameter["name"] for parameter in self.parameters if parameter["in"] == kind]


EVERY = [
    Described(method.upper(), path, spec)
    for path, item in DOCUMENT["paths"].items()
    for method, spec in item.items()
    if path not in RPC | OWN_WORDS
]
WITH_BODY = [operation for operation in EVERY if operation.body is not None]


@dataclass(frozen=True, slots=True)
class Things:
    """Things that exist, for paths that lead somewhere."""

    thread_id: str
    run_id: str
    assistant_id: str
    checkpoint_id: str

    def path_of(self, operation: Described, **replaced: str) -> str:
        given = {
            "thread_id": self.thread_id,
            "run_id": self.run_id,
            "assistant_id": self.assistant_id,
            "checkpoint_id": self.checkpoint_id,
            "namespace": "child",
            "model": "chat",
            "response_id": f"resp_{self.thread_id}{self.run_id}".replace("-", ""),
        }
        nothing = {name: str(uuid.uuid4()) for name in operation.of("path")}
        return operation.path.format(**nothing | given | replaced)

    def body_of(self, operation: Described) -> Any:
        """A body that the operation accepts."""
        match operation.path.rsplit("/", 1)[-1]:
            case "batch":
                return [{"assistant_id": "steps", "input": {"n": 0}}]
            case "runs" | "wait" | "stream":
                return {"assistant_id": "steps", "input": {"n": 0}}
            case "completions":
                return {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
            case "responses":
                return {"model": "chat", "input": "hi", "store": False}
            case "crons":
                return {"assistant_id": "steps", "schedule": "0 3 1 1 *", "enabled": False}
            case "items":
                return {"namespace": ["battery"], "key": "k", "value": {}}
            case "cancel":
                return {"thread_id": self.thread_id, "run_ids": [str(uuid.uuid4())]}
            case "prune":
                return {"thread_ids": [str(uuid.uuid4())]}
            case "latest":
                return {"version": 1}
            case "assistants":
                return {"graph_id": "steps"}
            case "state":
                return {"values": {"log": ["x"]}, "as_node": "a"}
            case "checkpoint":
                return {"checkpoint": {"checkpoint_id": self.checkpoint_id}}
            case "kill":
                return {"scope": "user", "id": "nobody whom a test knows"}
            case "grants":
                return {"scope": "user", "owner": "x", "amount": 1}
            case "level":
                return {"level": "full"}
            case "estimate":
                return {"assistant_id": "steps"}
            case _:
                return {}


def members(operation: Described) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every member of the body, with its schema, however deep; in arrays the first element stands for all."""
    schema = operation.body
    if schema is not None:
        yield from _members(schema, (), 0)


def _members(schema: dict[str, Any], at: Path, depth: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    for option in _options(schema):
        if depth < 6 and "items" in option:
            yield from _members(option["items"], (*at, 0), depth + 1)
        for name, member in option.get("properties", {}).items():
            yield (*at, name), member
            yield from _members(member, (*at, name), depth + 1)


def _options(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if ref := schema.get("$ref"):
        yield from _options(DOCUMENT["components"]["schemas"][ref.rsplit("/", 1)[-1]])
    elif "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _options(option)
    else:
        yield schema


def put(body: Any, at: Path, value: Any) -> Any:
    """The body with `value` at a place; what leads there is made."""
    if not at:
        return value
    step, rest = at[0], at[1:]
    if isinstance(step, int):
        return [put(cast("list[Any]", body)[0] if isinstance(body, list) and body else {}, rest, value)]
    kept = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    return {**kept, step: put(kept.get(step), rest, value)}


def allows(operation: Described, body: Any) -> bool:
    """Whether the document says that the operation takes this body."""
    return operation.body is not None and jsonschema_rs.is_valid(operation.body, body)
