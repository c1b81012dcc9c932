"""Prompts are marked for the provider's cache where it pays, and only there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from langchain import agents
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from waystation_guards.caching.prompts import PromptCaching, PromptCachingModel
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.caches import PromptCachingMiddleware
from waystation_guards.ports import Ports, use_ports

pytestmark = pytest.mark.anyio

MARK = {"type": "ephemeral"}
LONG = "You are a careful assistant. " * 400
"""Some 2,800 tokens."""
KEY: Any = "x"


@tool
def look(at: int) -> str:
    """Look."""
    return str(at)


class Anthropic(ChatAnthropic):
    """Notes what would be sent, and answers with a usage."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        sent.append(cast("Any", self)._get_request_payload(messages, stop=stop, **kwargs))
        message = AIMessage("yes", usage_metadata=cast("Any", usage or None))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages, stop, **kwargs)


class OpenAI(ChatOpenAI):
    """As `Anthropic`."""

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        sent.append(cast("Any", self)._get_request_payload(messages, stop=stop, **kwargs))
        return ChatResult(generations=[ChatGeneration(message=AIMessage("yes"))])


sent: list[Any] = []
usage: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def ports() -> Ports:
    sent.clear()
    usage.clear()
    ports = memory_ports()
    use_ports(ports)
    return ports


def anthropic_of(name: str) -> Anthropic:
    given: Any = {"model_name": name, "api_key": KEY}
    return Anthropic(**given)


def anthropic(name: str = "claude-sonnet-4-5", **settings: Any) -> PromptCachingModel:
    return PromptCachingModel(inner=anthropic_of(name), settings=PromptCaching(**settings))


def marks(payload: Any) -> tuple[bool, bool, bool]:
    """Whether the tools, the system prompt and the history are marked."""
    system = payload.get("system")
    return (
        any("cache_control" in one for one in payload.get("tools") or ()),
        isinstance(system, list) and any("cache_control" in one for one in cast("Any", system)),
        "cache_control" in payload or "cache_control" in str(payload["messages"]),
    )


async def ask(model: Any, system: str = LONG, question: str = "hi") -> Any:
    await model.ainvoke([SystemMessage(system), HumanMessage(question)])
    return marks(sent[-1])


async def test_a_prefix_is_marked_when_it_is_seen_again() -> None:
    model = anthropic()
    assert await ask(model) == (False, False, False)
    assert await ask(model, question="something else") == (False, True, True)
    assert await ask(model, system="Another one. " + LONG) == (False, False, False)


async def test_tools_are_part_of_the_prefix_and_marked_with_it() -> None:
    model = anthropic().bind_tools([look])
    assert await ask(model) == (False, False, False)
    assert await ask(model) == (True, True, True)
    assert await ask(anthropic()) == (False, False, False)


async def test_an_agent_in_the_middle_of_its_tool_calls_is_marked_at_once() -> None:
    call: Any = {"name": "look", "args": {"at": 1}, "id": "c1"}
    messages = [SystemMessage(LONG), HumanMessage("hi"), AIMessage("", tool_calls=[call])]
    await anthropic().ainvoke([*messages, ToolMessage("seen", tool_call_id="c1")])
    assert marks(sent[-1]) == (False, True, True)


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("claude-sonnet-4-5", True),
        ("claude-opus-4-1", True),
        ("claude-3-5-haiku-latest", True),
        ("claude-haiku-4-5", False),
        ("claude-opus-4-5", False),
    ],
)
async def test_what_is_shorter_than_the_models_minimum_is_not_marked(name: str, marked: bool) -> None:
    assert (await ask(anthropic(name, reuse="always")))[1] is marked
    assert await ask(anthropic(name, reuse="always"), system="be brief") == (False, False, False)


