"""Sends what no client should send, and looks what became of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from e2e.operations import Described, Path, Things
from eventually import eventually

JSON = {"content-type": "application/json"}
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Battery:
    """A client that insists on answers below 500."""

    http: httpx.AsyncClient
    things: Things

    async def send(self, operation: Described, *, path: str | None = None, **options: Any) -> httpx.Response:
        """The answer, read to its end."""
        headers = {**JSON, **options.pop("headers", {})}
        return await self.ask(
            operation.method, path or self.things.path_of(operation), headers=headers, what=str(operation), **options
        )

    async def ask(
        self, method: str, url: str, *, target: str | None = None, what: object = "", **options: Any
    ) -> httpx.Response:
        """The answer, read to its end. A `target` is sent as it is, where a path would be tidied up first."""
        if target is not None:
            options["extensions"] = {"target": target.encode()}
        async with asyncio.timeout(60):
            answer = await self.http.request(method, url, **options)
        assert answer.status_code < 500, (what, answer.status_code, answer.text, str(options)[:300])
        if answer.status_code >= 400:
            assert isinstance(said(answer), str), (what, answer.text)
        return answer

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """What a request that is in order is answered."""
        answer = await self.ask(method, path, json=body) if body is not None else await self.ask(method, path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def each(self, attempt: Callable[[Path, Any], Awaitable[None]], cases: Iterable[tuple[Path, Any]]) -> None:
        """Try all cases, a few at a time, and say of all that failed what they were."""
        room, failures = asyncio.Semaphore(AT_ONCE), list[str]()

        async def one(at: Path, value: Any) -> None:
            async with room:
                try:
                    await attempt(at, value)
                except (AssertionError, httpx.HTTPError, TimeoutError) as error:
                    failures.append(f"{at} {str(value)[:60]!r}: {type(error).__name__} {str(error)[:400]}")

        await asyncio.gather(*(one(at, value) for at, value in cases))
        assert not failures, "\n".join([f"{len(failures)} cases:", *failures[:8]])

    async def count(self) -> int:
        return await self.json("POST", "/threads/count", {})

    @staticmethod
    def refused(answer: httpx.Response, *, naming: Path = (), what: object = "") -> None:
        """It is a 4xx whose text names the field, or the one around it, and does not repeat what was sent."""
        assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text[:300])
        detail = said(answer)
        assert not naming or any(isinstance(step, str) and step in detail for step in naming), (what, detail)
        assert len(detail) < 2000, what


def said(answer: httpx.Response) -> Any:
    """What an error says; under /v1 in OpenAI's shape, and of a namespace's label as the protocol has it: bare."""
    body = answer.json()
    if isinstance(body, str):
        return body
    return body["error"]["message"] if "detail" not in body else body["detail"]


@asynccontextmanager
async def battery_on(http: httpx.AsyncClient) -> AsyncGenerator[Battery]:
    """A battery with things to aim at. Afterwards nothing is stuck and everything can still be listed."""
    things = await make_things(http)
    yield Battery(http, things)
    await comes_to_rest(http)
    for part in ("runs?limit=1000", "history?limit=1000", "state"):
        answer = await http.get(f"/threads/{things.thread_id}/{part}")
        assert answer.status_code in (200, 404), (part, answer.text[:300])  # some tests delete it


async def make_things(http: httpx.AsyncClient) -> Things:
    """A thread with a run and a state, and an assistant."""
    thread = (await http.post("/threads", json={})).json()
    path = f"/threads/{thread['thread_id']}"
    await http.post(f"{path}/runs/wait", json={"assistant_id": "steps", "input": {"n": 0}})
    runs, state = (await http.get(f"{path}/runs")).json(), (await http.get(f"{path}/state")).json()
    assistant = (await http.post("/assistants", json={"graph_id": "nested"})).json()
    return Things(thread["thread_id"], runs[0]["run_id"], assistant["assistant_id"], state["checkpoint_id"])


async def comes_to_rest(http: httpx.AsyncClient) -> None:
    """Every run ends, every thread is free, everything can be listed.

    Raises:
        AssertionError: not so.
    """

    async def nothing_is_busy() -> bool:
        answer = await http.post("/threads/search", json={"status": "busy", "limit": 1000, "select": ["thread_id"]})
        return answer.status_code == 200 and answer.json() == []

    await eventually(nothing_is_busy)
    for path in ("/threads/search", "/assistants/search"):
        offset = 0
        while True:
            answer = await http.post(path, json={"limit": 1000, "offset": offset})
            assert answer.status_code == 200, answer.text
            assert all(isinstance(item, dict) for item in answer.json())
            if "X-Pagination-Next" not in answer.headers:
                break
            offset = int(answer.headers["X-Pagination-Next"])
