"""JSON-RPC 2.0 over HTTP, as MCP and A2A have it: reading a request, answering it, streaming messages as SSE."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, cast

from fastapi import Request

from waystation.api.dependencies import JSONBytes, services_of
from waystation.api.limits import parse_json, read_body
from waystation.api.long_answer import FILLER_S, LongAnswer, OnLeave, Outlet
from waystation.api.sse import HEARTBEAT
from waystation.errors import WaystationError
from waystation_db.json import dumps

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

RequestId = str | int | float | None

BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "title": "JSON-RPC 2.0 message",
                    "required": ["jsonrpc"],
                    "properties": {
                        "jsonrpc": {"const": "2.0"},
                        "id": {"type": ["string", "integer"]},
                        "method": {"type": "string"},
                        "params": {"type": "object"},
                    },
                }
            }
        },
    }
}
"""What the OpenAPI document says of a body."""

ANSWER: Final[dict[str, Any]] = {
    "description": "A JSON-RPC response, as JSON or in a stream of events",
    "content": {
        "application/json": {"schema": {"type": "object", "title": "JSON-RPC 2.0 response", "required": ["jsonrpc"]}},
        "text/event-stream": {"schema": {"type": "string"}},
    },
}
"""What the OpenAPI document says of an answer."""


class RpcError(Exception):
    """A refusal in the protocol's own form. `data` may be shown to strangers, like `message`."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Call:
    """A request, or a notification where `id` is missing altogether."""

    method: str
    params: dict[str, Any]
    id: RequestId = None
    is_notification: bool = False


async def read_json(request: Request) -> Any:
    """The body's value.

    Raises:
        RpcError: it is no JSON. PayloadTooLarge.
    """
    raw = await read_body(request, services_of(request).settings.max_body_bytes)
    try:
        return parse_json(raw)
    except WaystationError:
        raise RpcError(PARSE_ERROR, "Invalid JSON payload") from None


def parse_call(body: Any) -> Call:
    """The call in a body.

    Raises:
        RpcError: it holds none. The error belongs to the request whose id `id_of` finds.
    """
    members = _members(body)
    method, params = members.get("method"), members.get("params")
    if members.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'Invalid request: a single object with jsonrpc "2.0" is expected')
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "Invalid request: method is missing")
    if params is not None and not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "Invalid params: should be an object")
    if "id" in members and (members["id"] is None or id_of(body) is None):
        raise RpcError(INVALID_REQUEST, "Invalid request: id should be a string or a number")
    return Call(method, cast("dict[str, Any]", params or {}), id_of(body), is_notification="id" not in members)


def id_of(body: Any) -> RequestId:
    """The id of the request in a body, as far as it has one."""
    found = _members(body).get("id")
    return found if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def success(id: RequestId, result: Any) -> bytes:
    """A response."""
    return dumps({"jsonrpc": "2.0", "id": id, "result": result})


def failure(id: RequestId, error: RpcError) -> bytes:
    """An error response."""
    shown: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        shown["data"] = error.data
    return dumps({"jsonrpc": "2.0", "id": id, "error": shown})


def refused(id: RequestId, error: RpcError, *, status_code: int = 200) -> JSONBytes:
    """An error response as an answer of its own."""
    return JSONBytes(failure(id, error), status_code=status_code)


def event(message: bytes) -> bytes:
    """A message as a server-sent event."""
    return b"event: message\r\ndata: " + message + b"\r\n\r\n"


class MessageStream(LongAnswer):
    """Messages as they come, as server-sent events. `on_leave` is awaited when the client goes away before the end."""

    filler = HEARTBEAT

    def __init__(
        self, messages: AsyncGenerator[bytes], *, on_leave: OnLeave | None = None, filler_s: float = FILLER_S
    ) -> None:
        headers = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(media_type="text/event-stream", headers=headers, on_leave=on_leave, filler_s=filler_s)
        self._messages = messages

    async def produce(self, out: Outlet) -> bytes:
        async with contextlib.aclosing(self._messages):
            async for message in self._messages:
                await out.send(event(message))
        return b""


def _members(body: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}
