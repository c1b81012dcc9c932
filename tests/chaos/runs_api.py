"""The client's side: creates runs as the SDK does, and tries again where a client would."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run that the server has answered for with a 2xx."""

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"/threads/{self.thread_id}/runs/{self.run_id}"


@asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(120, connect=60), limits=limits) as client:
        yield client


def body(graph: str, given: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {"assistant_id": graph, "input": given, "if_not_exists": "create", **more}


async def submit(
    client: httpx.AsyncClient, graph: str, given: dict[str, Any] | None, *, thread_id: str | None = None, **more: Any
) -> Accepted:
    """Create a run in the background; a refused or broken request is tried again with the same Idempotency-Key."""
    thread_id = thread_id or str(uuid.uuid4())
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = await client.post(f"/threads/{thread_id}/runs", json=body(graph, given, **more), headers=headers)
            if answer.status_code == 200:
                return Accepted(thread_id, answer.json()["run_id"])
            assert answer.status_code in (429, 503), f"{answer.status_code}: {answer.text}"
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "no run could be created for 60 s"
        await asyncio.sleep(0.1)


async def submit_many(
    client: httpx.AsyncClient, count: int, graph: str, given: dict[str, Any], **more: Any
) -> list[Accepted]:
    """So many runs at once, each on a thread of its own."""
    return list(await asyncio.gather(*[submit(client, graph, given, **more) for _ in range(count)]))


async def joined(client: httpx.AsyncClient, run: Accepted) -> Any:
    """The run's output, however often the connection breaks."""
    deadline = time.monotonic() + 120
    while True:
        try:
            answer = await client.get(f"{run.path}/join")
            if answer.status_code == 200:
                return answer.json()
            assert answer.status_code in (429, 503), f"{answer.status_code}: {answer.text}"
        except (httpx.TransportError, ValueError):
            pass  # cut off in the middle of the answer
        assert time.monotonic() < deadline, "the run could not be joined for 120 s"
        await asyncio.sleep(0.2)
