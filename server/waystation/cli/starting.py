"""What a process answers while it starts: it lives, and it is not ready. Graphs may take minutes to import, and a probe
that only hangs looks like one of a process that is stuck.

    bind ──▶ /health 200, /ready and /ok 503 with Retry-After ──▶ graphs are loaded ──▶ the server itself
         └─▶ everything else waits, and is the server's: clients notice a restart as a slow answer

Requests are looked at without taking them off their sockets. A supervised process looks at none: its socket outlives
it, and whoever comes waits for its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Final

_LOOK_BYTES: Final = 8 * 1024
_LOOK_AGAIN_S: Final = 0.05
_PROBES: Final = (b"/health", b"/ready", b"/ok")

_ALIVE: Final = b'{"ok":true}'
_NOT_READY: Final = b'{"ready":false,"services":{"process":"starting"},"detail":"The server is starting"}'


@contextlib.asynccontextmanager
async def answered_while_starting(sock: socket.socket | None) -> AsyncGenerator[list[socket.socket]]:
    """Answer probes on a listening socket until the block is left. What is given holds the connections of all others
    when it has been left; they are to be served or closed."""
    waiting: list[socket.socket] = []
    if sock is None:
        yield waiting
        return
    listener = sock.dup()  # the server's own stays open
    listener.setblocking(False)
    accepting = asyncio.create_task(_accept(listener, waiting))
    try:
        yield waiting
    finally:
        accepting.cancel()
        await asyncio.wait((accepting,))
        listener.close()


async def _accept(listener: socket.socket, waiting: list[socket.socket]) -> None:
    async with asyncio.TaskGroup() as looking:
        while True:
            await _readable(listener)
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError:  # gone again, or no descriptor is left
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            waiting.append(connection)  # at once: whenever this ends, nobody is lost
            looking.create_task(_look(connection, waiting))


async def _look(connection: socket.socket, waiting: list[socket.socket]) -> None:
    connection.setblocking(False)
    try:
        head = await _first_line(connection)
    except OSError:
        return  # the server finds out, too
    if head is None or _path(head) not in _PROBES:
        return
    waiting.remove(connection)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.recv(_LOOK_BYTES)
        await asyncio.get_running_loop().sock_sendall(connection, _response(head))


async def _first_line(connection: socket.socket) -> bytes | None:
    """What a client has sent, once a whole line is there; None if it is gone or sends none. It can be read again."""
    while True:
        await _readable(connection)
        seen = connection.recv(_LOOK_BYTES, socket.MSG_PEEK)
        if b"\n" in seen:
            return seen
        if not seen or len(seen) >= _LOOK_BYTES:
            return None
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(connection.fileno(), lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())


def _path(head: bytes) -> bytes:
    """Without query, and without what the server may be mounted below."""
    target = head.partition(b" ")[2].partition(b" ")[0].partition(b"?")[0]
    return b"/" + target.rpartition(b"/")[2]


def _response(head: bytes) -> bytes:
    method, is_health = head.partition(b" ")[0], _path(head) == b"/health"
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
