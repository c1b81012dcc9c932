"""Chat completions through OpenAI's own client: assistants as models."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import httpx
import openai
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError

from e2e.openai_clients import CHAT, async_client, sync_client, user
from eventually import eventually
from live_server import Client, LiveServer, server_process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def chat_server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("chat") / "server.log"
    with server_process(make_database(), log=log, project=CHAT) as server:
        yield server


@pytest.fixture
async def ai(chat_server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with async_client(chat_server) as client:
        yield client


@pytest.fixture
async def lg(chat_server: LiveServer) -> AsyncGenerator[Client]:
    async with get_client(url=chat_server.url) as client:
        yield client


async def text_of(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def test_a_conversation_is_answered(live_server: LiveServer) -> None:
    async with async_client(live_server) as ai:
        answer = await ai.chat.completions.create(model="chat", messages=[user("tell me more")])
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "You said: tell me more")
    assert (choice.finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "chat")
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4, 7)


async def test_an_answer_streams_word_by_word(live_server: LiveServer) -> None:
    async with async_client(live_server) as ai:
        stream = await ai.chat.completions.create(
            model="chat", messages=[user("tell me more")], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["You", " said:", " tell", " me", " more"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_client_without_async_gets_the_same(live_server: LiveServer) -> None:
    with sync_client(live_server) as ai:
        whole = ai.chat.completions.create(model="chat", messages=[user("hi there")])
        stream = ai.chat.completions.create(model="chat", messages=[user("hi there")], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content == "You said: hi there"


async def test_tools_of_the_graph_are_its_own_and_all_its_model_calls_are_paid(live_server: LiveServer) -> None:
    async with async_client(live_server) as ai:
        answer = await ai.chat.completions.create(model="agent", messages=[user("add 2 3")])
    assert answer.choices[0].message.content == "The sum is 5."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14


async def test_models_are_the_assistants_with_messages(ai: openai.AsyncOpenAI, lg: Client) -> None:
    made = await lg.assistants.create("parrot", name="Polly", description="a parrot with a name")
    models = {model.id: model async for model in ai.models.list()}
    assert models.keys() == {"parrot", "caller", "asker", "failing", "slow", "team", "limited", "Polly"}
    polly: Any = await ai.models.retrieve("Polly")
    assert (polly.assistant_id, polly.graph_id, polly.object) == (made["assistant_id"], "parrot", "model")
    assert (await ai.models.retrieve(made["assistant_id"])).id == made["assistant_id"]
    answer = await ai.chat.completions.create(model="Polly", messages=[user("hi")])
    assert "hi" in (answer.choices[0].message.content or "")
    await lg.assistants.create("parrot", name="Polly")
    with pytest.raises(openai.BadRequestError, match="2 assistants have this name"):
        await ai.models.retrieve("Polly")
    for assistant in await lg.assistants.search(name="Polly"):
        await lg.assistants.delete(assistant["assistant_id"])


async def test_a_graph_gets_every_kind_of_message_as_it_was_sent(ai: openai.AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    answer = await ai.chat.completions.create(
        model="parrot",
        messages=[
            {"role": "system", "content": "be kind"},
            {"role": "developer", "content": "be brief"},
            user([{"type": "text", "text": "what is this?"}, image]),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ],
    )
    got = json.loads(answer.choices[0].message.content or "")["messages"]
    assert [message["type"] for message in got] == ["system", "system", "human", "ai", "tool"]
    assert got[2]["content"] == [{"type": "text", "text": "what is this?"}, image]
    assert got[3]["calls"] == [{"name": "f", "args": {"a": 1}, "id": "call_1", "type": "tool_call"}]
    assert (got[4]["content"], got[4]["answers"]) == ("42", "call_1")


async def test_a_graph_gets_the_parameters_that_its_context_declares(ai: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = await ai.chat.completions.create(
        model="parrot", messages=[user("hi")], temperature=0.5, tools=[tool], top_p=0.9, seed=7, extra_body={"odd": 1}
    )
    got = json.loads(answer.choices[0].message.content or "")
    assert (got["temperature"], got["tools"]) == (0.5, 1)


async def test_calls_that_the_graph_leaves_open_are_the_clients_to_execute(ai: openai.AsyncOpenAI) -> None:
    asked = await ai.chat.completions.create(model="caller", messages=[user("weather?")])
    [choice] = asked.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_7", "weather", '{"city":"Paris"}')
    said: Any = choice.message.to_dict()
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = await ai.chat.completions.create(model="caller", messages=[user("weather?"), said, result])
    assert answer.choices[0].message.content == "The tool gave sunny"
    async with ai.chat.completions.stream(model="caller", messages=[user("weather?")]) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    assert (final.choices[0].message.tool_calls or [])[0].function.arguments == '{"city":"Paris"}'


async def test_an_answer_is_what_reaches_the_root_graphs_messages(ai: openai.AsyncOpenAI) -> None:
    whole = await ai.chat.completions.create(model="team", messages=[user("go")])
    stream = await ai.chat.completions.create(model="team", messages=[user("go")], stream=True)
    expected = "Let me see.\n\nthe member speaks"
    assert whole.choices[0].message.content == await text_of(stream) == expected
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 45  # thinker, the tool's model and the member
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 3
    assert whole.usage.completion_tokens_details is not None
    assert whole.usage.completion_tokens_details.reasoning_tokens == 6


async def test_a_project_says_whose_words_are_an_answer(ai: openai.AsyncOpenAI) -> None:
    stream = await ai.chat.completions.create(model="limited", messages=[user("go")], stream=True)
    assert await text_of(stream) == "your invoice is paid"


async def test_on_a_thread_only_what_is_new_is_added(ai: openai.AsyncOpenAI, lg: Client) -> None:
    thread_id = str(uuid.uuid4())
    first = await ai.chat.completions.create(
        model="slow",
        messages=[{"role": "system", "content": "be kind"}, user("0")],
        extra_headers={"X-Thread-Id": thread_id},
    )
    said: Any = first.choices[0].message.to_dict()
    conversation: Any = [{"role": "system", "content": "be kind"}, user("0"), said, user("0.01")]
    await ai.chat.completions.create(model="slow", messages=conversation, metadata={"thread_id": thread_id, "a": "b"})
    await ai.chat.completions.create(model="slow", messages=[user("0.02")], extra_body={"thread_id": thread_id})
    values = (await lg.threads.get_state(thread_id))["values"]
    assert [message["content"] for message in values["messages"]] == [
        *["be kind", "0", "Working", "0.01", "Working", "0.02", "Working"]
    ]
    [newest, middle, _] = await lg.runs.list(thread_id)
    assert middle["metadata"]["a"] == "b"
    assert newest["status"] == "success"
    with pytest.raises(openai.BadRequestError, match="nothing that the thread does not have"):
        await ai.chat.completions.create(model="slow", messages=[said], extra_body={"thread_id": thread_id})


async def test_a_stateless_answer_leaves_nothing_behind(ai: openai.AsyncOpenAI, lg: Client) -> None:
    before = await lg.threads.count()
    answer: Any = await ai.chat.completions.create(model="slow", messages=[user("0")], user="u-1")
    with pytest.raises(NotFoundError):
        await lg.threads.get(answer.waystation["thread_id"])
    assert await lg.threads.count() == before


async def test_a_question_is_shown_and_answered_on_its_thread(ai: openai.AsyncOpenAI) -> None:
    thread = {"thread_id": str(uuid.uuid4())}
    asked: Any = await ai.chat.completions.create(model="asker", messages=[user("paint")], extra_body=thread)
    assert asked.choices[0].message.content == "Which colour?"
    assert asked.choices[0].finish_reason == "stop"
    assert asked.waystation["interrupts"][0]["value"]["options"] == ["red", "blue"]
    said: Any = {"role": "assistant", "content": "Which colour?"}
    stream = await ai.chat.completions.create(
        model="asker", messages=[user("paint"), said, user("blue")], extra_body=thread, stream=True
    )
    assert await text_of(stream) == 'You chose "blue"'


async def test_a_run_that_fails_is_an_error_that_no_client_repeats(chat_server: LiveServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{chat_server.url}/v1", api_key="any", max_retries=2) as ai:
        with pytest.raises(openai.UnprocessableEntityError) as failed:
            await ai.chat.completions.create(model="failing", messages=[user("go")])
        assert failed.value.code == "run_failed"
        assert "ValueError: no more words" in failed.value.message
        stream = await ai.chat.completions.create(model="failing", messages=[user("go")], stream=True)
        words = [(await anext(stream)).choices[0].delta.content or "" for _ in range(5)]
        with pytest.raises(openai.APIError, match="no more words"):
            await anext(stream)
    assert "".join(words) == "I was about to"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_run_of_a_client_that_leaves_is_stopped(chat_server: LiveServer, lg: Client, stream: bool) -> None:
    thread_id = str(uuid.uuid4())
    body = {"model": "slow", "messages": [user("60")], "stream": stream, "thread_id": thread_id}
    async with httpx.AsyncClient(base_url=chat_server.url, timeout=30) as http:
        if stream:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if "Working" in line:
                        break
        else:
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=body, timeout=1.5)

    async def stopped() -> bool:
        return [run["status"] for run in await lg.runs.list(thread_id)] == ["interrupted"]

    await eventually(stopped)


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"messages": [user("x")]}, 400, "model", "invalid_request"),
        ({"model": "parrot"}, 400, "messages", "invalid_request"),
        ({"model": "parrot", "messages": []}, 400, "messages", "invalid_request"),
        ({"model": "parrot", "messages": [{"role": "bird"}]}, 400, "messages.0.role", "invalid_request"),
        ({"model": "parrot", "messages": [{"role": "user"}]}, 400, "messages.0.content", "invalid_request"),
        ({"model": "parrot", "messages": [user("x")], "temperature": 3}, 400, "temperature", "invalid_request"),
        ({"model": "parrot", "messages": [user("x")], "n": 2}, 400, "n", "bad_request"),
        ({"model": "parrot", "messages": [user("x")], "logprobs": True}, 400, "logprobs", "bad_request"),
        ({"model": "nobody", "messages": [user("x")]}, 404, "model", "model_not_found"),
        ({"model": str(uuid.uuid4()), "messages": [user("x")]}, 404, "model", "model_not_found"),
        ({"model": "counter", "messages": [user("x")]}, 400, "model", "bad_request"),
        ({"model": "parrot", "messages": [user("x")], "metadata": {"thread_id": "x"}}, 400, "metadata.thread_id", None),
    ],
)
async def test_what_is_wrong_is_said_in_openais_shape(
    chat_server: LiveServer, body: Any, status: int, param: str, code: str | None
) -> None:
    async with httpx.AsyncClient(base_url=chat_server.url) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert code is None or error["code"] == code
    assert param.split(".")[0] in error["message"]


async def test_a_thread_at_work_is_a_conflict(ai: openai.AsyncOpenAI, lg: Client) -> None:
    thread_id = (await lg.threads.create())["thread_id"]
    run = await lg.runs.create(thread_id, "slow", input={"messages": [user("60")]})
    with pytest.raises(openai.ConflictError) as busy:
        await ai.chat.completions.create(model="slow", messages=[user("0")], extra_body={"thread_id": thread_id})
    assert busy.value.code == "thread_busy"
    await lg.runs.cancel(thread_id, run["run_id"], wait=True)
