"""Clients that never stop: the official SDK, each request tried once more, and nothing believed that was not checked.

wait         create a run and wait for its output                     stream     a resumable stream, token by token
background   create a run, then join it                               read       a thread's state, and a list
"""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast

import httpx
from langgraph_sdk import get_client

_PAUSE_S = 1.0
"""Before the second try."""


@dataclass
class Counts:
    """What the clients saw."""

    requests: Counter[str] = field(default_factory=Counter[str])
    retried: Counter[str] = field(default_factory=Counter[str])
    """First tries that failed, by what was wrong."""
    failed: list[str] = field(default_factory=list[str])
    """Requests that failed twice."""
    wrong: list[str] = field(default_factory=list[str])
    """Answers and streams that are not what the run must give."""
    went_on: Counter[str] = field(default_factory=Counter[str])
    """What was cut off and taken up again by the SDK itself, where it had stopped."""
    longest_s: dict[str, float] = field(default_factory=dict[str, float])


class Clients:
    """Clients on one URL; `work` goes on until `stop` is set, and then finishes what it began."""

    def __init__(self, url: str, *, long_s: float) -> None:
        self.counts = Counts()
        self.stop = asyncio.Event()
        self._url, self._long_s = url, long_s

    async def work(self, *, of_each: int = 2) -> None:
        """So many clients of each kind at a time."""
        kinds = (self._wait, self._stream, self._background, self._read)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK warns whenever it reconnects, which is what we are here for
            async with asyncio.TaskGroup() as tasks:
                for kind in kinds * of_each:
                    tasks.create_task(self._again_and_again(kind))

    async def _again_and_again(self, kind: Callable[[Any], Awaitable[None]]) -> None:
        async with get_client(url=self._url, api_key=None) as client:
            client.http.client.event_hooks["request"].append(self._note)
            while not self.stop.is_set():
                await kind(client)

    async def _note(self, request: httpx.Request) -> None:
        """The SDK takes up what was cut off at the address that the answer named."""
        if "Last-Event-ID" in request.headers:
            self.counts.went_on["stream"] += 1
        elif request.method == "GET" and request.url.path.endswith("/join"):
            self.counts.went_on["wait or join"] += 1

    async def _wait(self, client: Any) -> None:
        thread = str(uuid.uuid4())
        given = {"steps": 2, "tokens": 2, "token_s": 0.05}
        output = await self._tried(
            "wait",
            lambda headers: client.runs.wait(thread, "paced", input=given, if_not_exists="create", headers=headers),
        )
        self._check("wait", output, steps=2)

    async def _background(self, client: Any) -> None:
        """Longer than a pod lives, at the given pace: the run is handed over at a step."""
        thread, steps = str(uuid.uuid4()), 6
        given = {"steps": steps, "tokens": 1, "token_s": self._long_s / steps}
        run = await self._tried(
            "create",
            lambda headers: client.runs.create(thread, "paced", input=given, if_not_exists="create", headers=headers),
        )
        if run is not None:
            run_id = str(run["run_id"])
            output = await self._tried("join", lambda headers: client.runs.join(thread, run_id, headers=headers))
            self._check("join", output, steps=steps)

    async def _read(self, client: Any) -> None:
        thread = await self._tried("thread", lambda headers: client.threads.create(headers=headers))
        if thread is None:
            return
        thread_id = str(thread["thread_id"])
        for _ in range(20):
            await self._tried("state", lambda headers: client.threads.get_state(thread_id, headers=headers))
            await self._tried("search", lambda headers: client.threads.search(limit=3, headers=headers))
            await asyncio.sleep(0.1)

    async def _stream(self, client: Any) -> None:
        """A stream has no second try of ours: what the SDK does by itself has to do, once it has begun."""
        thread, steps, tokens = str(uuid.uuid4()), 3, 20
        given = {"steps": steps, "tokens": tokens, "token_s": self._long_s / steps / tokens}
        seen = list[Any]()

        async def read(headers: dict[str, str]) -> bool:
            parts = client.runs.stream(
                thread,
                "paced",
                input=given,
                stream_mode="custom",
                stream_resumable=True,
                if_not_exists="create",
                headers=headers,
            )
            async for part in parts:
                if part.event == "custom":
                    seen.append(part.data)
                elif part.event == "error":
                    self.counts.wrong.append(f"stream: {part.data}")
            return True

        if await self._tried("stream", read) is None:
            return
        # A step that was cut off is executed again, from its first token; one that was committed never.
        last = {(step, token): n for n, (step, token) in enumerate(seen)}
        wanted = [(step, token) for step in range(steps) for token in range(tokens)]
        if sorted(last, key=lambda at: last[at]) != wanted:
            self.counts.wrong.append(f"stream: {seen}")

    async def _tried(self, name: str, ask: Callable[[dict[str, str]], Awaitable[Any]]) -> Any:
        """The answer to a request; None when it failed twice."""
        began = monotonic()
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        self.counts.requests[name] += 1
        for is_last in (False, True):
            try:
                async with asyncio.timeout(120):
                    return await ask(headers)
            except (httpx.HTTPError, TimeoutError) as error:
                told = f"{name}: {type(error).__name__} {str(error)[:80]}"
                if is_last:
                    self.counts.failed.append(told)
                else:
                    self.counts.retried[told] += 1
                    await asyncio.sleep(_PAUSE_S)
            finally:
                taken = monotonic() - began
                self.counts.longest_s[name] = max(taken, self.counts.longest_s.get(name, 0.0))
        return None

    def _check(self, name: str, output: Any, *, steps: int) -> None:
        if output is None:
            return
        done = cast("dict[str, Any]", output).get("done") if isinstance(output, dict) else None
        if done != list(range(steps)):
            self.counts.wrong.append(f"{name}: {str(cast(object, output))[:200]}")
