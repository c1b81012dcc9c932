"""The Responses API through OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, cast

import httpx
import openai
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError

from e2e.openai_clients import CHAT, async_client, sync_client
from eventually import eventually
from live_server import Client, LiveServer, server_process

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ai(live_server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with async_client(live_server) as client:
        yield client


@pytest.fixture(scope="module")
def chat_server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("chat") / "server.log"
    with server_process(make_database(), log=log, project=CHAT) as server:
        yield server


@pytest.fixture
async def chat(chat_server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with async_client(chat_server) as client:
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


async def test_items_and_instructions_become_messages(chat: openai.AsyncOpenAI) -> None:
    first = await chat.responses.create(
        model="parrot",
        instructions="be kind",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what is this?"},
                    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
        ],
    )
    got = json.loads(first.output_text)["messages"]
    assert [(m["type"], m["answers"]) for m in got] == [("system", None), ("human", None), ("ai", None), ("tool", "c1")]
    assert got[1]["content"] == [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
    assert first.instructions == "be kind"
    second = await chat.responses.create(model="parrot", input="more", previous_response_id=first.id)
    kinds = [m["type"] for m in json.loads(second.output_text)["messages"]]
    assert kinds == ["human", "ai", "tool", "ai", "human"], "instructions hold for one response"
    assert (await chat.responses.retrieve(first.id)).instructions == "be kind"


async def test_calls_for_the_client_are_items_and_their_outputs_go_on(chat: openai.AsyncOpenAI) -> None:
    asked = await chat.responses.create(model="caller", input="weather?")
    call: Any = asked.output[0]
    assert (call.type, call.call_id, call.name, call.arguments) == (
        *("function_call", "call_7"),
        *("weather", '{"city":"Paris"}'),
    )
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = await chat.responses.create(model="caller", input=[result], previous_response_id=asked.id)
    assert answer.output_text == "The tool gave sunny"


async def test_a_question_is_a_message_that_the_next_input_answers(chat: openai.AsyncOpenAI) -> None:
    asked = await chat.responses.create(model="asker", input="paint")
    assert asked.output_text == "Which colour?"
    answer = await chat.responses.create(model="asker", input='{"colour": "red"}', previous_response_id=asked.id)
    assert answer.output_text == 'You chose {"colour": "red"}'
    assert (await chat.responses.retrieve(asked.id)).output_text == "Which colour?"


async def test_a_background_response_is_polled_streamed_and_cancelled(chat: openai.AsyncOpenAI) -> None:
    made = await chat.responses.create(model="slow", input="0.2", background=True)
    assert made.status in ("queued", "in_progress")
    assert made.background

    async def done() -> bool:
        return (await chat.responses.retrieve(made.id)).status == "completed"

    await eventually(done)
    assert (await chat.responses.retrieve(made.id)).output_text == "Working"
    events = [event async for event in await chat.responses.retrieve(made.id, stream=True)]
    assert events[-1].type == "response.completed"
    rest = [event async for event in await chat.responses.retrieve(made.id, stream=True, starting_after=3)]
    assert [event.to_dict() | {"response": 0} for event in rest] == [
        event.to_dict() | {"response": 0} for event in events[4:]
    ]
    long = await chat.responses.create(model="slow", input="60", background=True)
    stopped = await chat.responses.cancel(long.id)
    assert stopped.status == "cancelled"
    assert (await chat.responses.cancel(long.id)).status == "cancelled"


async def test_a_deleted_response_is_gone_with_its_thread(chat: openai.AsyncOpenAI, chat_server: LiveServer) -> None:
    made: Any = await chat.responses.create(model="slow", input="0")
    await chat.responses.delete(made.id)
    for act in (chat.responses.retrieve, chat.responses.delete, chat.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="not found"):
            await act(made.id)
    async with get_client(url=chat_server.url) as lg:
        with pytest.raises(NotFoundError):
            await lg.threads.get(made.waystation["thread_id"])
    with pytest.raises(openai.BadRequestError) as refused:
        await chat.responses.create(model="slow", input="0", previous_response_id=made.id)
    assert refused.value.param == "previous_response_id"


async def test_what_is_not_to_be_stored_is_not(chat: openai.AsyncOpenAI) -> None:
    made = await chat.responses.create(model="slow", input="0", store=False)
    assert (made.output_text, made.status) == ("Working", "completed")
    with pytest.raises(openai.NotFoundError):
        await chat.responses.retrieve(made.id)


async def test_a_failed_response_says_why(chat: openai.AsyncOpenAI) -> None:
    made = await chat.responses.create(model="failing", input="go")
    assert made.status == "failed"
    assert made.error is not None
    assert made.error.message == "ValueError: no more words"
    read = await chat.responses.retrieve(made.id)
    assert read.error is not None
    assert (read.status, read.error.message) == ("failed", "ValueError: no more words")
    events = [event async for event in await chat.responses.create(model="failing", input="go", stream=True)]
    assert events[-1].type == "response.failed"


async def test_an_answer_that_was_cut_is_incomplete(chat: openai.AsyncOpenAI) -> None:
    made = await chat.responses.create(model="team", input="go")
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert [item.type for item in made.output] == ["message", "mcp_call", "message"]
    stream = await chat.responses.create(model="team", input="go", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.incomplete"


async def test_a_conversation_is_a_thread(chat: openai.AsyncOpenAI, chat_server: LiveServer) -> None:
    async with get_client(url=chat_server.url) as lg:
        thread_id = (await lg.threads.create())["thread_id"]
        await chat.responses.create(model="slow", input="0", conversation=thread_id)
        await chat.responses.create(model="slow", input="0", conversation={"id": f"conv_{thread_id.replace('-', '')}"})
        values = cast("dict[str, Any]", (await lg.threads.get_state(thread_id))["values"])
        assert len(values["messages"]) == 4


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "x"}, 400, "model"),
        ({"model": "slow"}, 400, "input"),
        ({"model": "slow", "input": []}, 400, "input"),
        ({"model": "slow", "input": [{"type": "message"}]}, 400, "input.0"),
        ({"model": "slow", "input": [{"type": "computer_call"}]}, 400, "input.0.type"),
        ({"model": "slow", "input": [{"type": "mcp_approval_response"}]}, 400, "input.0"),
        ({"model": "nobody", "input": "x"}, 404, "model"),
        ({"model": "slow", "input": "x", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"model": "slow", "input": "x", "conversation": "mine"}, 400, "conversation"),
        ({"model": "slow", "input": "x", "prompt": {"id": "p"}}, 400, "prompt"),
    ],
)
async def test_what_is_wrong_is_named(chat_server: LiveServer, body: Any, status: int, param: str) -> None:
    async with httpx.AsyncClient(base_url=chat_server.url) as http:
        answer = await http.post("/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
