"""The reference graphs as MCP tools and as A2A agents, through the official clients."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict
from mcp import Client as McpClient
from mcp_types import CallToolResult

from live_server import LiveServer, server_process

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).parents[2]
EMAIL = "Send an email to ada@example.com with subject Hello and body Hi"


@pytest.fixture(scope="module")
def reference(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("reference") / "server.log"
    with server_process(make_database(), log=log, project=REPOSITORY) as server:
        yield server


def messages_of(result: CallToolResult) -> list[dict[str, Any]]:
    return cast("dict[str, Any]", result.structured_content)["messages"]


def asking(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def test_the_agent_answers_as_a_tool(reference: LiveServer) -> None:
    nodes: list[str] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        nodes.append(message or "")

    async with McpClient(f"{reference.url}/mcp") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"agent", "research", "approval", "guarded"}
        assert "messages" in tools["agent"].input_schema["properties"]
        result = await client.call_tool("agent", asking("What is 17 * 23?"), progress_callback=tell)
    assert "391" in messages_of(result)[-1]["content"]
    assert {"model", "tools"} <= set(nodes)


async def test_an_email_is_approved_through_a_tool(reference: LiveServer) -> None:
    async with McpClient(f"{reference.url}/mcp") as client:
        asked = await client.call_tool("approval", asking(EMAIL))
        request = cast("dict[str, Any]", asked.structured_content)["__interrupt__"][0]["value"]
        assert request["action_requests"][0]["name"] == "send_email"
        thread_id = cast("dict[str, Any]", asked.meta)["waystation/thread_id"]
        resume = {"thread_id": thread_id, "value": {"decisions": [{"type": "approve"}]}}
        done = await client.call_tool("approval", {"__resume__": resume})
    assert any("Sent to ada@example.com" in str(message["content"]) for message in messages_of(done))


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_an_email_is_decided_on_as_an_agents_task(reference: LiveServer, decision: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        resolver = A2ACardResolver(http, reference.url)
        card = await resolver.get_agent_card(http_kwargs={"params": {"assistant_id": "approval"}})
        client = ClientFactory(ClientConfig(streaming=True, httpx_client=http)).create(card)

        async def said(part: pb.Part, *, task_id: str = "", context_id: str = "") -> list[pb.StreamResponse]:
            message = pb.Message(message_id=uuid.uuid4().hex, role=pb.Role.ROLE_USER, parts=[part])
            message.task_id, message.context_id = task_id, context_id
            return [step async for step in client.send_message(pb.SendMessageRequest(message=message))]

        steps = await said(pb.Part(text=EMAIL))
        task, question = steps[0].task, steps[-1].status_update.status
        assert question.state == pb.TaskState.TASK_STATE_INPUT_REQUIRED
        asked = MessageToDict(question.message.parts[1].data)["interrupts"][0]["value"]
        assert asked["action_requests"][0]["args"]["to"] == "ada@example.com"
        answer = ParseDict({"data": {"decisions": [{"type": decision}]}}, pb.Part())
        steps = await said(answer, task_id=task.id, context_id=task.context_id)
    assert steps[-1].status_update.status.state == pb.TaskState.TASK_STATE_COMPLETED
    assert steps[0].task.id == task.id
    assert steps[-2].artifact_update.artifact.parts[0].text
