"""Chat completions through OpenAI's own client: assistants as models."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Generator
from typing import Any

import openai
import pytest

from live_server import Client, LiveServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ai(live_server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def sync_ai(live_server: LiveServer) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def user(text: Any) -> Any:
    return {"role": "user", "content": text}


async def test_a_conversation_is_answered(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(model="chat", messages=[user("tell me more")])
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "You said: tell me more")
    assert (choice.finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "chat")
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4, 7)


async def test_an_answer_streams_word_by_word(ai: openai.AsyncOpenAI) -> None:
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


def test_the_client_without_async_gets_the_same(sync_ai: openai.OpenAI) -> None:
    whole = sync_ai.chat.completions.create(model="chat", messages=[user("hi there")])
    stream = sync_ai.chat.completions.create(model="chat", messages=[user("hi there")], stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content == "You said: hi there"


async def test_tools_of_the_graph_are_its_own_and_all_its_model_calls_are_paid(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(model="agent", messages=[user("add 2 3")])
    assert answer.choices[0].message.content == "The sum is 5."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14
