"""What the server answers is what its OpenAPI document declares: all operations' success, and much that goes wrong."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from e2e.operations import DOCUMENT, EVERY, Described
from live_server import LiveServer

pytestmark = pytest.mark.anyio

NOBODY = "00000000-0000-4000-8000-000000000000"
NOT_WALKED = {
    "call_mcp": "a transport of its own, driven by MCP's client",
    "call_a2a": "JSON-RPC, driven by A2A's client",
    "stream_thread": "ends only when its client leaves",
    "stream_events": "ends only when its client leaves",
    "post_command": "JSON-RPC of the event protocol",
    "get_delivery": "needs a receiver of webhooks",
    "replay_delivery": "needs a receiver of webhooks",
    "read_audit_log": "the project keeps none; test_audit.py",
    "verify_audit_log": "likewise",
    "get_level": "the project has no levels; test_guard_api_levels.py",
    "set_level": "likewise",
    "clear_level": "likewise",
    "grant_more": "the project has no budgets; test_guard_api.py",
}


class Watch:
    """Checks each answer against the document, and remembers which operations have answered how."""

    def __init__(self) -> None:
        self.seen: dict[str, set[int]] = {}

    async def __call__(self, answer: httpx.Response) -> None:
        await answer.aread()
        operation = _operation_of(answer.request)
        declared = operation.spec["responses"]
        status = str(answer.status_code)
        assert status in declared, (str(operation), status, answer.text)
        self.seen.setdefault(operation.spec["operationId"], set()).add(answer.status_code)
        contents: dict[str, Any] = declared[status].get("content", {})
        if not contents:
            assert answer.content == b"", (str(operation), status, answer.text)
            return
        media = answer.headers["content-type"].partition(";")[0]
        assert media in contents, (str(operation), status, media)
        if media == "application/json":
            schema = {**contents[media]["schema"], "components": DOCUMENT["components"]}
            errors = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(answer.json())]
            assert not errors, (str(operation), status, errors, answer.text[:500])


def _operation_of(request: httpx.Request) -> Described:
    given = request.url.path.split("/")
    fitting = [
        operation
        for operation in EVERY
        if operation.method == request.method and _fits(operation.path.split("/"), given)
    ]
    return min(fitting, key=lambda operation: operation.path.count("{"))


def _fits(wanted: list[str], given: list[str]) -> bool:
    return len(wanted) == len(given) and all(w == g or w.startswith("{") for w, g in zip(wanted, given, strict=True))


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def walk(live_server: LiveServer, watch: Watch) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=live_server.url, timeout=60, event_hooks={"response": [watch]}) as client:
        yield client


async def test_every_operation_answers_as_it_is_described(walk: httpx.AsyncClient, watch: Watch) -> None:
    for path in ("/ok", "/health", "/ready", "/info", "/metrics", "/metrics?format=json"):
        await walk.get(path)
    await _assistants(walk)
    await _threads(walk)
    await _runs(walk)
    await _crons(walk)
    await _store(walk)
    await _openai(walk)
    await _guards(walk)
    await walk.get("/.well-known/agent-card.json?assistant_id=chat")
    await walk.get("/webhooks/deliveries")
    named = {operation.spec["operationId"] for operation in EVERY}
    succeeded = {name for name, statuses in watch.seen.items() if any(status < 300 for status in statuses)}
    assert named - succeeded - NOT_WALKED.keys() == set()


async def _assistants(walk: httpx.AsyncClient) -> None:
    made = (await walk.post("/assistants", json={"graph_id": "nested", "name": "walked"})).json()
    at = f"/assistants/{made['assistant_id']}"
    await walk.post("/assistants", json={"graph_id": "nested", "assistant_id": made["assistant_id"]})
    await walk.post("/assistants", json={"graph_id": "nobody's"})
    await walk.post("/assistants/search", json={"select": ["name"]})
    await walk.post("/assistants/search", json={"limit": 0})
    await walk.post("/assistants/count", json={})
    for rest in ("", "/graph", "/graph?xray=true", "/subgraphs", "/subgraphs/child", "/schemas"):
        await walk.get(at + rest)
        await walk.get(f"/assistants/{NOBODY}{rest}")
    await walk.patch(at, json={"metadata": {"a": 1}})
    await walk.post(f"{at}/versions", json={})
    await walk.post(f"{at}/latest", json={"version": 1})
    await walk.delete(at)
    await walk.delete(at)


async def _threads(walk: httpx.AsyncClient) -> None:
    thread_id = (await walk.post("/threads", json={"metadata": {"graph_id": "hitl"}})).json()["thread_id"]
    at = f"/threads/{thread_id}"
    await walk.post("/threads", json={"thread_id": thread_id})
    await walk.get(f"{at}/state")
    await walk.post(f"{at}/runs/wait", json={"assistant_id": "hitl", "input": {"n": 0}})
    state = (await walk.get(f"{at}/state?subgraphs=true")).json()
    for rest in ("", "?include=ttl", "/storage", "/history?limit=5", f"/state/{state['checkpoint_id']}"):
        await walk.get(at + rest)
    await walk.post(f"{at}/state/checkpoint", json={"checkpoint": {"checkpoint_id": state["checkpoint_id"]}})
    await walk.post(f"{at}/history", json={"limit": 5})
    await walk.post(f"{at}/state", json={"values": {"n": 3}, "as_node": "ask"})
    await walk.post(f"{at}/state", json={"values": {"n": 3}, "as_node": "nobody"})
    await walk.patch(at, json={"metadata": {"x": 1}, "ttl": {"ttl": 5}})
    await walk.post("/threads/search", json={"ids": [thread_id], "extract": {"n": "values.n"}})
    await walk.post("/threads/search", json={"ids": [thread_id], "select": ["status"]})
    await walk.post("/threads/count", json={"status": "idle"})
    await walk.post(f"{at}/copy")
    await walk.post(f"/threads/{NOBODY}/copy")
    await walk.post("/threads/prune", json={"thread_ids": [NOBODY]})
    await walk.delete(at)
    for method, rest in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/state"), ("GET", "/storage")):
        await walk.request(method, at + rest, json={} if method == "PATCH" else None)


async def _runs(walk: httpx.AsyncClient) -> None:
    at = f"/threads/{(await walk.post('/threads', json={})).json()['thread_id']}"
    body = {"assistant_id": "steps", "input": {"n": 0}, "stream_resumable": True}
    run = (await walk.post(f"{at}/runs", json=body)).json()["run_id"]
    for rest in ("/join", "/stream", ""):
        await walk.get(f"{at}/runs/{run}{rest}")
    await walk.post(f"{at}/runs/stream", json=body)
    await walk.post(f"{at}/runs/wait", json={"assistant_id": "fail", "input": {"n": 0}})
    await walk.get(f"{at}/runs?select=status")
    long = {"assistant_id": "slow", "input": {"n": 100, "delay": 1}}
    for query in ("?wait=1", "?wait=0"):
        slow = (await walk.post(f"{at}/runs", json=long)).json()["run_id"]
        await walk.post(f"{at}/runs/{slow}/cancel{query}")
        await walk.get(f"{at}/runs/{slow}/join")
    await walk.post(f"{at}/runs/{run}/cancel")
    slow = (await walk.post(f"{at}/runs", json=long)).json()["run_id"]
    await walk.post(f"{at}/runs", json={**body, "multitask_strategy": "reject"})
    await walk.post("/runs/cancel", json={"thread_id": at.split("/")[2], "run_ids": [slow]})
    await walk.delete(f"{at}/runs/{run}")
    await walk.delete(f"{at}/runs/{run}")
    stateless = (await walk.post("/runs", json={**body, "on_completion": "keep"})).json()["run_id"]
    await walk.get(f"/runs/{stateless}/stream")
    await walk.post("/runs/stream", json=body)
    await walk.post("/runs/wait", json=body)
    await walk.post("/runs/wait", json={"assistant_id": NOBODY})
    await walk.post("/runs/batch", json=[body, body])
    await walk.post("/runs/batch", json=[])


async def _crons(walk: httpx.AsyncClient) -> None:
    thread_id = (await walk.post("/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "steps", "schedule": "0 0 1 1 *", "input": {"n": 0}}
    made = [
        (await walk.post(path, json=body)).json()["cron_id"]
        for path in ("/runs/crons", f"/threads/{thread_id}/runs/crons")
    ]
    await walk.post(f"/threads/{NOBODY}/runs/crons", json=body)
    await walk.post("/runs/crons", json={"assistant_id": "steps", "schedule": "never"})
    await walk.post("/runs/crons/search", json={"thread_id": thread_id})
    await walk.post("/runs/crons/count", json={})
    for cron_id in made:
        await walk.get(f"/runs/crons/{cron_id}")
        await walk.patch(f"/runs/crons/{cron_id}", json={"enabled": False})
        await walk.delete(f"/runs/crons/{cron_id}")
        await walk.get(f"/runs/crons/{cron_id}")


async def _store(walk: httpx.AsyncClient) -> None:
    space = f"walk{uuid.uuid4().hex}"
    await walk.put("/store/items", json={"namespace": [space, "u1"], "key": "k", "value": {"a": 1}})
    await walk.put("/store/items", json={"namespace": [], "key": "k", "value": {"a": 1}})
    for key in ("k", "nothing"):
        await walk.get(f"/store/items?namespace={space}.u1&key={key}")
    await walk.post("/store/items/search", json={"namespace_prefix": [space], "query": "a"})
    await walk.post("/store/namespaces", json={"prefix": [space]})
    await walk.request("DELETE", "/store/items", json={"namespace": [space, "u1"], "key": "k"})


async def _openai(walk: httpx.AsyncClient) -> None:
    await walk.get("/v1/models")
    await walk.get("/v1/models/chat")
    await walk.get("/v1/models/nobody")
    chat: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
    asked: dict[str, Any] = {"model": "chat", "input": "hi"}
    chats: list[dict[str, Any]] = [{}, {"stream": True}, {"model": "nobody"}, {"messages": []}]
    for other in chats:
        await walk.post("/v1/chat/completions", json=chat | other)
    for other in ({"stream": True}, {"background": True}, {"model": "steps"}):
        await walk.post("/v1/responses", json=asked | other)
    made = await walk.post("/v1/responses", json=asked)
    at = f"/v1/responses/{made.json()['id']}"
    await walk.get(at)
    await walk.get(f"{at}?stream=true")
    for query in ("", "?limit=0", "?after=nothing"):
        await walk.get(f"{at}/input_items{query}")
    await walk.post(f"{at}/cancel")
    await walk.delete(at)
    await walk.get(at)


async def _guards(walk: httpx.AsyncClient) -> None:
    killed = await walk.post("/guards/kill", json={"scope": "user", "id": "walked", "reason": "a walk"})
    await walk.post("/guards/kill", json={"scope": "galaxy", "id": "walked"})
    await walk.get("/guards/kill")
    await walk.delete(f"/guards/kill/{killed.json()['kill_id']}")
    await walk.delete(f"/guards/kill/{NOBODY}")
    for path in ("budgets", "ledger", "ledger?limit=0", "level", "breakers"):
        await walk.get(f"/guards/{path}")
    await walk.post("/guards/grants", json={"scope": "user", "owner": "walked", "amount": 1})
    await walk.put("/guards/level", json={"level": "reduced", "for_s": 1, "name": "walked"})
    await walk.put("/guards/level", json={"level": "lower"})
    await walk.delete("/guards/level?name=walked")
    await walk.post("/guards/estimate", json={"assistant_id": "chat", "input": {"messages": []}})
    await walk.post("/guards/estimate", json={"assistant_id": NOBODY})
