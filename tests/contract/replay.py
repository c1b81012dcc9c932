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
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from contract.compare import Difference, compare_exchange
from contract.normalise import FIXED_IDS, Ids

DEADLINE_S: Final = 60.0
MOMENT_S: Final = 0.5
LISTENS_S: Final = 1.5
SILENCE_S: Final = 2.0
TURNS: Final = 20
_THREAD = re.compile(r"^/threads/([0-9a-f-]{36})(/|$|\?)")
_KEPT_HEADERS: Final = (
    *("content-type", "location", "content-location", "x-pagination-total", "x-pagination-next", "cache-control"),
    *("x-accel-buffering", "allow", "www-authenticate", "retry-after", "transfer-encoding", "vary"),
    *("access-control-allow-origin", "access-control-expose-headers", "access-control-allow-methods"),
    *("access-control-allow-headers", "access-control-allow-credentials", "access-control-max-age"),
)

_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
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
        self._is_open = asyncio.Event()

    async def run(self, recorded: list[dict[str, Any]]) -> AsyncIterator[Difference]:
        """Every difference, step by step."""
        seen = Counter[str]()
        async with self.hook.open():
            steps = [exchange for exchange in recorded if "step" in exchange]
            watching: asyncio.Task[dict[str, Any]] | None = None
            for exchange, following in zip(steps, [*steps[1:], None], strict=True):
                step = exchange["step"]
                seen[step] += 1
                where = f"{self._scenario}/{step}" + (f" ({seen[step]})" if seen[step] > 1 else "")
                silent = SILENT.get(where, make_thread)
                await silent(self, exchange)
                if following is not None and f"{self._scenario}/{following['step']}" in WATCHED:
                    watching = await self._watch(following)
                if where in WATCHED and watching is not None:
                    answered, watching = await watching, None
                elif (meanwhile := _meanwhile(where)) is not None:
                    watching = await self._watch(exchange)
                    await meanwhile(self, exchange)
                    answered, watching = await watching, None
                else:
                    answered = await self._answered(exchange)
                for difference in compare_exchange(where, exchange, answered, self.ids):
                    yield difference

    async def _watch(self, exchange: dict[str, Any]) -> asyncio.Task[dict[str, Any]]:
        """Begin a step whose stream was open before the step that stands above it."""
        self._is_open.clear()
        task = asyncio.create_task(self._answered(exchange))
        await self._is_open.wait()
        for _ in range(TURNS):  # the server begins to listen, and nothing says so to a client
            await asyncio.sleep(LISTENS_S / TURNS)
            await self.client.post("/threads/count", json={})  # as slow as what it does meanwhile
        return task

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
        if request["method"] == "WEBSOCKET":
            frames = await self._talk(request["path"], exchange["response"]["frames"])
            return {"step": exchange["step"], "request": request, "response": {"frames": frames}}
        built = self.client.build_request(request["method"], request["path"], content=content, headers=headers)
        response = await self.client.send(built, stream=True)
        self._is_open.set()
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
        """All events, or as many as the recorder read before it closed the connection; one heartbeat stands for all."""
        expected: list[dict[str, Any]] = recorded.get("events", [])
        leaves = recorded.get("end") not in (None, "server closed the stream")
        events: list[dict[str, Any]] = []
        if not expected and (leaves or "events" not in recorded):
            return {"events": await _for_a_moment(response), "end": recorded.get("end")}
        async for event in sse(response.aiter_lines()):
            if len(events) < len(expected) and "-" in event.get("id", "") and "id" in expected[len(events)]:
                self._events[expected[len(events)]["id"]] = event["id"]
            if "comment" in event and "comment" not in expected[len(events)]:
                if _is_terminal(events):
                    break  # the end came, and no more
                continue
            events.append(event)
            if leaves and len(events) == len(expected):
                break
            if "comment" in event:  # and so on, every five seconds
                events += expected[len(events) :]
                break
        return {"events": events, "end": recorded.get("end") if leaves else "server closed the stream"}

    async def _talk(self, path: str, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One socket: what was sent is sent, what was received is waited for, in the recorded order."""
        frames: list[dict[str, Any]] = []
        address = str(self.client.base_url).rstrip("/").replace("http", "ws", 1) + path
        async with connect(address) as socket:
            for frame in recorded:
                if "sent" in frame:
                    sent = self.ours(frame["sent"])
                    await socket.send(sent if isinstance(sent, str) else json.dumps(sent))
                    frames.append({"sent": sent})
                    continue
                try:
                    async with asyncio.timeout(SILENCE_S):
                        received = json.loads(await socket.recv())
                except TimeoutError:
                    frames.append({"silence": True})
                    continue
                except ConnectionClosed as closed:
                    end = closed.rcvd
                    frames.append({"closed": {"code": end and end.code, "reason": end and end.reason}})
                    break
                frames.append({"received": received})
                self._learn(frame, received)
        return frames

    def _learn(self, frame: dict[str, Any], received: dict[str, Any]) -> None:
        """An interrupt's id is needed for the answer that the next frame sends."""
        theirs, ours = json.dumps(frame.get("received")), json.dumps(received)
        if "interrupt_id" in theirs and "interrupt_id" in ours:
            self.ids.match_all(_HEX.findall(theirs), _HEX.findall(ours))


def _is_terminal(events: list[dict[str, Any]]) -> bool:
    data: Any = events[-1].get("data") if events else None
    return isinstance(data, dict) and cast("dict[str, Any]", data).get("method") == "lifecycle"


async def _a_while(seconds: float) -> None:
    """Seconds in which this process runs: those in which the machine had no time for it count little."""
    for _ in range(TURNS):
        await asyncio.sleep(seconds / TURNS)


async def _for_a_moment(response: httpx.Response) -> list[dict[str, Any]]:
    """What comes where the recorder waited in vain."""
    events: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(MOMENT_S):
            async for event in sse(response.aiter_lines()):
                events.append(event)  # noqa: PERF401  # what came before the time was up counts
    except TimeoutError:
        pass
    return events


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


async def asked(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until the thread asks what the step answers; learn the questions' ids, in the order they are asked in."""
    thread = replay.ours(exchange["request"]["path"]).partition("/commands")[0]
    await _until(replay, thread, lambda found: found["status"] == "interrupted")
    questions = (await replay.client.get(thread)).json()["interrupts"]
    known = {ours for _, ours in replay.ids.pairs()}
    asked = sorted((str(question["value"]), question["id"]) for task in questions.values() for question in task)
    new = [interrupt_id for _, interrupt_id in asked if interrupt_id not in known]
    named = _HEX.findall(json.dumps(exchange["request"]["body"]))
    for theirs, ours in zip([one for one in named if not replay.ids.knows(one)], new, strict=False):
        replay.ids.match(theirs, ours)


async def an_agent_ran(replay: Replay, exchange: dict[str, Any]) -> None:
    """Make the thread and let the agent add two numbers on it."""
    await make_thread(replay, exchange)
    body = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "add 1 2"}]}}
    path = replay.ours(exchange["request"]["path"]).partition("/commands")[0]
    assert (await replay.client.post(f"{path}/runs/wait", json=body)).status_code == 200


