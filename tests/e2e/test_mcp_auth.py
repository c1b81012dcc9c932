"""Who may call what through MCP and A2A: what others made is not there, and every graph's own assistant is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from langgraph_sdk import get_client
from mcp import Client as McpClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client

from live_server import E2E, LiveServer, server_process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    """Its tokens begin with `user-`, and everybody sees what they own."""
    log = tmp_path_factory.mktemp("auth") / "server.log"
    with server_process(make_database(), log=log, project=E2E.parent / "chat_auth") as running:
        yield running


@asynccontextmanager
async def mcp_as(server: LiveServer, token: str) -> AsyncGenerator[McpClient]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as http,
        McpClient(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
    ):
        yield client


def http_as(server: LiveServer, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {token}"}, timeout=60)


async def test_nobody_calls_without_a_token(server: LiveServer) -> None:
    async with http_as(server, "nobody") as http:
        for path in ("/mcp", "/a2a/slow"):
            assert (await http.post(path, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})).status_code == 401
        assert (await http.get("/.well-known/agent-card.json?assistant_id=slow")).status_code == 401


async def test_an_assistant_is_a_tool_and_an_agent_for_its_owner_alone(server: LiveServer) -> None:
    async with get_client(url=server.url, headers={"authorization": "Bearer user-a"}) as sdk:
        mine = (await sdk.assistants.create("parrot", name="mine"))["assistant_id"]
    tool = f"mine_{mine[:8]}"
    async with mcp_as(server, "user-a") as a, mcp_as(server, "user-b") as b:
        assert {found.name for found in (await a.list_tools()).tools} == {"slow", "parrot", tool}
        assert {found.name for found in (await b.list_tools()).tools} == {"slow", "parrot"}
        assert "messages" in (await b.list_tools()).tools[0].input_schema["properties"]
        said: dict[str, Any] = {"messages": [{"role": "user", "content": "0"}]}
        assert not (await a.call_tool(tool, said)).is_error
        assert not (await b.call_tool("slow", said)).is_error
        for name in (tool, mine):
            with pytest.raises(MCPError, match="Unknown tool"):
                await b.call_tool(name, said)
    async with http_as(server, "user-a") as a_http, http_as(server, "user-b") as b_http:
        for http, status in ((a_http, 200), (b_http, 404)):
            answer = await http.get("/.well-known/agent-card.json", params={"assistant_id": mine})
            assert answer.status_code == status


async def test_a_thread_and_a_task_of_somebody_else_are_not_there(server: LiveServer) -> None:
    message = {"role": "user", "parts": [{"kind": "text", "text": "0"}], "messageId": "m"}

    async def rpc(http: httpx.AsyncClient, method: str, **params: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return (await http.post("/a2a/slow", json=body)).json()

    async with http_as(server, "user-a") as a, http_as(server, "user-b") as b:
        task = (await rpc(a, "message/send", message=message))["result"]
        assert (await rpc(a, "tasks/get", id=task["id"]))["result"]["id"] == task["id"]
        for method in ("tasks/get", "tasks/cancel"):
            assert (await rpc(b, method, id=task["id"]))["error"]["code"] == -32001
        theirs = {**message, "contextId": task["contextId"]}
        assert "error" in await rpc(b, "message/send", message=theirs)
        assert "error" in await rpc(b, "message/send", message={**theirs, "taskId": task["id"]})
        runs = (await a.get(f"/threads/{task['contextId']}/runs")).json()
        assert len(runs) == 1
    async with mcp_as(server, "user-b") as client:
        meta: Any = {"waystation/thread_id": task["contextId"]}
        with pytest.raises(MCPError):
            await client.call_tool("slow", {"messages": []}, meta=meta)
