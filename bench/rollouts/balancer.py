"""A Service of Kubernetes, on one port of 127.0.0.1: new connections go to endpoints that are ready, by lot.

As with kube-proxy, a connection once made stays where it is, whatever becomes of the endpoint's readiness.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator


class Balancer:
    """Made by `open`; `add` and `remove` endpoints by their ports."""

    def __init__(self) -> None:
        self.port = 0
        self.refused = 0
        """Connections that came while no endpoint was ready, or that no endpoint took."""
        self._ready: set[int] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncGenerator[Balancer]:
        balancer = cls()
        server = await asyncio.start_server(balancer._serve, "127.0.0.1", 0)
        balancer.port = server.sockets[0].getsockname()[1]
        try:
            yield balancer
        finally:
            server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, port: int) -> None:
        self._ready.add(port)

    def remove(self, port: int) -> None:
        self._ready.discard(port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = random.choice(sorted(self._ready))
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
        except (IndexError, OSError):
            self.refused += 1
            writer.transport.abort()
            return
        pumps = {asyncio.create_task(_pump(reader, onward_writer)), asyncio.create_task(_pump(onward_reader, writer))}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:  # an end of either side is one of both: nobody here speaks with half a connection
            for pump in pumps:
                pump.cancel()
            for end in (writer, onward_writer):
                end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