async def past_known(replay: Replay, exchange: dict[str, Any]) -> None:
    """Learn the id of the checkpoint that the step names: the one after the model's first answer."""
    path = replay.ours(exchange["request"]["path"]).partition("/commands")[0]
    history = (await replay.client.get(f"{path}/history?limit=10")).json()
    named = exchange["request"]["body"]["params"]["checkpoint_id"]
    assert replay.ids.match(named, next(s["checkpoint_id"] for s in history if s["metadata"]["step"] == 1))


async def an_update_and_two_runs(replay: Replay, exchange: dict[str, Any]) -> None:
    """Change the thread's state, let a run succeed and another one fail."""
    thread = replay.ours(exchange["request"]["path"]).partition("/stream")[0]
    await replay.client.post(f"{thread}/state", json={"values": {"log": ["x"]}, "as_node": "a"})
    steps = {"assistant_id": "steps", "input": {"n": 0}, "stream_mode": ["values", "updates"]}
    await replay.client.post(f"{thread}/runs/wait", json=steps)
    await replay.client.post(f"{thread}/runs/wait", json={"assistant_id": "fail", "input": {"n": 0}})


async def a_cancelled_run(replay: Replay, exchange: dict[str, Any]) -> None:
    """Begin a run, and cancel it a moment later."""
    thread = replay.ours(exchange["request"]["path"]).partition("/stream")[0]
    body = {"assistant_id": "slow", "input": {"n": 30}}
    run = (await replay.client.post(f"{thread}/runs", json=body)).json()
    await _until(replay, f"{thread}/runs/{run['run_id']}", lambda found: found["status"] == "running")
    await _a_while(SILENCE_S)
    await replay.client.post(f"{thread}/runs/{run['run_id']}/cancel")


