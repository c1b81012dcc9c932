"""The forms of a model's rate limit: middleware of an agent, a guarded graph, and LangChain's `rate_limiter=`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]  # its own generics
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from scripted_calls import ScriptedModel
from virtual_time import VirtualTime
from waystation_guards.errors import RateLimited
from waystation_guards.guarded.graph import guarded
from waystation_guards.memory.ports import memory_ports
from waystation_guards.memory.state import MemoryState
from waystation_guards.middleware.rates import RateLimitMiddleware
from waystation_guards.ports import Ports, use_ports
from waystation_guards.rates.guard import RateLimit
from waystation_guards.rates.limiter import SharedRateLimiter
from waystation_guards.rates.rules import ModelRate

pytestmark = pytest.mark.anyio

HELLO: Any = {"messages": [HumanMessage("hi")]}


@pytest.fixture(autouse=True)
def ports() -> Ports:
    new = memory_ports()
    use_ports(new)
    return new


def two() -> RateLimit:
    return RateLimit(ModelRate(requests=2, seconds=3600), wait_s=0)


async def test_an_agents_calls_are_limited_by_its_middleware() -> None:
    model = ScriptedModel()
    agent: Any = create_agent(model, middleware=[RateLimitMiddleware(two())])
    for _ in range(2):
        answer = await agent.ainvoke(HELLO)
        assert answer["messages"][-1].text == "a b c d"
    with pytest.raises(RateLimited):
        await agent.ainvoke(HELLO)
    assert len(model.calls) == 2


def test_blocking_agents_are_limited_too() -> None:
    model = ScriptedModel()
    agent: Any = create_agent(model, middleware=[RateLimitMiddleware(two())])
    agent.invoke(HELLO)
    list(agent.stream(HELLO, stream_mode="messages"))
    with pytest.raises(RateLimited):
        agent.invoke(HELLO)
    assert len(model.calls) == 2


async def test_a_graph_that_nobody_edited_is_limited() -> None:
    model = ScriptedModel()

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"]), await model.ainvoke(state["messages"])]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph: Any = guarded(builder.compile(), [two()])
    await graph.ainvoke(HELLO)
    with pytest.raises(RateLimited):
        await graph.ainvoke(HELLO)
    assert len(model.calls) == 2


async def test_models_with_a_shared_limiter_wait_their_turn(ports: Ports) -> None:
    time = VirtualTime()
    shared = replace(ports, state=MemoryState(time.clock))
    went: list[float] = []

    async def one(model: ScriptedModel) -> None:
        await model.ainvoke("hi")
        went.append(time.clock() - 1000)

    def model() -> ScriptedModel:
        limiter = SharedRateLimiter("a/b", requests=2, seconds=10, ports=shared, sleep=time.sleep)
        return ScriptedModel(rate_limiter=limiter)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(used) for used in [model(), model()] * 2))

    await time.run(all_of_them())
    assert went == pytest.approx([0, 0, 5, 10])


async def test_a_shared_limiter_refuses_instead_of_blocking_where_asked(ports: Ports) -> None:
    limiter = SharedRateLimiter("a/b", requests=1, wait_s=0)
    assert await limiter.aacquire(blocking=False)
    assert not await limiter.aacquire(blocking=False)
    assert not await asyncio.to_thread(limiter.acquire, blocking=False)
    with pytest.raises(RateLimited, match="a/b is at its limit"):
        await limiter.aacquire()


async def test_a_shared_limiter_and_the_guard_count_together(ports: Ports) -> None:
    limiter = SharedRateLimiter("x/m", requests=2)
    model = ScriptedModel(model="m", metadata={"waystation_target": "x/m"})
    graph = guarded(model, [RateLimit(ModelRate(target="x/*", requests=2), wait_s=0)])
    assert await limiter.aacquire(blocking=False)
    await graph.ainvoke("hi")
    with pytest.raises(RateLimited):
        await graph.ainvoke("hi")
    assert not await limiter.aacquire(blocking=False)


def test_a_shared_limiter_blocks_threads(ports: Ports) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    limiter = SharedRateLimiter("a/b", requests=1, seconds=20, sleep=sleep)
    assert limiter.acquire()
    assert limiter.acquire()
    assert 19 < waits[0] <= 20
