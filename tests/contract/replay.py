"""Replays the requests of a transcript against a live server, and compares every answer with the recorded one.

The requests name ids that other answers gave; as the answers are compared, it is learnt which of our ids stands for
which of the reference's, and the next request is translated. What a recording does not show, because the recorder did
it silently between two steps, is in `SILENT`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import httpx

from contract.compare import Difference, compare_exchange
from contract.normalise import FIXED_IDS, Ids

DEADLINE_S: Final = 20.0
_THREAD = re.compile(r"^/threads/([0-9a-f-]{36})(/|$|\?)")
_KEPT_HEADERS: Final = (
    *("content-type", "location", "content-location", "x-pagination-total", "x-pagination-next", "cache-control"),
    *("x-accel-buffering", "allow", "www-authenticate", "retry-after", "transfer-encoding", "vary"),
    *("access-control-allow-origin", "access-control-expose-headers", "access-control-allow-methods"),
    *("access-control-allow-headers", "access-control-allow-credentials", "access-control-max-age"),
)

_HOOK = re.compile(r"http://127\.0\.0\.1:\d+/hook")

Silent = Callable[["Replay", dict[str, Any]], Awaitable[None]]
"""Something done before a step that is in no recording; it gets the step."""


class Hook:
    """Receives the webhooks of a scenario, as requests like those of a transcript."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.received = asyncio.Queue[dict[str, Any]]()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Listen until the block is left."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        async with server:
            yield

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        method, path, _ = head.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        body = json.loads(await reader.readexactly(int(headers["Content-Length"])))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        self.received.put_nowait({"method": method, "path": path, "headers": headers, "body": body})


