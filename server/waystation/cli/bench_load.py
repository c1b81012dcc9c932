"""Load for `waystation bench`: runs of one graph over HTTP, on any server of the LangGraph Platform API.

    closed loop    `clients` clients, each of which begins its next run when its last one is over
    open loop      runs become due at a fixed `rate`; what waits because all clients are busy counts as latency, too

A run is measured from when it was due to when its last byte was read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

import httpx

from waystation.cli.bench_answers import (
    RunFailed,
    check_values,
    error_in,
    json_of,
    member_of,
    members_of,
    refusal,
    told,
)

Mode = Literal["wait", "stream", "background"]
Threads = Literal["none", "one", "new"]


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be done to a server.

    `threads`: runs without a thread, on one per client, or on a new one each. `runs` and `seconds`: whichever is
    reached first ends it; one of them is given. `rate`: runs per second, None for a closed loop.
    """

    url: str
    graph: str
    mode: Mode = "wait"
    threads: Threads = "none"
    input: Any = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    clients: int = 16
    runs: int | None = None
    seconds: float | None = None
    rate: float | None = None
    timeout_s: float = 120.0
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. Times in seconds; `due_s` since the load began, the others since the run was due."""

    due_s: float
    began_s: float
    total_s: float
    first_s: float | None = None
    events: int = 0
    error: str | None = None


@dataclass(slots=True)
class Outcome:
    """What a load came to."""

    samples: list[Sample]
    took_s: float
    cut_short: bool = False


async def drive(load: Load, *, on_sample: Callable[[Sample], None], stop: asyncio.Event | None = None) -> Outcome:
    """Put the load on the server; returns what was measured until it was over, or until `stop` was set."""
    async with _client(load) as client:
        driver = _Driver(load, client, on_sample, stop or asyncio.Event())
        try:
            return await driver.run()
        finally:
            if not load.keep:
                await driver.tidy()


async def reach(load: Load) -> dict[str, Any]:
    """The server's `/info`, after one run of the graph: fails at once where nothing could be measured.

    Raises:
        RunFailed: the server does not answer, or the run failed.
    """
    async with _client(load) as client:
        try:
            answer = await client.get("/info")
        except (httpx.HTTPError, ValueError) as error:
            raise RunFailed(f"{load.url} does not answer: {told(error)}") from None
        info = members_of(answer) if answer.is_success else {}
        driver = _Driver(load, client, lambda _: None, asyncio.Event())
        try:
            sample = await driver.one(0, monotonic(), monotonic())
        finally:
            await driver.tidy()
    if sample.error is not None:
        raise RunFailed(f"a first run of {load.graph!r} on {load.url} failed: {sample.error}")
    return info


def _client(load: Load) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=load.clients + 2, max_keepalive_connections=load.clients + 2)
    timeout = httpx.Timeout(load.timeout_s, pool=None)
    return httpx.AsyncClient(
        base_url=load.url, headers=dict(load.headers), limits=limits, timeout=timeout, trust_env=False
    )


class _Driver:
    """The clients of one load."""

    def __init__(
        self, load: Load, client: httpx.AsyncClient, on_sample: Callable[[Sample], None], stop: asyncio.Event
    ) -> None:
        self._load, self._client, self._on_sample, self._stop = load, client, on_sample, stop
        self._body = {"assistant_id": load.graph, "input": load.input, "config": dict(load.config)}
        if load.mode == "stream":
            self._body["stream_mode"] = ["values", "messages-tuple"]
        if load.mode == "background" and load.threads == "none":
            self._body["on_completion"] = "keep"  # what is deleted at its end cannot be joined
        self._threads: list[str] = []
        self._of_client: dict[int, str] = {}
        self._samples: list[Sample] = []
        self._began = monotonic()
        self._numbers = iter(range(load.runs)) if load.runs is not None else iter(range(2**62))

    async def run(self) -> Outcome:
        self._began = monotonic()
        clients = [asyncio.create_task(self._work(number)) for number in range(self._load.clients)]
        stopped = asyncio.create_task(self._stop.wait())
        working = asyncio.create_task(asyncio.wait(clients, return_when=asyncio.FIRST_EXCEPTION))
        try:
            await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
            for client in clients:
                if client.done():
                    client.result()
        finally:
            for task in (*clients, stopped, working):
                task.cancel()
            await asyncio.wait((*clients, stopped, working))
        return Outcome(self._samples, monotonic() - self._began, cut_short=self._stop.is_set())

    async def _work(self, client: int) -> None:
        for number in self._numbers:
            due = monotonic()
            if self._load.rate is not None:
                due = self._began + number / self._load.rate
                if self._is_over(due):
                    return
                await asyncio.sleep(max(0.0, due - monotonic()))
            elif self._is_over(due):
                return
            sample = await self.one(client, due, self._began)
            self._samples.append(sample)
            self._on_sample(sample)

    def _is_over(self, due: float) -> bool:
        return self._load.seconds is not None and due - self._began >= self._load.seconds

    async def one(self, client: int, due: float, origin: float) -> Sample:
        """One run, whatever becomes of it."""
        first: float | None = None
        events, error, began = 0, None, monotonic()
        try:
            async with asyncio.timeout(self._load.timeout_s):
                path = await self._path(client)
                match self._load.mode:
                    case "wait":
                        await self._wait(path)
                    case "background":
                        await self._background(path)
                    case "stream":
                        async with contextlib.aclosing(self._stream(path)) as names:
                            async for _ in names:
                                first = first or monotonic()
                                events += 1
        except TimeoutError:
            error = f"no end within {self._load.timeout_s:g} s"
        except (RunFailed, httpx.HTTPError, ValueError) as failed:
            error = told(failed)
        return Sample(due - origin, began - due, monotonic() - due, first and first - due, events, error)

    async def _path(self, client: int) -> str:
        if self._load.threads == "none":
            return "/runs"
        thread = self._of_client.get(client) if self._load.threads == "one" else None
        if thread is None:
            made = await self._client.post("/threads", json={"metadata": {"bench": True}})
            thread = member_of(made, "thread_id")
            self._threads.append(thread)
            self._of_client[client] = thread
        return f"/threads/{thread}/runs"

    async def _wait(self, path: str) -> None:
        check_values(json_of(await self._client.post(f"{path}/wait", json=self._body)))

    async def _background(self, path: str) -> None:
        made = await self._client.post(path, json=self._body)
        thread, run = member_of(made, "thread_id"), member_of(made, "run_id")
        if path == "/runs":
            self._threads.append(thread)  # whatever becomes of the run
        check_values(json_of(await self._client.get(f"/threads/{thread}/runs/{run}/join")))

    async def _stream(self, path: str) -> AsyncGenerator[str]:
        """The names of the events."""
        name = ""
        async with self._client.stream("POST", f"{path}/stream", json=self._body) as answer:
            if not answer.is_success:
                await answer.aread()
                raise RunFailed(refusal(answer))
            kind = answer.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise RunFailed(f"POST {path}/stream answered with {kind or 'no content type'}, not with events")
            async for line in answer.aiter_lines():
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    if name == "error":
                        raise RunFailed(f"error event: {error_in(line[5:].strip())}")
                    yield name
        if not name:
            raise RunFailed("the stream ended without an event")

    async def tidy(self) -> None:
        """Delete the threads that were made."""
        pending = iter(self._threads)

        async def delete() -> None:
            for thread in pending:
                with contextlib.suppress(httpx.HTTPError):
                    await self._client.delete(f"/threads/{thread}")

        await asyncio.gather(*(delete() for _ in range(min(self._load.clients, 8))))
        self._threads.clear()
