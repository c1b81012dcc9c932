"""An answer that is held back until a run is final, because its status depends on it. Nothing goes out before.

the client leaves     → the waiting is cancelled, `on_leave` is called
the process stops     → `on_leave` is called, the answer is `stopping`: the client comes back to another process
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from waystation.api.long_answer import OnLeave, OpenStreams, until_disconnect


class HeldAnswer(Response):
    """Waits for the response and sends it."""

    def __init__(self, response: Coroutine[Any, Any, Response], *, on_leave: OnLeave, stopping: Response) -> None:
        super().__init__()
        self._response = response
        self._on_leave = on_leave
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams: OpenStreams = scope["app"].state.streams
        streams.enter(scope)
        waiting = asyncio.create_task(self._response)
        gone = asyncio.create_task(until_disconnect(receive))
        try:
            with streams.until_stopped() as stopped:
                await asyncio.wait((waiting, gone, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(gone)
            if not waiting.done():
                await _cancelled(waiting)
        if not waiting.cancelled():
            await waiting.result()(scope, receive, send)
            return
        await self._on_leave()
        if streams.stopping.done():
            await self._stopping(scope, receive, send)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))
