"""`get_client()` without an address in a graph: the API of the process that runs it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from langgraph_sdk import get_client

from cli_servers import Client as Plain
from cli_servers import Command
from live_server import E2E, Client, LiveServer, server_process

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]  # processes, each of which imports everything

REMOTE = E2E.parent / "remote"


@pytest.fixture(scope="module")
def server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    with server_process(make_database(), log=tmp_path_factory.mktemp("inner") / "log", project=REMOTE) as running:
        yield running


@pytest.fixture
async def lg(server: LiveServer) -> AsyncGenerator[Client]:
    async with get_client(url=server.url) as client:
        yield client


async def found_by(client: Client, graph: str) -> Any:
    return (await client.runs.wait(None, graph, input={"log": []}))["found"]


async def test_a_node_makes_threads_and_runs_and_follows_them(lg: Client) -> None:
    thread = await lg.threads.create()
    found = (await lg.runs.wait(thread["thread_id"], "inner", input={"log": []}))["found"]
    assert found["events"] == ["metadata", "custom", "updates", "updates"]
    assert found["waited"] == ["first", "second unasked"]
    assert found["own_status"] == "busy"
    made = await lg.threads.get(found["thread_id"])
    assert (made["metadata"]["made"], made["values"]["log"]) == ("inside", ["in", "first", "second unasked"])
    assert found["metadata"]["graph_id"] == "child", "nothing of the outer run goes into the inner one"


async def test_a_client_made_at_import_works_in_a_node(lg: Client) -> None:
    assert "child" in (await found_by(lg, "early"))["graphs"]


async def test_a_thread_with_a_loop_of_its_own_reaches_the_api(lg: Client) -> None:
    result = await lg.runs.wait(None, "own_loop", input={"log": []})
    assert result["log"] == ["own loop", "first", "second unasked"]


async def test_the_client_that_blocks_works_in_a_sync_node(lg: Client, server: LiveServer) -> None:
    result = await lg.runs.wait(None, "sync_inner", input={"log": [], "url": server.url})
    assert result["log"] == ["sync", "first", "second unasked"]


async def test_a_run_is_nobodys_child(lg: Client) -> None:
    thread = await lg.threads.create()
    parts = [
        part
        async for part in lg.runs.stream(
            thread["thread_id"], "inner", input={"log": []}, stream_mode=["custom", "updates"], stream_subgraphs=True
        )
    ]
    assert [part.event for part in parts] == ["metadata", "updates"]


def test_a_worker_without_an_api_reaches_one_all_the_same(database_uri: str) -> None:
    """From the first moment on: it claims what waits for it before it is up."""
    environ = {"DATABASE_URI": database_uri}
    body: Any = {"assistant_id": "inner", "input": {"log": []}}
    with Command.running("serve", "--port", "0", cwd=REMOTE, environ=environ) as api:
        http = Plain(api.url).http
        thread = http.post("/threads", json={}).raise_for_status().json()["thread_id"]
        run = http.post(f"/threads/{thread}/runs", json=body).raise_for_status().json()["run_id"]
        with Command.running("worker", cwd=REMOTE, environ=environ):
            answer = http.get(f"/threads/{thread}/runs/{run}/join").raise_for_status()
    assert "__error__" not in answer.text, answer.text
    assert json.loads(answer.text)["found"]["waited"] == ["first", "second unasked"]