class Replay:
    """One scenario against one server."""

    def __init__(self, client: httpx.AsyncClient, scenario: str) -> None:
        self.client = client
        self.ids = Ids()
        self._scenario = scenario
        self.hook = Hook()
        self._events: dict[str, str] = {}

    async def run(self, recorded: list[dict[str, Any]]) -> AsyncIterator[Difference]:
        """Every difference, step by step."""
        seen = Counter[str]()
        async with self.hook.open():
            for exchange in recorded:
                if "step" not in exchange:
                    continue
                step = exchange["step"]
                seen[step] += 1
                where = f"{self._scenario}/{step}" + (f" ({seen[step]})" if seen[step] > 1 else "")
                silent = SILENT.get(where, make_thread)
                await silent(self, exchange)
                for difference in compare_exchange(where, exchange, await self._answered(exchange), self.ids):
                    yield difference

    def ours(self, value: Any) -> Any:
        """A part of a recorded request with our ids in the place of the reference's."""
        text = json.dumps(value)
        for theirs, ours in (*self.ids.pairs(), *self._events.items()):
            text = text.replace(theirs, ours)
        if self.hook.url is not None:
            text = _HOOK.sub(self.hook.url, text)
        return json.loads(text)

    async def _answered(self, exchange: dict[str, Any]) -> dict[str, Any]:
        if exchange["step"] == "webhook received":
            async with asyncio.timeout(DEADLINE_S):
                received = await self.hook.received.get()
            return {"step": exchange["step"], "request": received, "response": {"status": 200}}
        request = self.ours(exchange["request"])
        content = request.get("raw_body")
        headers = dict(request.get("headers") or {})
        if content is None and "body" in request:
            content = json.dumps(request["body"])
        if content is not None:
            headers.setdefault("content-type", "application/json")
        built = self.client.build_request(request["method"], request["path"], content=content, headers=headers)
        response = await self.client.send(built, stream=True)
        try:
            async with asyncio.timeout(DEADLINE_S):
                answer = await self._read(response, exchange["response"])
        finally:
            await response.aclose()
        return {"step": exchange["step"], "request": request, "response": answer}

    async def _read(self, response: httpx.Response, recorded: Mapping[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in response.headers.items() if k in _KEPT_HEADERS}
        if response.headers.get("content-length") == "0":
            kept["content-length"] = "0"
        answer: dict[str, Any] = {"status": response.status_code, "headers": kept}
        if "event-stream" in response.headers.get("content-type", ""):
            return {**answer, **await self._read_events(response, recorded)}
        await response.aread()
        body: Any = response.text[:1500] or None
        if "json" in response.headers.get("content-type", ""):
            body = response.json()
        cut = cast("dict[str, Any]", recorded["body"]) if isinstance(recorded.get("body"), dict) else {}
        return {**answer, "body": cut if "_cut" in cut else body}

    async def _read_events(self, response: httpx.Response, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """All events, or as many as the recorder read before it closed the connection."""
        expected: list[dict[str, Any]] = recorded.get("events", [])
        leaves = recorded.get("end") not in (None, "server closed the stream")
        events: list[dict[str, Any]] = []
        async for event in sse(response.aiter_lines()):
            if len(events) < len(expected) and "id" in event and "id" in expected[len(events)]:
                self._events[expected[len(events)]["id"]] = event["id"]
            events.append(event)
            if leaves and len(events) == len(expected):
                break
        return {"events": events, "end": recorded.get("end") if leaves else "server closed the stream"}


async def sse(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events as the transcripts show them; comments, too."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield {**fields, "data": json.loads(fields["data"])}
            fields = {}


async def make_thread(replay: Replay, exchange: dict[str, Any], **body: Any) -> None:
    """Make the thread that a step's path names, unless an earlier step did."""
    named = _THREAD.match(exchange["request"]["path"])
    if named is None or named[1] in FIXED_IDS or replay.ids.knows(named[1]):
        return
    request_body: dict[str, Any] = exchange["request"].get("body") or {}
    if request_body.get("if_not_exists") == "create":
        return
    made = (await replay.client.post("/threads", json=body)).json()
    assert replay.ids.match(named[1], made["thread_id"])


def thread_with(**metadata: Any) -> Silent:
    """Make the thread with metadata."""

    async def silent(replay: Replay, exchange: dict[str, Any]) -> None:
        await make_thread(replay, exchange, metadata=metadata)

    return silent


async def settled(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until nothing runs on the step's thread."""
    thread = _THREAD.match(replay.ours(exchange["request"]["path"]))
    assert thread is not None
    await _until(replay, f"/threads/{thread[1]}", lambda thread: thread.get("status") != "busy")


async def begun(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until the run that the step cancels has begun."""
    path = replay.ours(exchange["request"]["path"]).partition("/cancel")[0]
    await _until(replay, path, lambda run: run["status"] == "running")


async def fired_twice(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until the crons of the step before have fired, then stop those that fire every second."""
    path = replay.ours(exchange["request"]["path"]).partition("?")[0]
    await _until(replay, path, lambda runs: len(runs) > 1)
    body = {"metadata": {"from": "kept-cron"}}
    async with asyncio.timeout(DEADLINE_S):
        while (await replay.client.post("/threads/count", json=body)).json() < 2:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)
    for cron in (await replay.client.post("/runs/crons/search", json={})).json():
        if cron["schedule"] == "* * * * * *":
            await replay.client.patch(f"/runs/crons/{cron['cron_id']}", json={"enabled": False})
    await _until(replay, path, lambda runs: all(cast("dict[str, Any]", run)["status"] == "success" for run in runs))


async def working(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until the thread's run has begun."""
    await _until(replay, replay.ours(exchange["request"]["path"]), lambda run: run["status"] == "running")


def background(**body: Any) -> Silent:
    """Make the thread and a run on it whose id the step's path names."""

    async def silent(replay: Replay, exchange: dict[str, Any]) -> None:
        await make_thread(replay, exchange)
        _, _, thread_id, _, run_id, *_ = exchange["request"]["path"].split("/")
        made = (await replay.client.post(f"/threads/{replay.ids.ours(thread_id)}/runs", json=body)).json()
        assert replay.ids.match(run_id, made["run_id"])

    return silent


async def _until(replay: Replay, path: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not wanted((await replay.client.get(path)).json()):  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(0.02)


SILENT: Final[dict[str, Silent]] = {
    "05-runs/create with webhook null": thread_with(**{"from": "thread"}),
    "05-runs/list: newest first": settled,
    "05-runs/delete a running run": working,
    "06-stateless/its thread after": settled,
    "06-stateless/its thread": settled,
    "09-config/config merge": thread_with(tm=1, shared="thread"),
    "14-crons/runs the thread's cron made": fired_twice,
    "15-webhooks/cancel it": begun,
    "15-webhooks/roll it back": begun,
    "12-interrupts/join a run that interrupts": background(assistant_id="hitl", input={"n": 0}),
}
"""What the recorder did before some steps; before all others it made the threads that they name for the first time."""
