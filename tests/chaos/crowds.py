"""Many clients at once, as cheap as they can be: raw sockets that ask for a stream and then wait, or never read."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from chaos.fleet import Node


def rss_bytes(pid: int, field: str = "VmRSS") -> int:
    """What the process holds in memory now; `VmHWM` is the most it has held since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"no {field} of {pid}")


def forget_peak(pid: int) -> None:
    """Let `VmHWM` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def many_files(count: int) -> Generator[None]:
    """Allow this process, and those it starts, so many open files; a developer's shell may allow 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections that have sent a GET. Leave the block to close them all."""

    def __init__(self, node: Node) -> None:
        self._address = ("127.0.0.1", node.port)
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._sockets:
            sock.close()

    async def ask(self, path: str, *, count: int, window: int | None = None) -> None:
        """Open `count` connections that ask for `path`. `window`: room for unread bytes, which the kernel doubles."""
        for _ in range(count):
            sock = socket.socket()
            self._sockets.append(sock)
            sock.setblocking(False)
            if window is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, self._address)
            await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: crowd\r\n\r\n".encode())

    async def heads(self) -> list[int]:
        """The status that each connection was answered with; reads no further than it must."""
        return await asyncio.gather(*[_status(sock) for sock in self._sockets])


async def _status(sock: socket.socket) -> int:
    async with asyncio.timeout(60):
        head = await asyncio.get_running_loop().sock_recv(sock, 64)
    return int(head.split()[1])


class Pulse:
    """Asks whether the API answers, ten times a second, from the first to the last line of a block."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._task: asyncio.Task[None] | None = None
        self.took_s: list[float] = []
        self.answers: set[int] = set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: Any) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error

    @property
    def p95_s(self) -> float:
        return sorted(self.took_s)[int(len(self.took_s) * 0.95)]

    async def _beat(self) -> None:
        async with httpx.AsyncClient(base_url=self._node.url, timeout=60) as client:
            while True:
                began = time.perf_counter()
                answer = await client.get("/ok", params={"check_db": "1"})
                self.took_s.append(time.perf_counter() - began)
                self.answers.add(answer.status_code)
                await asyncio.sleep(0.1)
