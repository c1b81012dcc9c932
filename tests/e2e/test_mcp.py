"""The assistants as MCP tools, through the official client, in both ways that the protocol has."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import pytest
from mcp import Client as McpClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types import CallToolResult, TextContent, Tool

from eventually import eventually
from live_server import Client, LiveServer

pytestmark = pytest.mark.anyio

MODES = ("legacy", "auto")
"""With the handshake that clients of 2025 make, and without one, as from 2026 on."""


@asynccontextmanager
async def connected(server: LiveServer, mode: str = "legacy", **headers: str) -> AsyncGenerator[McpClient]:
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with McpClient(transport, mode=mode, read_timeout_seconds=60) as client:
            yield client


@pytest.fixture(params=MODES)
async def mcp(request: pytest.FixtureRequest, live_server: LiveServer) -> AsyncGenerator[McpClient]:
    async with connected(live_server, request.param) as client:
        yield client


def text_of(result: CallToolResult, at: int = 0) -> str:
    content = result.content[at]
    assert isinstance(content, TextContent)
    return content.text


def meta_of(result: CallToolResult) -> dict[str, Any]:
    return dict(result.meta or {})


async def every_tool(client: McpClient) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            assert tool.name not in found
            found[tool.name] = tool
        cursor = page.next_cursor
        if cursor is None:
            return found


async def active_runs(sdk: Client) -> int:
    return len(await sdk.threads.search(status="busy", limit=1000))


async def test_the_newest_version_that_both_know_is_spoken(live_server: LiveServer) -> None:
    async with connected(live_server, "legacy") as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info is not None
        assert client.server_info.name == "Waystation"
        with pytest.warns(MCPDeprecationWarning, match="ping is removed"):
            await client.send_ping()  # pyright: ignore[reportDeprecated]  # those who speak the old way still ask
    async with connected(live_server, "auto") as client:
        assert client.protocol_version == "2026-07-28"


async def test_every_assistant_is_a_tool_with_its_graphs_schemas(mcp: McpClient, sdk: Client) -> None:
    made = await sdk.assistants.create("steps", name="Counts up, döucement", description="Counts.")
    tools = await every_tool(mcp)
    steps = tools["steps"]
    assert steps.input_schema["properties"]["n"] == {"title": "N", "type": "integer"}
    assert steps.output_schema is not None
    assert {"log", "n"} <= set(steps.output_schema["properties"])
    assert tools["agent"].description == "Adds numbers with a tool"
    named = tools[f"Counts_up_d_ucement_{made['assistant_id'][:8]}"]
    assert (named.title, named.description) == ("Counts up, döucement", "Counts.")
    assert tools["functional"].input_schema["type"] == "object"
    assert len(tools) >= await sdk.assistants.count()
    await sdk.assistants.delete(made["assistant_id"])


async def test_many_assistants_come_in_pages(mcp: McpClient, sdk: Client) -> None:
    made = [(await sdk.assistants.create("steps", name="many"))["assistant_id"] for _ in range(60)]
    first = await mcp.list_tools(cache_mode="bypass")
    assert first.next_cursor is not None
    names = set(await every_tool(mcp))
    assert {f"many_{assistant_id[:8]}" for assistant_id in made} <= names
    for assistant_id in made:
        await sdk.assistants.delete(assistant_id)


async def test_a_call_runs_the_graph_and_leaves_no_thread(mcp: McpClient, sdk: Client) -> None:
    result = await mcp.call_tool("steps", {"n": 0})
    assert not result.is_error
    assert result.structured_content == {"log": ["a", "b"], "n": 2}
    assert json.loads(text_of(result)) == result.structured_content
    thread_id = meta_of(result)["waystation/thread_id"]
    assert await sdk.threads.search(ids=[thread_id]) == []


async def test_a_graph_of_messages_takes_them_in_any_form(mcp: McpClient) -> None:
    for message in ({"role": "user", "content": "hi"}, {"type": "human", "content": "hi"}):
        result = await mcp.call_tool("chat", {"messages": [message]})
        messages = cast("dict[str, Any]", result.structured_content)["messages"]
        assert [(m["type"], m["content"]) for m in messages] == [("human", "hi"), ("ai", "You said: hi")]


async def test_a_tool_can_also_be_called_by_its_assistants_id(mcp: McpClient, sdk: Client) -> None:
    made = await sdk.assistants.create("echo", name="echo", context={"model_name": "special"})
    tool = next(name for name in await every_tool(mcp) if name.endswith(made["assistant_id"][:8]))
    for name in (tool, made["assistant_id"]):
        result = await mcp.call_tool(name, {})
        seen = cast("dict[str, Any]", result.structured_content)["seen"]
        assert seen["context"] == {"model_name": "special"}
    await sdk.assistants.delete(made["assistant_id"])


async def test_a_graph_that_fails_is_an_error_that_the_model_can_read(mcp: McpClient, sdk: Client) -> None:
    result = await mcp.call_tool("fail", {"n": 0})
    assert result.is_error
    assert text_of(result) == "ValueError: boom went the node"
    assert "Traceback" not in str(result)
    assert await sdk.threads.search(ids=[meta_of(result)["waystation/thread_id"]]) == []


async def test_an_error_keeps_its_text_where_the_operator_says_so(own_server: Any) -> None:
    async with connected(own_server(expose_errors=False)) as client:
        result = await client.call_tool("fail", {"n": 0})
    assert text_of(result) == "ValueError"


async def test_an_unknown_tool_and_wrong_arguments_are_protocol_errors(mcp: McpClient) -> None:
    for name in ("nobody", str(uuid.uuid4()), "steps_00000000", ""):
        with pytest.raises(MCPError) as refused:
            await mcp.call_tool(name, {})
        assert refused.value.code == -32602
        assert "Unknown tool" in refused.value.message
    with pytest.raises(MCPError) as refused:
        await mcp.call_tool("steps", {"__resume__": {"thread_id": "nowhere"}})
    assert "__resume__" in refused.value.message
    with pytest.raises(MCPError) as refused:
        await mcp.call_tool("steps", {"n": 0}, meta=cast("Any", {"waystation/thread_id": "none"}))
    assert "thread" in refused.value.message
    with pytest.raises(MCPError) as refused:
        await mcp.list_tools(cursor="neither", cache_mode="bypass")
    assert "cursor" in refused.value.message
    bad = await mcp.call_tool("steps", {"n": 0, "log": "not a list"})
    assert bad.is_error


async def test_progress_is_told_while_the_graph_runs(mcp: McpClient) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    result = await mcp.call_tool("slow", {"n": 3, "delay": 0.05}, progress_callback=tell)
    assert cast("dict[str, Any]", result.structured_content)["ticks"] == [0, 1, 2]
    numbers = [progress for progress, _, _ in told]
    assert numbers == sorted(set(numbers))
    assert {'{"tick":0}', "tick"} <= {message for _, _, message in told}


async def test_a_graph_reports_progress_of_its_own(mcp: McpClient) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    await mcp.call_tool("reporting", {"n": 3}, progress_callback=tell)
    assert told == [(1, 3, "part 1"), (2, 3, "part 2"), (3, 3, "part 3")]


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_that_is_given_up_stops_the_run(mode: str, live_server: LiveServer, sdk: Client) -> None:
    async with connected(live_server, mode) as client:
        thread_id = str(uuid.uuid4())
        headers = {"waystation/thread_id": thread_id}

        async def call() -> None:
            meta = headers if mode == "auto" else None  # the client of 2025 says it by a number: on a thread of its own
            await client.call_tool("slow", {"n": 400, "delay": 0.05}, meta=cast("Any", meta))

        before = await active_runs(sdk)
        calling = asyncio.create_task(call())

        async def begun() -> bool:
            return await active_runs(sdk) == before + 1

        async def over() -> bool:
            return await active_runs(sdk) == before

        await eventually(begun)
        calling.cancel()
        await asyncio.wait([calling])
        await eventually(over)
        if mode == "auto":
            runs = await sdk.runs.list(thread_id)
            assert [run["status"] for run in runs] == ["interrupted"]
        await client.call_tool("steps", {"n": 0})


async def test_a_client_that_goes_away_stops_its_run(live_server: LiveServer, sdk: Client) -> None:
    thread_id = str(uuid.uuid4())
    params = {"name": "slow", "arguments": {"n": 400, "delay": 0.05}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    before = await active_runs(sdk)

    async def begun() -> bool:
        return await active_runs(sdk) == before + 1

    async with httpx2.AsyncClient(timeout=60, headers={"waystation-thread-id": thread_id}) as http:
        asking = asyncio.create_task(http.post(f"{live_server.url}/mcp", json=body))
        await eventually(begun)
        asking.cancel()
        await asyncio.wait([asking])

    async def interrupted() -> bool:
        return [run["status"] for run in await sdk.runs.list(thread_id)] == ["interrupted"]

    await eventually(interrupted)


async def test_calls_on_a_thread_go_on_from_each_other(live_server: LiveServer, sdk: Client) -> None:
    thread_id = str(uuid.uuid4())
    async with connected(live_server, **{"Waystation-Thread-Id": thread_id}) as client:
        await client.call_tool("chat", {"messages": [{"role": "user", "content": "one"}]})
        result = await client.call_tool("chat", {"messages": [{"role": "user", "content": "two"}]})
    messages = cast("dict[str, Any]", result.structured_content)["messages"]
    assert [m["content"] for m in messages] == ["one", "You said: one", "two", "You said: two"]
    assert (await sdk.threads.get(thread_id))["status"] == "idle"
    assert len(await sdk.runs.list(thread_id)) == 2


async def test_a_question_is_told_and_can_be_answered(mcp: McpClient, sdk: Client) -> None:
    asked = await mcp.call_tool("hitl", {"n": 0})
    assert not asked.is_error
    meta = meta_of(asked)
    assert meta["waystation/interrupted"] is True
    structured = cast("dict[str, Any]", asked.structured_content)
    assert structured["__interrupt__"][0]["value"] == {"question": "go on?"}
    thread_id = meta["waystation/thread_id"]
    assert '"go on?"' in text_of(asked)
    assert f'{{"__resume__":{{"thread_id":"{thread_id}"' in text_of(asked)
    assert (await sdk.threads.get(thread_id, include=["ttl"]))["ttl"]["ttl_minutes"] == 24 * 60
    answered = await mcp.call_tool("hitl", {"__resume__": {"thread_id": thread_id, "value": "yes"}})
    assert answered.structured_content == {"log": ["answer=yes", "b"], "n": 2}
    assert "waystation/interrupted" not in meta_of(answered)
    assert await sdk.threads.search(ids=[thread_id]) == []


async def test_several_questions_are_answered_by_their_ids(mcp: McpClient) -> None:
    asked = await mcp.call_tool("multi", {"n": 0})
    questions = cast("dict[str, Any]", asked.structured_content)["__interrupt__"]
    value = {question["id"]: f"to {question['value']}" for question in questions}
    resume = {"thread_id": meta_of(asked)["waystation/thread_id"], "value": value}
    answered = await mcp.call_tool("multi", {"__resume__": resume})
    log = cast("dict[str, Any]", answered.structured_content)["log"]
    assert log == ["one=to first?", "two=to second?"]


async def test_a_graph_that_gives_no_object_gives_it_in_result(mcp: McpClient) -> None:
    result = await mcp.call_tool("doubling", {"input": 21})
    assert result.structured_content == {"result": 42}
    tool = (await every_tool(mcp))["doubling"]
    assert tool.input_schema["properties"]["input"]["type"] == "integer"


async def test_many_calls_at_once_each_get_their_own_result(mcp: McpClient) -> None:
    results = await asyncio.gather(
        *(mcp.call_tool("chat", {"messages": [{"role": "user", "content": str(n)}]}) for n in range(12))
    )
    said = [cast("dict[str, Any]", result.structured_content)["messages"][-1]["content"] for result in results]
    assert said == [f"You said: {n}" for n in range(12)]