async def test_a_long_conversation_under_a_short_prompt_is_marked_at_its_end_only() -> None:
    model = anthropic(reuse="always")
    history = [HumanMessage("word " * 3_000), AIMessage("fine"), HumanMessage("and?")]
    await model.ainvoke([SystemMessage("be brief"), *history])
    assert marks(sent[-1]) == (False, False, True)
    await anthropic(reuse="always", history=False).ainvoke([SystemMessage("be brief"), *history])
    assert marks(sent[-1]) == (False, False, False)


async def test_an_hours_mark_says_so() -> None:
    await ask(anthropic(reuse="always", ttl="1h"))
    assert sent[-1]["system"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


async def test_messages_that_were_given_are_left_as_they_are() -> None:
    system = SystemMessage(LONG)
    await anthropic(reuse="always").ainvoke([system, HumanMessage("hi")])
    assert system.content == LONG


async def test_tenants_do_not_see_each_others_prompts() -> None:
    prompt = [SystemMessage(LONG), HumanMessage("hi")]
    for tenant in ("acme", "globex", "acme"):
        whose: Any = {"configurable": {"tenant_id": tenant}}
        await PromptCachingModel(inner=OpenAI(model="gpt-4o", api_key=KEY)).ainvoke(prompt, whose)
        await anthropic().ainvoke(prompt, whose)
    acme, _, globex, _, again, marked = sent
    assert acme["prompt_cache_key"] == again["prompt_cache_key"] != globex["prompt_cache_key"]
    assert [marks(payload)[1] for payload in (sent[1], sent[3], marked)] == [False, False, True]


async def test_openais_models_get_a_key_of_the_prefix() -> None:
    model = PromptCachingModel(inner=OpenAI(model="gpt-4o", api_key=KEY, disable_streaming=True))
    for system, question in ((LONG, "a"), (LONG, "b"), ("Else. " + LONG, "a"), ("short", "a")):
        await model.ainvoke([SystemMessage(system), HumanMessage(question)])
    first, second, third, fourth = (payload.get("prompt_cache_key") for payload in sent)
    assert first == second != third
    assert fourth is None
    await model.ainvoke([SystemMessage(LONG), HumanMessage("a")], prompt_cache_key="mine")
    assert sent[-1]["prompt_cache_key"] == "mine"


async def test_what_it_saved_is_in_the_ledger(ports: Ports) -> None:
    details = {"cache_read": 90_000, "cache_creation": 0}
    usage.update(input_tokens=100_000, output_tokens=0, total_tokens=100_000, input_token_details=details)
    await ask(anthropic())
    details.update(cache_read=0, cache_creation=90_000)
    await ask(anthropic())
    read, written = [entry.detail for _, _, entry in cast("MemoryLedger", ports.ledger).entries]
    assert read["what"] == written["what"] == "prompt_cache"
    assert (read["read"], written["written"]) == (90_000, 90_000)
    assert read["saved_nano_usd"] == 90_000 * (3_000 - 300)
    assert written["saved_nano_usd"] == 90_000 * (3_000 - 3_750)


async def test_an_agents_prompts_are_marked() -> None:
    model = anthropic_of("claude-sonnet-4-5")
    middleware = PromptCachingMiddleware(PromptCaching(reuse="always"))
    agent = cast("Any", agents).create_agent(model, [look], system_prompt=LONG, middleware=[middleware])
    await agent.ainvoke({"messages": [("user", "hi")]})
    agent.invoke({"messages": [("user", "hi")]})
    assert [marks(payload) for payload in sent] == [(True, True, True)] * 2


async def test_a_cache_that_is_away_marks_nothing(ports: Ports) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError("away")

    cache: Any = type("Away", (), {"get": away, "put": away})
    use_ports(replace(ports, cache=cache))
    model = anthropic()
    for _ in range(2):
        assert await ask(model) == (False, False, False)


@pytest.mark.parametrize(
    ("settings", "named"), [({"ttl": "2h"}, "ttl"), ({"reuse": "no"}, "reuse"), ({"min_tokens": -1}, "min_tokens")]
)
def test_settings_that_make_no_sense_are_refused(settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PromptCaching(**settings)
