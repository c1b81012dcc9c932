"""Threads and their state through the official client, with runs that are executed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import ConflictError, NotFoundError

from api_services import api_services
from live_http import served
from waystation.app import create_app
from waystation.config import Settings
from waystation.services import Services

pytestmark = pytest.mark.anyio

Client = Any
"""The official client; its own types leave parameters open, which strict checking does not bear."""


@pytest.fixture
async def client(database_uri: str) -> AsyncGenerator[Client]:
    settings = Settings(database_uri=database_uri, n_jobs_per_worker=4)

    @asynccontextmanager
    async def services() -> AsyncGenerator[Services]:
        async with api_services(database_uri, settings=settings) as opened:
            yield opened

    async with served(create_app(services)) as (_, url), get_client(url=url) as client:
        yield client


async def interrupted(client: Client) -> str:
    thread = await client.threads.create()
    await client.runs.wait(thread["thread_id"], "hitl", input={"n": 0})
    return thread["thread_id"]


async def test_a_run_gives_its_thread_a_face(client: Client) -> None:
    thread = await client.threads.create(metadata={"tag": "x"})
    await client.runs.wait(thread["thread_id"], "steps", input={"n": 0})
    found = await client.threads.get(thread["thread_id"])
    assert (found["status"], found["values"], found["interrupts"]) == ("idle", {"log": ["a", "b"], "n": 2}, {})
    assert found["metadata"] is not None
    assert (found["metadata"]["tag"], found["metadata"]["graph_id"]) == ("x", "steps")
    state = await client.threads.get_state(thread["thread_id"])
    assert state["values"] == found["values"]
    assert state["metadata"]["thread_id"] == thread["thread_id"]
    assert len(await client.threads.get_history(thread["thread_id"], limit=10)) == 4


async def test_an_interrupt_is_seen_edited_and_answered(client: Client) -> None:
    thread_id = await interrupted(client)
    thread, state = await client.threads.get(thread_id), await client.threads.get_state(thread_id)
    (task,) = state["tasks"]
    assert thread["status"] == "interrupted"
    assert thread["interrupts"] == {task["id"]: task["interrupts"]}
    await client.threads.update_state(thread_id, {"log": ["by hand"]}, as_node="ask")
    assert (await client.threads.get(thread_id))["interrupts"] == {}
    values = await client.runs.wait(thread_id, "hitl", input=None)
    assert values["log"] == ["by hand", "b"]
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_an_interrupt_in_a_subgraph_has_the_innermost_task(client: Client) -> None:
    thread = await client.threads.create()
    given: dict[str, Any] = {"n": 7, "messages": [{"role": "user", "content": "hi"}]}
    await client.runs.wait(thread["thread_id"], "nested", input=given)
    found = await client.threads.get(thread["thread_id"])
    state = await client.threads.get_state(thread["thread_id"], subgraphs=True)
    inner = state["tasks"][0]["state"]["tasks"][0]
    assert found["interrupts"] == {inner["id"]: inner["interrupts"]}


async def test_a_copy_goes_its_own_way(client: Client) -> None:
    thread_id = await interrupted(client)
    copied = await client.threads.copy(thread_id)
    await client.runs.wait(copied["thread_id"], "hitl", command={"resume": "yes"})
    assert (await client.threads.get_state(copied["thread_id"]))["values"] == {"log": ["answer=yes", "b"], "n": 2}
    assert (await client.threads.get(thread_id))["status"] == "interrupted"


async def test_a_fork_is_continued(client: Client) -> None:
    thread = await client.threads.create()
    await client.runs.wait(thread["thread_id"], "steps", input={"n": 0})
    second = (await client.threads.get_history(thread["thread_id"], limit=2))[1]
    await client.threads.update_state(thread["thread_id"], {"log": ["fork"]}, checkpoint=second["checkpoint"])
    values = await client.runs.wait(thread["thread_id"], "steps", input=None)
    assert values["log"] == ["a", "fork", "b"]


async def test_a_busy_thread_is_not_updated_and_can_be_deleted(client: Client) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "slow", input={"n": 200, "delay": 0.05})
    with pytest.raises(ConflictError, match="has in-flight runs"):
        await client.threads.update_state(thread_id, {"ticks": [9]})
    joined = asyncio.create_task(client.runs.join(thread_id, run["run_id"]))
    await client.threads.delete(thread_id)
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run["run_id"])
    async with asyncio.timeout(60):
        await asyncio.wait([joined])
    # The slot is free again and nothing of the thread comes back.
    other = await client.threads.create()
    assert await client.runs.wait(other["thread_id"], "steps", input={"n": 0}) == {"log": ["a", "b"], "n": 2}
    assert await client.threads.count() == 1


async def test_search_select_and_extract_through_the_client(client: Client) -> None:
    thread_id = await interrupted(client)
    await client.threads.create(metadata={"other": True})
    found = await client.threads.search(
        status="interrupted", values={"n": 0}, select=["thread_id"], extract={"asks": "values.log"}
    )
    assert found == [{"thread_id": thread_id, "extracted": {"asks": []}}]
    assert await client.threads.count(metadata={"other": True}) == 1


async def test_supersteps_and_ttl_of_the_client(client: Client) -> None:
    made = await client.threads.create(
        graph_id="steps",
        ttl=5,
        supersteps=[
            {"updates": [{"values": {"n": 0}, "as_node": "__input__"}]},
            {"updates": [{"values": {"log": ["one"], "n": 1}, "as_node": "a"}]},
        ],
    )
    assert (made["status"], made["values"]) == ("interrupted", {"log": ["one"], "n": 1})
    values = await client.runs.wait(made["thread_id"], "steps", input=None)
    assert values == {"log": ["one", "b"], "n": 2}
    shown = await client.threads.get(made["thread_id"], include=["ttl"])
    assert shown["ttl"]["ttl_minutes"] == 5


async def test_no_answer_of_a_thread_operation_is_a_5xx_for_hostile_bytes(client: Client) -> None:
    http: httpx.AsyncClient = client.http.client
    thread_id = await interrupted(client)
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b'{"metadata": "\xff"}', b'{"a":' * 5000, b'{"values": "\\ud800"}']
    paths = ["", "/search", "/count", "/prune", f"/{thread_id}/state", f"/{thread_id}/history", f"/{thread_id}/copy"]
    for path in paths:
        for body in bodies:
            answer = await http.post(f"/threads{path}", content=body, headers={"content-type": "application/json"})
            assert answer.status_code < 500, (path, body[:20], answer.text)
    for method, path in (
        ("GET", "/..%2f.."),
        ("DELETE", "/%00"),
        ("PATCH", "/%ff"),
        ("GET", f"/{thread_id}/state/%00"),
    ):
        answer = await http.request(method, f"/threads{path}", json={})
        assert answer.status_code < 500, (path, answer.text)
