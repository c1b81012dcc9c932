"""Reading a request's JSON: how large, how deep, which characters. Whatever passes can be stored in Postgres."""

from __future__ import annotations

from typing import Any, cast

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from waystation.errors import InvalidRequest, PayloadTooLarge

MAX_DEPTH = 200
"""Levels of nesting in a body. Encoders and validators further in recurse; Python's own limit is 1,000 frames."""

INVALID_JSON = "Invalid JSON in request body"
REPLACEMENT = "\ufffd"


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: it is, or is announced to be, larger than `max_bytes`.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    message = await request.receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        chunks = [body]
    else:
        chunks = await _rest_of_body(request, message, max_bytes)
    whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if len(whole) > max_bytes:
        raise _too_large(max_bytes)
    return whole


async def _rest_of_body(request: Request, first: Any, max_bytes: int) -> list[bytes]:
    message, chunks, size = first, list[bytes](), 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return chunks
        message = await request.receive()


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text: strict (no NaN, no lone surrogate, UTF-8 only), U+0000 replaced by U+FFFD.

    Raises:
        InvalidRequest: it is empty, broken or nested too deeply.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise InvalidRequest(INVALID_JSON) from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and not _is_shallow(value):
        raise InvalidRequest(f"body: nested more than {MAX_DEPTH} levels deep")
    if b"\\u0000" in raw:
        value = without_nul(value)
    return value


def without_nul(value: Any) -> Any:
    """The same value with U+0000 replaced in every string and key: Postgres cannot store it."""
    match value:
        case str():
            return value.replace("\x00", REPLACEMENT)
        case list():
            return [without_nul(item) for item in cast(list[Any], value)]
        case dict():
            return {without_nul(key): without_nul(item) for key, item in cast(dict[str, Any], value).items()}
        case _:
            return value


def _is_shallow(value: Any) -> bool:
    """Whether nesting stays within MAX_DEPTH; by levels, so that it cannot itself run out of stack."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return True
    return False


def _children(item: Any) -> list[Any]:
    match item:
        case list():
            return [child for child in cast(list[Any], item) if isinstance(child, list | dict)]
        case dict():
            return [child for child in cast(dict[str, Any], item).values() if isinstance(child, list | dict)]
        case _:
            return []


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {max_bytes} bytes")
