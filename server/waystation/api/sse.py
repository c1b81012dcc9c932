"""Event streams and waits: what the event log gives, as it goes over the wire. Framing only; it knows no run.

return EventStream(log.read(key, after=after, resumable=True), with_ids=True, headers=located(...), on_leave=cancel)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from waystation.api.long_answer import FILLER_S, SEND_BYTES, SEND_TIMEOUT_S, LongAnswer, OnLeave, Outlet
from waystation.events import BEGINNING, End, Event

HEARTBEAT = b": heartbeat\r\n\r\n"

Source = AsyncIterator[Sequence[Event] | End]


class EventStream(LongAnswer):
    """An SSE response of batches of events; a batch leaves in one write. It ends with the source or at an `End`.

    `modes` keeps only the events of these stream modes (and errors). `on_leave` is awaited when the client goes away
    before the end; a client that is dropped because it does not read has not left.
    """

    filler = HEARTBEAT

    def __init__(
        self,
        source: Source,
        *,
        with_ids: bool,
        modes: frozenset[str] | None = None,
        headers: Mapping[str, str] | None = None,
        on_leave: OnLeave | None = None,
        heartbeat_s: float = FILLER_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})},
            on_leave=on_leave,
            filler_s=heartbeat_s,
            send_timeout_s=send_timeout_s,
        )
        self._source = source
        self._with_ids = with_ids
        self._modes = None if modes is None else modes | {"error"}

    async def produce(self, out: Outlet) -> bytes:
        async with contextlib.AsyncExitStack() as closing:
            if (aclose := getattr(self._source, "aclose", None)) is not None:
                closing.push_async_callback(aclose)
            async for batch in self._source:
                if isinstance(batch, End):
                    break
                for chunk in encode(batch, with_ids=self._with_ids, modes=self._modes):
                    await out.send(chunk)
        return b""


class WaitingJSON(LongAnswer):
    """The long answer of wait, join and cancel?wait: newlines until the JSON is there."""

    filler = b"\n"

    def __init__(
        self,
        result: Awaitable[bytes],
        *,
        headers: Mapping[str, str] | None = None,
        on_leave: OnLeave | None = None,
        filler_s: float = FILLER_S,
    ) -> None:
        super().__init__(media_type="application/json", headers=headers, on_leave=on_leave, filler_s=filler_s)
        self._result = result

    async def produce(self, out: Outlet) -> bytes:
        result = await self._result
        if len(result) <= SEND_BYTES:
            return result
        await out.send(result)
        return b""


def encode(batch: Iterable[Event], *, with_ids: bool, modes: frozenset[str] | None = None) -> Iterator[bytes]:
    """The events as SSE, those of other modes left out; in chunks, of which only one event's data alone may be larger
    than `SEND_BYTES`. That one is not copied: all readers of a run hold the same bytes."""
    parts: list[bytes] = []
    size = 0
    for event in batch:
        if modes is not None and event.mode not in modes:
            continue
        if with_ids:
            id_ = event.id
            end = b"\r\nid: %d-%d\r\n\r\n" % (id_.epoch_ms, id_.counter)
        else:
            end = b"\r\n\r\n"
        data = event.data
        if size + len(data) > SEND_BYTES:
            if parts:
                yield b"".join(parts)
            parts, size = [], 0
        if len(data) > SEND_BYTES:
            yield _head(event.name)
            yield data
            yield end
            continue
        parts += (_head(event.name), data, end)
        size += len(data)
    if parts:
        yield b"".join(parts)


@lru_cache(maxsize=1024)
def _head(name: str) -> bytes:
    """The name's line. A node's name is part of it and may hold anything; a line end in it would forge fields."""
    return b"event: " + name.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace") + b"\r\ndata: "


def parse_modes(values: Sequence[str] | None) -> frozenset[str] | None:
    """The modes of a query: repeated, joined by commas, or both; None if none is given."""
    modes = frozenset(part.strip() for value in values or () for part in value.split(",") if part.strip())
    return modes or None


def located(path: str, *, content: str) -> dict[str, str]:
    """The headers from which clients learn the run's id and where to come back."""
    return {"Location": path, "Content-Location": content}


def failed(error: str, message: str, *, headers: Mapping[str, str] | None = None) -> EventStream:
    """A stream that holds one `error` event: what joining an unknown run answers."""

    async def one() -> AsyncIterator[Sequence[Event] | End]:
        yield [error_event(error, message)]

    return EventStream(one(), with_ids=False, headers=headers)


def error_event(error: str, message: str) -> Event:
    """An `error` event outside of any log."""
    data: dict[str, Any] = {"error": error, "message": message}
    return Event(BEGINNING, "error", orjson.dumps(data), "error")
