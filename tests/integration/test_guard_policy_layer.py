"""The layer over models of real providers' packages that nobody edited, against providers that can be told to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from providers import FaultServer, Plan
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.errors import AllTargetsFailed, BudgetExceeded
from waystation_guards.failover.policy import DECISIONS, Decision, FailoverPolicy
from waystation_guards.failover.targets import Target
from waystation_guards.memory.ports import memory_ports
from waystation_guards.model_layer import Failover, Layer, install, layered
from waystation_guards.ports import use_ports
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio


@tool
def search(q: str) -> str:
    """Search for something."""
    return q


@dataclass(frozen=True, slots=True)
class World:
    """Two providers, and a model of each: what a graph calls, and what stands behind it."""

    server: FaultServer
    openai: Any
    anthropic: Any
    cheap: Any

    def failing_over(self) -> Layer:
        """A layer that asks Anthropic where OpenAI fails."""
        decisions: dict[Any, Decision] = {kind: Decision() for kind in DECISIONS}
        return Layer(failover=Failover({"gpt-*": (Target(self.anthropic),)}, FailoverPolicy(decisions, breaker=None)))

    def models(self) -> list[str]:
        """What was asked, in order."""
        return [seen.model for seen in self.server.requests]


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    install()
    use_ports(memory_ports())
    async with AsyncExitStack() as stack:
        server = stack.enter_context(FaultServer())
        clients: dict[str, Any] = {
            "http_async_client": await stack.enter_async_context(httpx.AsyncClient()),
            "http_client": stack.enter_context(httpx.Client()),
        }
        chat: Any = ChatOpenAI
        common: dict[str, Any] = {"api_key": "k", "base_url": server.openai, "max_retries": 0, "stream_usage": True}
        openai = chat(model="gpt-4o", temperature=0, **common, **clients)
        cheap = chat(model="gpt-4o-mini", **common, **clients)
        other: Any = ChatAnthropic
        anthropic = other(model="claude-sonnet-5", api_key="k", base_url=server.anthropic, max_retries=0)
        yield World(server, openai, anthropic, cheap)
        await anthropic._async_client.close()
        anthropic._client.close()


async def test_a_model_without_a_layer_is_called_as_ever(world: World) -> None:
    assert (await world.openai.ainvoke("hi")).text
    assert world.models() == ["gpt-4o"]
    world.server.script("overloaded")
    with pytest.raises(Exception, match=r"503|529|overload"):
        await world.openai.ainvoke("hi")


async def test_another_provider_answers_where_the_model_fails_whole_streamed_and_in_threads(world: World) -> None:
    world.server.script("rate_limit", "ok", "server_error", "ok", "server_error", "ok", "server_error", "ok")
    with layered(world.failing_over()):
        whole = await world.openai.ainvoke("hi")
        assert whole.response_metadata["failover"]["target"] == "anthropic/claude-sonnet-5"
        assert "".join([chunk.text async for chunk in world.openai.astream("hi")]) == whole.text
        assert (await asyncio.to_thread(world.openai.invoke, "hi")).text == whole.text
        streamed = await asyncio.to_thread(lambda: [chunk.text for chunk in world.openai.stream("hi")])
        assert "".join(streamed) == whole.text
    assert set(world.models()) == {"gpt-4o", "claude-sonnet-5"}


async def test_bound_tools_are_bound_to_the_other_provider_in_its_own_form(world: World) -> None:
    call = Plan("ok", tool_calls=(("search", {"q": "x"}),))
    world.server.script("overloaded", call)
    with layered(world.failing_over()):
        answer: AIMessage = await world.openai.bind_tools([search], tool_choice="search").ainvoke("find x")
    assert [(one["name"], one["args"]) for one in answer.tool_calls] == [("search", {"q": "x"})]
    assert world.models() == ["gpt-4o", "claude-sonnet-5"]


async def test_a_call_that_only_its_provider_understands_goes_nowhere_else(world: World) -> None:
    world.server.always("overloaded")
    with layered(world.failing_over()), pytest.raises(AllTargetsFailed):
        await world.openai.ainvoke("hi", response_format={"type": "json_object"})
    assert set(world.models()) == {"gpt-4o"}


async def test_an_answer_that_is_known_is_given_again_and_costs_nothing(world: World) -> None:
    with layered(Layer(cache=ResponseCache(CacheRules()))):
        first, again = await world.openai.ainvoke("hi"), await world.openai.ainvoke("hi")
        streamed = [chunk.text async for chunk in world.openai.astream("hi")]
    assert first.text == again.text == "".join(streamed)
    assert world.models() == ["gpt-4o"]


async def test_a_budget_that_degrades_is_served_by_the_cheaper_model(world: World) -> None:
    prices = Prices({name: Rates(*_dollars(rate)) for name, rate in {"gpt-4o": 100, "gpt-4o-mini": 1}.items()})
    limit = Limit(0.05, scope="tenant", on_limit="degrade", degrade_at=0.01)
    budget = Budget(limit, prices=prices, wait_s=0)
    with layered(Layer(cheaper={"gpt-4o": world.cheap}, max_tokens=10)):
        answers = [await world.openai.ainvoke("hi", watched(None, [budget])) for _ in range(3)]
    assert all(answer.text for answer in answers)
    assert world.models()[-1] == "gpt-4o-mini"
    assert world.models().count("gpt-4o") < 3


async def test_a_refusal_is_one_also_in_a_layer(world: World) -> None:
    spent = watched(None, [Budget(Limit(0, "model_calls"))])
    with layered(world.failing_over()):
        with pytest.raises(BudgetExceeded):
            await world.openai.ainvoke("hi", spent)
        with pytest.raises(BudgetExceeded):
            await asyncio.to_thread(world.openai.invoke, "hi", spent)
        with pytest.raises(BudgetExceeded):
            _ = [chunk async for chunk in world.openai.astream("hi", spent)]
    assert world.models() == []


async def test_where_the_level_is_reduced_the_cheaper_model_answers(world: World) -> None:
    level = ["full"]
    with layered(Layer(cheaper={"openai/gpt-4o": world.cheap}, reduced=lambda: level[0] != "full")):
        await world.openai.ainvoke("hi")
        level[0] = "reduced"
        await world.openai.bind_tools([search]).ainvoke("hi")
        assert "".join([chunk.text async for chunk in world.openai.astream("hi")])
        await world.anthropic.ainvoke("hi")
    assert world.models() == ["gpt-4o", "gpt-4o-mini", "gpt-4o-mini", "claude-sonnet-5"]


async def test_answers_are_no_longer_than_the_cap(world: World) -> None:
    with layered(Layer(max_tokens=7)):
        await world.openai.ainvoke("hi")
        await world.anthropic.ainvoke("hi", max_tokens=3)
    asked = [seen.body for seen in world.server.requests]
    assert asked[0].get("max_completion_tokens", asked[0].get("max_tokens")) == 7
    assert asked[1]["max_tokens"] == 3


def _dollars(rate: int) -> tuple[Any, Any]:
    return Decimal(rate), Decimal(rate)
