"""A request, or the opening of a WebSocket, as authentication looks at it; and what it read of the body, kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection, Request
from starlette.types import Message, Receive, Scope

from waystation.errors import PayloadTooLarge

PARAMETERS = (
    *("headers", "path", "method", "authorization", "query_params", "path_params", "body", "request", "scope"),
)
"""What an `authenticate` handler may ask for, by name."""


class Arrival:
    """Made on the API's loop. `arguments` may be asked from the loop where the project's handlers run."""

    def __init__(self, scope: Scope, receive: Receive, *, max_body_bytes: int) -> None:
        self.scope = scope
        self._tape = Tape(receive, max_bytes=max_body_bytes)

    @cached_property
    def headers(self) -> Mapping[bytes, bytes]:
        """By lower-case name; of several the last one."""
        return dict(self.scope["headers"])

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def bearer(self) -> str | None:
        """The token of an `Authorization: Bearer` header."""
        scheme, _, token = (self.header(b"authorization") or "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    @property
    def is_from_here(self) -> bool:
        """Whether the client is on this machine, as far as its address tells."""
        client: tuple[str, int] | None = self.scope.get("client")
        return client is not None and client[0] in ("127.0.0.1", "::1")

    async def read_ahead(self) -> None:
        """Read the body, so that `arguments` has it."""
        if self.scope["type"] == "http":
            await self._tape.read()

    def receive(self) -> Receive:
        """What the request is served with afterwards: everything read so far, then the rest."""
        return self._tape.again()

    def arguments(self, names: frozenset[str]) -> dict[str, Any]:
        """The parameters of a handler by name."""
        return {name: self._argument(name) for name in names}

    def _argument(self, name: str) -> Any:
        match name:
            case "headers":
                return dict(self.headers)
            case "path":
                return self.scope["path"]
            case "method":
                return self.scope.get("method", "GET")
            case "authorization":
                return self.header(b"authorization")
            case "query_params":
                return QueryParams(self.scope["query_string"])
            case "path_params":
                return dict(self.scope.get("path_params") or {})
            case "body":
                return _parsed(self._tape.body)
            case "scope":
                return dict(self.scope)
            case _:
                is_http = self.scope["type"] == "http"
                return Request(self.scope, self._tape.elsewhere()) if is_http else HTTPConnection(self.scope)


class Tape:
    """The messages of a body, which can be read again. It belongs to the loop that it was made on."""

    def __init__(self, receive: Receive, *, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._messages: list[Message] = []

    @property
    def body(self) -> bytes:
        """What has been read."""
        return b"".join([message.get("body", b"") for message in self._messages])

    async def read(self) -> None:
        """Read to the end. Raises PayloadTooLarge."""
        while (await self._next()).get("more_body", False):
            pass

    def elsewhere(self) -> Receive:
        """A `receive` for another loop, from the beginning."""
        at = 0

        async def receive() -> Message:
            nonlocal at
            if at == len(self._messages):
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._next(), self._loop))
            at += 1
            return self._messages[at - 1]

        return receive

    def again(self) -> Receive:
        """The `receive` of this loop, from the beginning."""
        if not self._messages:
            return self._receive
        at = 0

        async def receive() -> Message:
            nonlocal at
            if at < len(self._messages):
                at += 1
                return self._messages[at - 1]
            return await self._receive()

        return receive

    async def _next(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        if len(self.body) > self._max_bytes:
            raise PayloadTooLarge(f"The request body is larger than {self._max_bytes} bytes")
        return message


def _parsed(body: bytes) -> Any:
    """The JSON of a body; what is none comes as it is, and nothing as an empty object."""
    if not body:
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
