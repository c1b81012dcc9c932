"""Receivers of webhooks on this machine: honest ones, and such as misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Received:
    """One request. Header names are lower case."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw)


Behaviour = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
"""Answers the n-th request, beginning with 1."""


def says(status: int, *headers: str) -> Behaviour:
    """Answer with a status and header lines."""

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{header}\r\n" for header in (*headers, "content-length: 0"))
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())
        await writer.drain()

    return answer


def fails_first(times: int, *headers: str) -> Behaviour:
    """503 so often, then 200."""

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        await (says(503, *headers) if number <= times else says(200))(number, writer)

    return answer


async def never_answers(_: int, writer: asyncio.StreamWriter) -> None:
    """Take the request and say nothing."""
    await asyncio.Event().wait()


async def never_ends(_: int, writer: asyncio.StreamWriter) -> None:
    """200, and a body without end."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def drips_headers(_: int, writer: asyncio.StreamWriter) -> None:
    """Header lines without end, slowly."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def hangs_up(_: int, writer: asyncio.StreamWriter) -> None:
    """Close without an answer."""


@dataclass
class Receiver:
    """A receiver that is up. `got` are its requests."""

    port: int = 0
    got: list[Received] = field(default_factory=list[Received])
    _heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, count: int) -> list[Received]:
        """Wait until so many requests came."""
        async with asyncio.timeout(DEADLINE_S), self._heard:
            await self._heard.wait_for(lambda: len(self.got) >= count)
        return self.got

    async def take(self, reader: asyncio.StreamReader) -> int:
        """Read a request; how many that makes."""
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        async with self._heard:
            self.got.append(Received(head.split(" ")[1], headers, raw))
            self._heard.notify_all()
        return len(self.got)


@asynccontextmanager
async def receiver(behaviour: Behaviour | None = None) -> AsyncGenerator[Receiver]:
    """Receive webhooks until the block is left; answers 200 unless told otherwise."""
    behave = behaviour or says(200)
    it = Receiver()
    busy = set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await behave(await it.take(reader), writer)
        finally:
            busy.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for task in list(busy):
            task.cancel()
        if busy:
            await asyncio.wait(busy)
