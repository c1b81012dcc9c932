"""Streams as OpenAI's clients read them: pieces of JSON as server-sent events, with comments while nothing happens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from waystation.api.long_answer import LongAnswer, OnLeave, Outlet
from waystation_db.json import dumps

DONE = b"data: [DONE]\n\n"


class OpenAIStream(LongAnswer):
    """Sends what the source gives, as it comes."""

    filler = b": heartbeat\n\n"

    def __init__(
        self, source: AsyncGenerator[bytes], *, on_leave: OnLeave | None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})},
            on_leave=on_leave,
        )
        self._source = source

    async def produce(self, out: Outlet) -> bytes:
        async with contextlib.aclosing(self._source):
            async for piece in self._source:
                await out.send(piece)
        return b""


def data_of(value: Mapping[str, Any]) -> bytes:
    """An event without a name."""
    return b"data: " + dumps(value) + b"\n\n"


def named_event(value: Mapping[str, Any]) -> bytes:
    """An event whose name is its `type`."""
    return b"event: " + str(value["type"]).encode() + b"\n" + data_of(value)
