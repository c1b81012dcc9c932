"""Models made by name: what they send, what they keep between runs, and what is wrong with a setting."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from integration.provider_calls import CLIENTS, KEY, PATIENT
from providers import FaultServer, Plan
from waystation_guards.providers.models import ModelSettings, Timeouts, chat_model
from waystation_guards.providers.whole_streams import with_whole_streams

pytestmark = pytest.mark.anyio


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv(KEY, "k")
    with FaultServer() as server:
        yield server


def total(model: BaseChatModel) -> AIMessageChunk:
    first, *others = model.stream("hi")
    assert isinstance(first, AIMessageChunk)
    return first + others


async def test_settings_come_from_json_and_make_langchains_own_classes(provider: FaultServer) -> None:
    common: dict[str, Any] = {"api_key_env": KEY, "timeouts": {"first_token_s": 5, "whole_s": 20}}
    made = [
        chat_model({"model": "openai:m", "base_url": provider.openai, **common}),
        chat_model({"model": "anthropic:m", "base_url": provider.anthropic, **common}),
        chat_model(
            {"model": "azure:m", "deployment": "east", "api_version": "v", "base_url": provider.azure, **common}
        ),
        chat_model({"model": "azure_openai:m", "api_version": "v", "base_url": provider.azure, **common}),
    ]
    assert [type(model).__name__ for model in made] == ["ChatOpenAI", "ChatAnthropic", *["AzureChatOpenAI"] * 2]
    for model, kind in zip(made, (ChatOpenAI, ChatAnthropic, AzureChatOpenAI, AzureChatOpenAI), strict=True):
        assert isinstance(model, kind)
        assert (await model.ainvoke("hi")).text == "one two six ten"
    azure = [seen for seen in provider.requests if "deployments" in seen.path]
    assert [seen.path.split("/")[3] for seen in azure] == ["east", "m"]
    assert {seen.query["api-version"] for seen in azure} == {"v"}


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_model_is_used_on_one_event_loop_after_another(provider: FaultServer, client: str) -> None:
    model = CLIENTS[client](provider.urls(), PATIENT)

    def elsewhere() -> str:
        return asyncio.run(model.ainvoke("hi")).text

    for _ in range(3):
        assert await asyncio.to_thread(elsewhere) == "one two six ten"
        assert (await model.ainvoke("hi")).text == "one two six ten"
        assert (await asyncio.to_thread(model.invoke, "hi")).text == "one two six ten"


async def test_connections_outlive_the_models_of_a_run(provider: FaultServer) -> None:
    for _ in range(3):
        for make in CLIENTS.values():
            await make(provider.urls(), PATIENT).ainvoke("hi")
    # One SDK's models share them: the one of OpenAI and the one of Anthropic.
    assert provider.connections == 2


async def test_a_stream_at_any_address_tells_its_usage(provider: FaultServer) -> None:
    plain = ChatOpenAI(model="m", api_key="k", base_url=provider.openai)  # pyright: ignore[reportArgumentType]
    assert total(plain).usage_metadata is None
    made = chat_model(ModelSettings("openai:m", base_url=provider.openai, api_key_env=KEY))
    used = total(made).usage_metadata
    assert used is not None
    assert used["total_tokens"] == 9
    silent = chat_model(ModelSettings("openai:m", base_url=provider.openai, api_key_env=KEY, stream_usage=False))
    total(silent)
    assert "stream_options" not in provider.requests[-1].body


async def test_langchains_clients_take_a_stream_without_its_end_for_an_answer(provider: FaultServer) -> None:
    """Why whole streams are needed; where this fails, LangChain has learned it."""
    provider.always("no_end")
    plain = ChatOpenAI(model="m", api_key="k", base_url=provider.openai)  # pyright: ignore[reportArgumentType]
    assert total(plain).text == "one two six "
    provider.always("truncated_tool")
    assert total(plain).tool_calls[0]["args"] == {"query": "one t"}
    with pytest.raises(Exception, match="without its end"):
        total(with_whole_streams(plain))


async def test_no_key_goes_to_an_address_that_none_is_named_for(
    provider: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    await chat_model({"model": "openai:m", "base_url": provider.openai}).ainvoke("hi")
    await chat_model({"model": "anthropic:m", "base_url": provider.anthropic}).ainvoke("hi")
    assert "secret" not in repr([seen.headers for seen in provider.requests])


async def test_tools_structured_output_and_parameters_work_as_on_langchains_own(provider: FaultServer) -> None:
    call = Plan(tool_calls=(("Answer", {"number": 3}),))
    schema: Any = {
        "title": "Answer",
        "description": "The answer.",
        "type": "object",
        "properties": {"number": {"type": "integer"}},
        "required": ["number"],
    }
    for name, make in CLIENTS.items():
        model = make(provider.urls(), PATIENT)
        provider.script(call, call)
        structured: Any = model.with_structured_output(schema, method="function_calling")
        assert await structured.ainvoke("hi") == {"number": 3}, name
        first, *others = [piece async for piece in model.bind_tools([schema]).astream("hi")]
        assert isinstance(first, AIMessageChunk)
        whole: Any = first + others
        assert whole.tool_calls[0]["args"] == {"number": 3}, name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gpt-5-mini", "<provider>:<name>"),
        ({"model": "openai:"}, "<provider>:<name>"),
        ({"base_url": "x"}, "model is missing"),
        ({"model": 3}, "model is 3; expected is a string"),
        ({"model": "openai:m", "modle": 1}, "model.modle is unknown"),
        ({"model": "openai:m", "timeouts": {"first_s": 1}}, "timeouts.first_s is unknown"),
        ({"model": "openai:m", "timeouts": {"whole_s": 0}}, "timeouts.whole_s is 0"),
        ({"model": "openai:m", "timeouts": {"whole_s": True}}, "timeouts.whole_s is True"),
        ({"model": "openai:m", "timeouts": 3}, "timeouts is 3; expected is an object"),
        ({"model": "openai:m", "api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, which is not set"),
        ({"model": "groq:m"}, "package for groq is not installed"),
        ({"model": "nobody:m"}, "nobody"),
    ],
)
def test_a_wrong_setting_is_named(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        chat_model(given)


def test_a_provider_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_anthropic", None)
    with pytest.raises(ValueError, match=r"waystation\[anthropic\]"):
        chat_model("anthropic:m")


def test_errors_are_classified_without_loading_any_client() -> None:
    code = (
        "import sys, waystation_guards.providers.errors as e; e.classify(ValueError());"
        "sys.exit(any(n in sys.modules for n in ('openai', 'anthropic', 'langchain_openai', 'langchain_anthropic')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_timeouts_have_an_order_of_their_own() -> None:
    assert Timeouts(first_token_s=3, between_tokens_s=9).longest_silence_s == 9


def test_the_fault_server_enforces_and_tells_its_limits(provider: FaultServer) -> None:
    provider.target().allow(requests=2, tokens=1_000, per_s=3600.0)
    client = openai.OpenAI(api_key="k", base_url=provider.openai, max_retries=0)
    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    create: Any = client.chat.completions.with_raw_response.create
    told = [create(**ask).headers for _ in range(2)]
    assert [one["x-ratelimit-remaining-requests"] for one in told] == ["1", "0"]
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ask)
    assert float(caught.value.response.headers["retry-after"]) > 60
    client.close()
    header = {"authorization": "Bearer k", "x-fault": "unavailable"}
    assert httpx.post(f"{provider.openai}/chat/completions", json=ask, headers=header).status_code == 503


def test_the_fault_server_is_a_process_too() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.providers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        root = process.stdout.readline().strip()
        httpx.post(f"{root}/_control/script?target=east", json=["auth", {"fault": "ok", "text": "a b"}])
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        url, key = f"{root}/t/east/v1/chat/completions", {"authorization": "Bearer k"}
        assert httpx.post(url, json=asked, headers=key).status_code == 401
        assert httpx.post(url, json=asked, headers=key).json()["choices"][0]["message"]["content"] == "a b"
        bill = httpx.get(f"{root}/_control/bill").json()
        assert (bill["charges"], bill["output_tokens"]) == (1, 2)
        assert [one["ended"] for one in httpx.get(f"{root}/_control/requests").json()] == ["failed", "answered"]
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()
    assert process.returncode == 0