async def a_resumable_run(replay: Replay, exchange: dict[str, Any]) -> None:
    """Make the thread, and a run on it whose events are kept."""
    await make_thread(replay, exchange)
    thread = replay.ours(exchange["request"]["path"]).partition("/stream")[0]
    body = {"assistant_id": "steps", "input": {"n": 0}, "stream_resumable": True}
    await replay.client.post(f"{thread}/runs/wait", json=body)


def _meanwhile(where: str) -> Silent | None:
    if where.startswith("16-thread-stream/GET stream"):
        return an_update_and_two_runs
    return a_cancelled_run if where == "16-thread-stream/while a run is cancelled" else None


async def begun(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until the run that the step cancels has begun."""
    path = replay.ours(exchange["request"]["path"]).partition("/cancel")[0]
    await _until(replay, path, lambda run: run["status"] == "running")


async def settled_run(replay: Replay, exchange: dict[str, Any]) -> None:
    """Wait until the run that the step shows is final."""
    await _until(replay, replay.ours(exchange["request"]["path"]), lambda run: run["status"] == "success")


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


WATCHED: Final = frozenset(
    {
        "16-thread-stream/while a state update is made",
        "17-events/a classic run watched through the protocol",
        "24-events-classic/steps, many stream modes",
        "24-events-classic/agent, many stream modes",
        "24-events-classic/nested, many stream modes, an interrupt",
        "24-events-classic/breakpoint",
        "24-events-classic/messages made in the older way, live",
    }
)
"""Streams that were open while the run of the step before them was executed."""

SILENT: Final[dict[str, Silent]] = {
    "18-events-input/input.respond": asked,
    "18-events-input/input.respond with update, metadata": asked,
    "18-events-input/input.respond: many": asked,
    "18-events-input/input.respond: one of two": asked,
    "18-events-input/input.respond with the root namespace": asked,
    "18-events-input/run.start with new input while interrupted": settled,
    "18-events-input/run.start with null input while interrupted": settled,
    "17-events/the thread it made": settled,
    "18-events-input/thread": settled,
    "18-events-input/thread (2)": settled,
    "18-events-input/thread (3)": settled,
    "18-events-input/thread (4)": settled,
    "16-thread-stream/GET stream while a state update and two runs go by": thread_with(graph_id="steps"),
    "16-thread-stream/Last-Event-ID 0-0 after a resumable run": a_resumable_run,
    "16-thread-stream/state update": thread_with(graph_id="steps"),
    "19-events-errors/agent.getTree after a run": an_agent_ran,
    "19-events-errors/state.fork": past_known,
    "19-events-errors/run.start from a checkpoint via config": settled,
    "19-events-errors/history after it": settled,
    "21-events-all-channels/input.respond": asked,
    "21-events-all-channels/the run it made (kwargs)": settled_run,
    "17-events/cancel over HTTP": begun,
    "17-events/roll back over HTTP": begun,
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
