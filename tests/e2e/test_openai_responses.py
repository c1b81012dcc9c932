"""The Responses API through OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

import openai
import pytest

from e2e.openai_clients import async_client, sync_client
from live_server import Client, LiveServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ai(live_server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with async_client(live_server) as client:
        yield client


@pytest.fixture
def sync_ai(live_server: LiveServer) -> Generator[openai.OpenAI]:
    with sync_client(live_server) as client:
        yield client


async def test_an_input_is_answered_and_the_answer_can_be_read_again(ai: openai.AsyncOpenAI) -> None:
    made = await ai.responses.create(model="chat", input="tell me more", metadata={"case": "7"})
    assert (made.output_text, made.status, made.model) == ("You said: tell me more", "completed", "chat")
    assert made.metadata == {"case": "7"}
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (3, 4, 7)
    read: Any = await ai.responses.retrieve(made.id)
    assert read.to_dict() | {"completed_at": 0, "created_at": 0} == made.to_dict() | {
        "completed_at": 0,
        "created_at": 0,
    }


async def test_the_events_come_in_their_order_and_are_numbered(ai: openai.AsyncOpenAI) -> None:
    stream = await ai.responses.create(model="chat", input="tell me more", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 5,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    last: Any = events[-1]
    assert last.response.output_text == "You said: tell me more"
    assert last.response.usage.total_tokens == 7


def test_the_helper_of_the_client_without_async_follows_a_stream(sync_ai: openai.OpenAI) -> None:
    with sync_ai.responses.stream(model="chat", input="hi there") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "You said: hi there"


async def test_tools_that_the_graph_used_are_shown_with_what_they_gave(ai: openai.AsyncOpenAI) -> None:
    made = await ai.responses.create(model="agent", input="add 2 3")
    call: Any = made.output[0]
    assert (call.type, call.name, call.output, call.status) == ("mcp_call", "add", "5", "completed")
    assert call.arguments == '{"a":2,"b":3}'
    assert made.output_text == "The sum is 5."
    assert [item.type for item in made.output] == ["mcp_call", "message"]
    read = await ai.responses.retrieve(made.id)
    assert [item.to_dict() for item in read.output] == [item.to_dict() for item in made.output]
    stream = await ai.responses.create(model="agent", input="add 2 3", stream=True)
    types = [event.type async for event in stream]
    assert "response.mcp_call.completed" in types
    assert types.index("response.mcp_call_arguments.done") < types.index("response.output_text.delta")


async def test_a_response_goes_on_with_the_thread_of_another(ai: openai.AsyncOpenAI, sdk: Client) -> None:
    first = await ai.responses.create(model="chat", input="one")
    second = await ai.responses.create(model="chat", input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.output_text == "You said: two"
    thread_id = second.to_dict()["waystation"]["thread_id"]  # type: ignore[index]
    values = (await sdk.threads.get_state(thread_id))["values"]
    assert [m["content"] for m in values["messages"]] == ["one", "You said: one", "two", "You said: two"]
    again = await ai.responses.retrieve(first.id)
    assert again.output_text == "You said: one"
    other = await ai.responses.create(model="chat", input="three", previous_response_id=first.id)
    values = (await sdk.threads.get_state(thread_id))["values"]
    assert [m["content"] for m in values["messages"]] == ["one", "You said: one", "three", "You said: three"]
    assert (await ai.responses.retrieve(other.id)).output_text == "You said: three"
    assert (await ai.responses.retrieve(second.id)).output_text == "You said: two"
