"""HTTP/1.1 over asyncio's streams, so that a connection can also be cut, reset or left hanging in any place."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_MOST_BODY = 32 * 1024 * 1024


class Gone(Exception):
    """The client closed the connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")


@dataclass(slots=True)
class Connection:
    """A client's connection, which a request is read from and an answer written to in parts."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self) -> Request | None:
        """The next request; None when the client has no more."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ", 2)
            pairs = (line.split(":", 1) for line in lines if ":" in line)
            headers = {name.strip().lower(): value.strip() for name, value in pairs}
            size = min(int(headers.get("content-length") or 0), _MOST_BODY)
            body = await self.reader.readexactly(size) if size else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        parts = urlsplit(target)
        return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body)

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """A whole answer."""
        await self.write(_head(status, {**headers, "content-length": str(len(body))}) + body)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer whose body comes in chunks."""
        await self.write(_head(status, {**headers, "transfer-encoding": "chunked"}))

    async def chunk(self, data: bytes) -> None:
        await self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.write(b"0\r\n\r\n")

    async def write(self, data: bytes) -> None:
        """Raises Gone when nobody reads any more."""
        if self.writer.is_closing() or self.reader.at_eof():
            raise Gone
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            raise Gone from None

    async def pause(self, seconds: float | None) -> None:
        """Wait, or for ever (None). Raises Gone as soon as the client closes."""
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                if await self.reader.read(1) == b"":
                    raise Gone
                raise Gone  # bytes while an answer is due: no client we have pipelines
        except TimeoutError:
            return
        except ConnectionError:
            raise Gone from None

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        raw: socket.socket | None = self.writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1")
