"""A proxy before Postgres that loses chosen statements: before they are sent, or after they are committed.

    server process ──TCP──▶ proxy ──unix socket──▶ Postgres
                             │ a statement is all that the client sends up to a Sync or in a Query
                             ╰ of those that concern a marked thread, the n-th is lost, with its connection

A statement concerns a thread when the thread's id stands in it or, for one lost after its commit, in its answer: so a
claim counts too.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Moment = Literal["before it is sent", "after it is committed"]

_SYNC, _QUERY, _READY = b"S", b"Q", b"Z"
# The pools of the two loops; leases and LISTEN have connections of their own, which are let through.
_COUNTED = (b"waystation-api", b"waystation-graphs")


@dataclass(slots=True)
class Loss:
    """The n-th statement about a thread is lost; `lost` holds its text when that has happened."""

    thread_id: str
    nth: int
    moment: Moment
    seen: int = 0
    lost: str | None = None

    def hits(self, request: bytes, answer: bytes) -> bool:
        """Count a statement; whether it is the one."""
        mark = self.thread_id.encode()
        if mark not in request and mark not in answer:
            return False
        self.seen += 1
        if self.seen != self.nth:
            return False
        self.lost = _text(request)
        return True


class Proxy:
    """Forwards connections, and loses what it is told to."""

    def __init__(self, socket_dir: str, losses: list[Loss], on_loss: Callable[[], None]) -> None:
        self._socket = f"{socket_dir}/.s.PGSQL.5432"
        self._on_loss = on_loss
        self.losses = losses
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._socket)
        ends = {to_client, to_server}
        self._open |= ends
        try:
            startup = await _startup(client)
            await _send(to_server, startup)
            if any(name in startup for name in _COUNTED):
                await self._count(client, to_client, server, to_server)
            else:
                pipes = [asyncio.create_task(_pipe(client, to_server)), asyncio.create_task(_pipe(server, to_client))]
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # one of the two has hung up
        finally:
            for end in ends:
                end.transport.abort()
            self._open -= ends

    def hang_up(self) -> None:
        """Cut every connection."""
        for end in list(self._open):
            end.transport.abort()

    async def _count(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """Forward until the connection ends or a statement is to be lost."""
        await _send(to_client, await _until(server, (_READY,)))
        while True:
            request = await _until(client, (_SYNC, _QUERY))
            if self._is_lost("before it is sent", request, b""):
                return
            await _send(to_server, request)
            answer = await _until(server, (_READY,))
            if self._is_lost("after it is committed", request, answer):
                return
            await _send(to_client, answer)

    def _is_lost(self, moment: Moment, request: bytes, answer: bytes) -> bool:
        waiting = [loss for loss in self.losses if loss.moment == moment and loss.lost is None]
        hits = [loss.hits(request, answer) for loss in waiting]  # each of them counts, whether or not another one hits
        if any(hits):
            self._on_loss()
        return any(hits)


@asynccontextmanager
async def losing_proxy(
    conninfo: str, *, losses: list[Loss], on_loss: Callable[[], None] = lambda: None
) -> AsyncGenerator[str]:
    """The address of the same database through a proxy that loses these, and calls `on_loss` at the moment of each."""
    parts = urlsplit(conninfo)
    proxy = Proxy(parse_qs(parts.query)["host"][0], losses, on_loss)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=2**26)
    port = server.sockets[0].getsockname()[1]
    try:
        query = "sslmode=disable&gssencmode=disable"
        yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}?{query}"
    finally:
        server.close()
        proxy.hang_up()


async def _startup(client: asyncio.StreamReader) -> bytes:
    size = await client.readexactly(4)
    return size + await client.readexactly(struct.unpack("!I", size)[0] - 4)


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            await _send(target, data)


async def _send(target: asyncio.StreamWriter, data: bytes) -> None:
    if target.is_closing():  # cut from the other direction; uvloop's own answer to a write is a RuntimeError
        raise ConnectionResetError
    target.write(data)
    await target.drain()


async def _until(stream: asyncio.StreamReader, last: tuple[bytes, ...]) -> bytes:
    messages: list[bytes] = []
    while True:
        head = await stream.readexactly(5)
        messages.append(head + await stream.readexactly(struct.unpack("!I", head[1:])[0] - 4))
        if head[:1] in last:
            return b"".join(messages)


def _text(request: bytes) -> str:
    """The beginning of the statement's text, where it is not one that was prepared before."""
    words = request[:4000].decode(errors="replace").replace("\x00", " ").split()
    return " ".join(words)[:120]
