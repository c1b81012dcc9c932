"""The repository's own graphs through OpenAI's client: an agent with tools, workers in parallel, an approval."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import openai
import pytest

from e2e.openai_clients import async_client, user
from live_server import LiveServer, server_process

pytestmark = pytest.mark.anyio

NOTICE = "[offline model: fixed rules, no language model]"


@pytest.fixture(scope="module")
def server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("reference") / "server.log"
    with server_process(make_database(), log=log, project=Path(__file__).parents[2]) as running:
        yield running


@pytest.fixture
async def ai(server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with async_client(server) as client:
        yield client


async def text_of(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def test_all_of_them_are_models(ai: openai.AsyncOpenAI) -> None:
    assert {model.id async for model in ai.models.list()} == {"agent", "research", "approval", "guarded"}


async def test_the_agent_answers_with_what_its_tools_gave(ai: openai.AsyncOpenAI) -> None:
    asked = [user("What is 17 * 23?")]
    whole = await ai.chat.completions.create(model="agent", messages=asked)
    stream = await ai.chat.completions.create(model="agent", messages=asked, stream=True)
    assert whole.choices[0].message.content == await text_of(stream)
    assert "391" in (whole.choices[0].message.content or "")
    assert whole.usage is not None
    assert whole.usage.total_tokens > 0
    response = await ai.responses.create(model="agent", input="What is 17 * 23?")
    assert [item.type for item in response.output] == ["mcp_call", "message"]
    assert "391" in response.output_text


async def test_the_research_answers_with_its_report_alone(ai: openai.AsyncOpenAI) -> None:
    asked = [user("Research leases and fencing")]
    stream = await ai.chat.completions.create(
        model="research", messages=asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    text = "".join(pieces)
    assert text.count(NOTICE) == 1, "the notes of the workers are no part of it"
    assert "# Research leases and fencing" in text
    assert len(pieces) > 10
    assert chunks[-1].usage is not None
    words = len(text.split())
    assert chunks[-1].usage.completion_tokens > words, "the planner's and the workers' calls are paid, too"


async def test_an_email_waits_for_an_approval_in_chat(ai: openai.AsyncOpenAI) -> None:
    thread: Any = {"thread_id": "6e1f2a34-0000-4000-8000-00000000000a"}
    first = user("Send an email to ann@example.com saying: lunch at noon")
    asked: Any = await ai.chat.completions.create(model="approval", messages=[first], extra_body=thread)
    assert "approval" in asked.choices[0].message.content
    assert asked.choices[0].finish_reason == "stop"
    said: Any = {"role": "assistant", "content": asked.choices[0].message.content}
    sent = await ai.chat.completions.create(
        model="approval", messages=[first, said, user("Approve")], extra_body=thread
    )
    assert "Sent to ann@example.com" in (sent.choices[0].message.content or "")


async def test_an_email_is_approved_or_rejected_by_items(ai: openai.AsyncOpenAI) -> None:
    asked = await ai.responses.create(
        model="approval", input="Send an email to bob@example.com saying: the report is late"
    )
    request: Any = asked.output[-1]
    assert (asked.status, request.type, request.name) == ("completed", "mcp_approval_request", "send_email")
    assert "bob@example.com" in request.arguments
    read = await ai.responses.retrieve(asked.id)
    assert [item.to_dict() for item in read.output] == [item.to_dict() for item in asked.output]
    yes: Any = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    done = await ai.responses.create(model="approval", input=[yes], previous_response_id=asked.id)
    call: Any = done.output[0]
    assert (call.type, call.name) == ("mcp_call", "send_email")
    assert call.output.startswith("Sent to bob@example.com")
    assert "Sent to bob@example.com" in done.output_text
    again = await ai.responses.create(model="approval", input="Send an email to eve@example.com saying: hello")
    no: Any = {**yes, "approval_request_id": again.output[-1].id, "approve": False, "reason": "not today"}
    refused = await ai.responses.create(model="approval", input=[no], previous_response_id=again.id)
    assert "not today" in refused.output_text
    assert "Sent to eve" not in refused.output_text
    listed: list[Any] = [item async for item in ai.responses.input_items.list(refused.id)]
    assert listed[0].to_dict().items() >= no.items()
    assert [item.type for item in listed] == ["mcp_approval_response", "function_call", "message"]
