"""Following a thread's events over plain HTTP, as the wire has them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

EVERYTHING = ["values", "updates", "messages", "tools", "lifecycle", "input", "tasks", "custom", "checkpoints"]
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as it came."""

    name: str
    id: str
    data: dict[str, Any]

    @property
    def seq(self) -> int:
        return self.data["seq"]

    @property
    def namespace(self) -> list[str]:
        return self.data["params"]["namespace"]

    @property
    def body(self) -> Any:
        return self.data["params"]["data"]

    @property
    def end(self) -> str | None:
        """How a run of the thread ended, if this is its last event."""
        if self.data["method"] != "lifecycle" or self.namespace:
            return None
        return self.body["event"] if self.body["event"] in ("completed", "failed", "interrupted") else None


async def command(http: httpx.AsyncClient, thread_id: str, method: str, **params: Any) -> dict[str, Any]:
    """The result of a command that succeeds."""
    answer = await refused(http, thread_id, method, **params)
    assert answer["type"] == "success", answer
    return answer["result"]


async def refused(http: httpx.AsyncClient, thread_id: str, method: str, **params: Any) -> dict[str, Any]:
    """A command's answer, whatever it is."""
    sent = {"id": 7, "method": method, "params": params}
    answer = await http.post(f"/threads/{thread_id}/commands", json=sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == 7
    return answer.json()


async def start(http: httpx.AsyncClient, graph: str, given: Any, *, thread_id: str | None = None, **more: Any) -> str:
    """Start a run on a thread, a new one unless it is named; the thread's id."""
    thread_id = thread_id or str(uuid.uuid4())
    await command(http, thread_id, "run.start", assistant_id=graph, input=given, **more)
    return thread_id


async def until(
    http: httpx.AsyncClient, thread_id: str, *, ends: int = 1, channels: list[str] | None = None, **asked: Any
) -> list[Seen]:
    """The thread's events until so many of its runs have ended."""
    left = ends

    def is_last(event: Seen) -> bool:
        nonlocal left
        left -= event.end is not None
        return left == 0

    return await read(http, thread_id, is_last, channels=channels, **asked)


async def read(
    http: httpx.AsyncClient,
    thread_id: str,
    is_last: Callable[[Seen], bool],
    *,
    channels: list[str] | None = None,
    **asked: Any,
) -> list[Seen]:
    """The thread's events up to the one that is the last to be read."""
    found: list[Seen] = []
    async with asyncio.timeout(WITHIN_S):
        async for event in follow(http, thread_id, channels=channels, **asked):
            found.append(event)
            if is_last(event):
                break
    return found


async def follow(
    http: httpx.AsyncClient, thread_id: str, *, channels: list[str] | None = None, **asked: Any
) -> AsyncGenerator[Seen]:
    """The thread's events, for as long as the server sends."""
    body = {"channels": channels or EVERYTHING, **asked}
    async with http.stream("POST", f"/threads/{thread_id}/stream/events", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        rest = b""
        async for chunk in answer.aiter_bytes():
            *events, rest = (rest + chunk).split(b"\r\n\r\n")
            for event in events:
                if not event.startswith(b":"):
                    yield _seen(event)


def _seen(event: bytes) -> Seen:
    """Three fields, in this order, each on a line of its own."""
    name, data, seq = event.split(b"\r\n")
    assert (name[:7], data[:6], seq[:4]) == (b"event: ", b"data: ", b"id: ")
    return Seen(name[7:].decode(), seq[4:].decode(), orjson.loads(data[6:]))


def brief(events: list[Seen]) -> list[tuple[int, str, Any]]:
    """Numbers, methods and what the lifecycle says."""
    return [(e.seq, e.data["method"], e.body["event"] if e.name == "lifecycle" else None) for e in events]
