"""What a process answers while it starts: it lives, and it is not ready. Graphs may take minutes to import, and a probe
that only hangs looks like one of a process that is stuck.

    bind ──▶ /health 200, all else 503 with Retry-After ──▶ migrations checked, graphs loaded ──▶ the server itself

A supervised process answers nothing instead: its socket outlives it, and clients wait for its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Final

_HEAD_S: Final = 5.0
_MOST_BYTES: Final = 64 * 1024

_ALIVE: Final = b'{"ok":true}'
_NOT_READY: Final = b'{"ready":false,"services":{"process":"starting"},"detail":"The server is starting"}'


@contextlib.asynccontextmanager
async def answered_while_starting(sock: socket.socket | None) -> AsyncGenerator[None]:
    """Answer on a listening socket until the block is left; whoever comes then is the server's."""
    if sock is None:
        yield
        return
    # Of its own, since the server closes it; connections that nobody has accepted yet stay with the other.
    server = await asyncio.start_server(_answer, sock=sock.dup(), limit=_MOST_BYTES)
    try:
        yield
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_response(head))
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


def _response(head: bytes) -> bytes:
    method, _, rest = head.partition(b" ")
    is_health = rest.partition(b" ")[0].partition(b"?")[0] == b"/health"
    body = _ALIVE if is_health else _NOT_READY
    status = b"200 OK" if is_health else b"503 Service Unavailable"
    lines = (
        b"HTTP/1.1 " + status,
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
        *(() if is_health else (b"retry-after: 2",)),
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if method == b"HEAD" else body)
