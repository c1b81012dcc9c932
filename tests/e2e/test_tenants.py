"""Nobody reads, changes, counts or notices what belongs to another tenant: by any operation of the OpenAPI document.

New operations are tried by themselves: with the ids of another tenant's things in their path, and with a body that
names such things. What an operation answers may not hold anything of the other tenant, and nothing may have changed.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest

from e2e.authorized import http_as, new_key
from e2e.operations import DOCUMENT, Described, Things
from eventually import eventually
from live_server import live_server_on
from waystation.config import Settings

pytestmark = pytest.mark.anyio

OPERATIONS = [
    Described(method.upper(), path, spec) for path, item in DOCUMENT["paths"].items() for method, spec in item.items()
]
OF_A_THING = ("{thread_id}", "{run_id}", "{assistant_id}", "{cron_id}", "{response_id}")
LENIENT = {
    "GET /threads/{thread_id}/runs/{run_id}/join": "an error inside the answer, as for any run that is not there",
    "GET /threads/{thread_id}/runs/{run_id}/stream": "an error event, as for any run that is not there",
    "GET /runs/{run_id}/stream": "an error event, as for any run that is not there",
    "POST /threads/{thread_id}/commands": "the protocol's own error",
    "POST /threads/{thread_id}/stream/events": "a stream that closes",
    "GET /threads/{thread_id}/stream": "a stream of a thread that has no events yet, as for any that is not there",
    "POST /a2a/{assistant_id}": "the protocol's own error",
}
"""Operations that do not answer 404, and what they answer instead; that it holds nothing is tried all the same."""


@dataclass(frozen=True, slots=True)
class World:
    """What a tenant has, and the word that is in all of it."""

    http: httpx.AsyncClient
    mark: str
    things: Things
    ids: dict[str, str]

    async def picture(self) -> dict[str, Any]:
        """Everything that the tenant sees."""
        thread, assistant = f"/threads/{self.ids['thread_id']}", f"/assistants/{self.ids['assistant_id']}"
        asked: dict[str, tuple[str, str, Any]] = {
            "thread": ("GET", thread, None),
            "state": ("GET", f"{thread}/state", None),
            "history": ("GET", f"{thread}/history?limit=100", None),
            "runs": ("GET", f"{thread}/runs?limit=100", None),
            "storage": ("GET", f"{thread}/storage", None),
            "threads": ("POST", "/threads/search", {"limit": 1000}),
            "count": ("POST", "/threads/count", {}),
            "assistant": ("GET", assistant, None),
            "versions": ("POST", f"{assistant}/versions", {}),
            "assistants": ("POST", "/assistants/search", {"limit": 1000}),
            "how many assistants": ("POST", "/assistants/count", {}),
        }
        if "/runs/crons/search" in DOCUMENT["paths"]:
            asked["crons"] = ("POST", "/runs/crons/search", {"limit": 1000})
        if "/store/items/search" in DOCUMENT["paths"]:
            asked["items"] = ("POST", "/store/items/search", {"namespace_prefix": [], "limit": 1000})
            asked["namespaces"] = ("POST", "/store/namespaces", {})
        answers = {name: await self.http.request(m, path, json=body) for name, (m, path, body) in asked.items()}
        assert {name: a.status_code for name, a in answers.items() if a.status_code != 200} == {}
        return {name: answer.json() for name, answer in answers.items()}


async def make_world(http: httpx.AsyncClient) -> World:
    """One of everything."""
    mark = f"mark{uuid.uuid4().hex[:12]}"
    marked = {"mark": mark}
    thread = (await http.post("/threads", json={"metadata": marked})).json()
    path = f"/threads/{thread['thread_id']}"
    run = {"assistant_id": "steps", "input": {"n": 0, "log": [mark]}, "metadata": marked, "stream_resumable": True}
    ran = await http.post(f"{path}/runs/wait", json=run)
    assert ran.json()["log"][0] == mark, ran.text
    runs, state = (await http.get(f"{path}/runs")).json(), (await http.get(f"{path}/state")).json()
    assistant = (await http.post("/assistants", json={"graph_id": "nested", "metadata": marked, "name": mark})).json()
    ids = {
        "thread_id": thread["thread_id"],
        "run_id": runs[0]["run_id"],
        "assistant_id": assistant["assistant_id"],
        "checkpoint_id": state["checkpoint_id"],
    }
    if "/runs/crons" in DOCUMENT["paths"]:
        cron = {"assistant_id": "steps", "schedule": "0 3 1 1 *", "metadata": marked, "input": {"log": [mark]}}
        made = await http.post("/runs/crons", json=cron)
        assert made.status_code == 200, made.text
        ids["cron_id"] = made.json()["cron_id"]
    if "/store/items" in DOCUMENT["paths"]:
        item = {"namespace": ["battery", mark], "key": "k", "value": {"mark": mark}}
        made = await http.put("/store/items", json=item)
        assert made.status_code == 204, made.text
        await http.put("/store/items", json={"namespace": ["battery"], "key": "k", "value": {"mark": mark}})
    things = Things(ids["thread_id"], ids["run_id"], ids["assistant_id"], ids["checkpoint_id"])
    return World(http, mark, things, ids)


@pytest.fixture(scope="module")
def tenants_database(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture(scope="module")
def url(tenants_database: str) -> Generator[str]:
    with live_server_on(tenants_database, settings=Settings(auth={"api_keys": True})) as server:
        yield server.url


@pytest.fixture
async def acme(url: str, tenants_database: str) -> AsyncGenerator[World]:
    """A tenant with one of everything."""
    name = f"acme-{uuid.uuid4().hex[:6]}"
    async with http_as(url, await new_key(tenants_database, "ann", "admin", tenant=name)) as http:
        yield await make_world(http)


@pytest.fixture
async def rival(url: str, tenants_database: str) -> AsyncGenerator[httpx.AsyncClient]:
    """An admin of another tenant."""
    name = f"rival-{uuid.uuid4().hex[:6]}"
    async with http_as(url, await new_key(tenants_database, "bob", "admin", tenant=name)) as http:
        yield http


async def ask(http: httpx.AsyncClient, operation: Described, world: World, body: Any) -> tuple[int, str]:
    """The answer to an operation on another tenant's things, as far as it comes."""
    path = world.things.path_of(operation, **{n: v for n, v in world.ids.items() if f"{{{n}}}" in operation.path})
    query = {"namespace": "battery", "key": "k"}
    needed = {
        p["name"]: query.get(p["name"], "x") for p in operation.parameters if p["in"] == "query" and p.get("required")
    }
    received, status = b"", 0
    try:
        async with (
            asyncio.timeout(60) as patience,
            http.stream(operation.method, path, json=body, params=needed) as answer,
        ):
            status = answer.status_code
            if "text/event-stream" in answer.headers.get("content-type", ""):  # some have no end
                patience.reschedule(asyncio.get_running_loop().time() + 5)
            async for part in answer.aiter_bytes():
                received += part
    except TimeoutError:
        assert status, f"{operation} does not answer"
    return status, received.decode()


