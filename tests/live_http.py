"""A live HTTP server in the test's own process and loop: streams cannot be tested through an in-process client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from waystation.api.frame import Application
from waystation.api.server import ApiServer


@asynccontextmanager
async def served(app: Application, *, grace_s: float = 5.0) -> AsyncGenerator[tuple[ApiServer, str]]:
    """The running server and its address; stopped gracefully at the end of the block."""
    server = ApiServer(app, host="127.0.0.1", port=0, grace_s=grace_s)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(60):
            while not server.started:
                if serving.done():
                    break
                await asyncio.sleep(0.01)
        if serving.done():
            await serving
            raise RuntimeError("the server ended before it served")
        yield server, f"http://127.0.0.1:{server.bound_port}"
    finally:
        server.stop()
        await serving