def bodies(operation: Described, world: World) -> list[Any]:
    """Bodies that name another tenant's things, where the operation takes any."""
    usual = world.things.body_of(operation)
    if not isinstance(usual, dict):
        return [usual]
    extras: tuple[dict[str, Any], ...] = (
        {"thread_id": world.ids["thread_id"], "run_ids": [world.ids["run_id"]]},
        {"thread_ids": [world.ids["thread_id"]]},
        {"assistant_id": world.ids["assistant_id"]},
        {"metadata": {"mark": world.mark}, "ids": [world.ids["thread_id"]]},
        {"namespace_prefix": ["battery"], "query": world.mark},
        {"status": "all"},
    )
    if operation.body is None:
        return [None]
    return [usual, *({**cast("dict[str, Any]", usual), **extra} for extra in extras)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_no_operation_reaches_another_tenants_things(
    operation: Described, acme: World, rival: httpx.AsyncClient
) -> None:
    before = await acme.picture()
    for body in bodies(operation, acme) if operation.method not in ("GET", "DELETE") else [None]:
        status, text = await ask(rival, operation, acme, body)
        assert status < 500, (status, text[:300])
        assert acme.mark not in text or acme.mark in json.dumps(body), (body, text[:500])
        if status < 300:
            held = [name for name, value in acme.ids.items() if value in text and value not in json.dumps(body or "")]
            in_path = [name for name in held if f"{{{name}}}" in operation.path]
            assert not held or (str(operation) in LENIENT and held == in_path), (body, held, text[:500])
        if any(part in operation.path for part in OF_A_THING) and str(operation) not in LENIENT:
            assert status in (400, 404, 409, 422), (body, status, text[:300])
    assert await acme.picture() == before


async def test_the_same_id_in_two_tenants_is_two_threads(acme: World, rival: httpx.AsyncClient) -> None:
    thread_id = acme.ids["thread_id"]
    path = f"/threads/{thread_id}"
    before = await acme.picture()
    made = await rival.post("/threads", json={"thread_id": thread_id, "metadata": {"whose": "rival"}})
    assert made.status_code == 200
    assert (await rival.get(f"{path}/state")).json()["values"] == {}
    ran = await rival.post(f"{path}/runs/wait", json={"assistant_id": "steps", "input": {"n": 0, "log": ["theirs"]}})
    assert ran.json()["log"] == ["theirs", "a", "b"]
    state = (await rival.get(f"{path}/state")).json()
    assert state["checkpoint"]["thread_id"] == thread_id
    assert state["metadata"]["thread_id"] == thread_id
    assert len((await rival.get(f"{path}/history?limit=100")).json()) == 4
    assert (await rival.get(f"{path}/storage")).json()["checkpoints"]["count"] == 4
    updated = await rival.post(f"{path}/state", json={"values": {"log": ["more"]}, "as_node": "b"})
    assert updated.json()["checkpoint"]["thread_id"] == thread_id
    copied = (await rival.post(f"{path}/copy")).json()["thread_id"]
    assert (await rival.get(f"/threads/{copied}/state")).json()["values"]["log"] == ["theirs", "a", "b", "more"]
    at = f"{path}/state/{acme.ids['checkpoint_id']}"
    assert (await rival.get(at)).json()["values"] == {}
    assert await acme.picture() == before
    pruned = await rival.post("/threads/prune", json={"thread_ids": [thread_id], "strategy": "keep_latest"})
    assert pruned.json() == {"pruned_count": 1}
    assert (await rival.get(f"{path}/storage")).json()["checkpoints"]["count"] == 1
    assert await acme.picture() == before
    assert (await rival.delete(path)).status_code == 204
    assert await acme.picture() == before
    assert (await rival.post("/threads", json={"thread_id": thread_id})).status_code == 200
    assert (await rival.get(f"{path}/history?limit=100")).json() == []


async def test_rolling_back_undoes_nothing_of_another_tenant(acme: World, rival: httpx.AsyncClient) -> None:
    thread_id = acme.ids["thread_id"]
    path = f"/threads/{thread_id}"
    for http in (acme.http, rival):
        await http.post("/threads", json={"thread_id": thread_id, "if_exists": "do_nothing"})
        await http.post(f"{path}/runs/wait", json={"assistant_id": "hitl", "input": {"n": 0}})
    before = await acme.picture()
    await rival.post(f"{path}/runs/wait", json={"assistant_id": "hitl", "command": {"resume": "yes"}})
    stored = (await rival.get(f"{path}/storage")).json()
    slow = await rival.post(f"{path}/runs", json={"assistant_id": "slow", "input": {"n": 0}})
    await rival.post(f"{path}/runs/{slow.json()['run_id']}/cancel?action=rollback&wait=true")
    assert (await rival.get(f"{path}/storage")).json() == stored
    assert await acme.picture() == before
    resumed = await acme.http.post(f"{path}/runs/wait", json={"assistant_id": "hitl", "command": {"resume": "hers"}})
    assert resumed.json()["log"][-2:] == ["answer=hers", "b"]


async def test_streams_and_cancels_reach_only_ones_own_run(acme: World, rival: httpx.AsyncClient) -> None:
    thread_id = acme.ids["thread_id"]
    slow = {"assistant_id": "slow", "input": {"n": 0}, "stream_resumable": True}
    run_id = (await acme.http.post(f"/threads/{thread_id}/runs", json=slow)).json()["run_id"]
    path = f"/threads/{thread_id}/runs/{run_id}"

    async def is_running() -> bool:
        return (await acme.http.get(path)).json()["status"] == "running"

    await eventually(is_running)
    stream = await rival.get(f"{path}/stream", headers={"last-event-id": "-1"})
    assert "Run not found" in stream.text
    assert "tick" not in stream.text
    assert (await rival.get(f"{path}/join?cancel_on_disconnect=true")).json()["__error__"]["message"].startswith("404")
    assert (await rival.post(f"{path}/cancel?wait=true")).status_code == 404
    assert (await rival.post("/runs/cancel", json={"status": "all"})).status_code == 404
    assert await is_running()
    assert (await acme.http.post(f"{path}/cancel?wait=true")).status_code == 200


async def test_idempotency_keys_are_a_tenants_own(acme: World, rival: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "the same for everybody"}
    body = {"assistant_id": "steps", "input": {"n": 0}, "on_completion": "keep"}
    hers, again, theirs = [
        (await http.post("/runs", json=body, headers=key)).json()["run_id"] for http in (acme.http, acme.http, rival)
    ]
    assert hers == again != theirs


async def test_a_new_tenant_finds_the_default_assistants_and_nothing_else(rival: httpx.AsyncClient) -> None:
    found = (await rival.post("/assistants/search", json={"limit": 1000})).json()
    assert {a["metadata"]["created_by"] for a in found} == {"system"}
    assert "steps" in {a["graph_id"] for a in found}
    assert (await rival.post("/threads/count", json={})).json() == 0
    assert (await rival.post("/threads/search", json={})).json() == []


async def test_metrics_name_no_tenant(acme: World, url: str) -> None:
    async with http_as(url, None) as http:
        shown = (await http.get("/metrics")).text + (await http.get("/metrics?format=json")).text
    assert "acme" not in shown
    assert all(value not in shown for value in (*acme.ids.values(), acme.mark))
