"""LangChain's own cache over the guards' cache: for graphs that nobody edited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypedDict, cast

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph

from scripted_calls import ScriptedModel
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.caching.rules import CacheEvent, CacheRules
from waystation_guards.caching.shared import SharedCache
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Ports, use_ports
from waystation_guards.watching.watcher import Watcher

pytestmark = pytest.mark.anyio

ANY = CacheRules(temperature="any")


class State(TypedDict, total=False):
    said: str


@pytest.fixture
def ports() -> Ports:
    ports = memory_ports()
    use_ports(ports)
    return ports


@pytest.fixture(autouse=True)
def no_cache_afterwards() -> Iterator[None]:
    before = get_llm_cache()
    yield
    set_llm_cache(before)


async def say(model: Any, config: Any, how: str = "ainvoke", what: Any = "hi") -> str:
    """Ask from within a node of a graph that knows of no cache."""

    async def node(state: State) -> State:
        return {"said": str((await model.ainvoke(what)).text)}

    def blocking_node(state: State) -> State:
        return {"said": str(model.invoke(what).text)}

    builder: Any = StateGraph(State)
    builder.add_node("speaker", node if how == "ainvoke" else blocking_node)
    graph = builder.add_edge(START, "speaker").add_edge("speaker", END).compile()
    return str((await graph.ainvoke({}, config))["said"])


def config_of(ports: Ports, *guards: Any, tenant: str = "acme", run: str = "r1", **more: Any) -> Any:
    configurable = {PORTS_KEY: replace(ports, tenant=tenant), "run_id": run, **more}
    return {"configurable": configurable, "callbacks": Watcher(list(guards)).handlers}


@pytest.mark.parametrize("again", ["ainvoke", "invoke"])
@pytest.mark.parametrize("first", ["ainvoke", "invoke"])
async def test_a_graph_that_nobody_edited_pays_once(ports: Ports, first: str, again: str) -> None:
    events, model = list[CacheEvent](), ScriptedModel(calls=[])
    set_llm_cache(SharedCache(ANY, on_event=events.append))
    for how in (first, again):
        assert await say(model, config_of(ports), how) == "a b c d"
    assert len(model.calls) == 1
    assert [event.happened for event in events] == ["miss", "kept", "hit"]


async def test_a_hit_costs_nothing_and_what_was_held_for_it_is_given_back(ports: Ports) -> None:
    budget, model = Budget(Limit(5, "model_calls", scope="tenant")), ScriptedModel(calls=[])
    set_llm_cache(SharedCache(ANY))
    for _ in range(3):
        await say(model, config_of(ports, budget))
    (standing,) = await budget.standing(ports, CallSite(tenant="acme"))
    assert (standing.spent, standing.held) == (1, 0)
    kinds = [entry.kind for _, _, entry in cast("MemoryLedger", ports.ledger).entries]
    assert sorted(kinds) == ["cache_hit", "cache_hit", "model"]


async def test_hits_of_langchains_own_caches_cost_nothing_either(ports: Ports) -> None:
    budget, model = Budget(Limit(5, "model_calls", scope="tenant")), ScriptedModel(calls=[])
    set_llm_cache(InMemoryCache())
    for how in ("ainvoke", "ainvoke", "invoke"):
        await say(model, config_of(ports, budget), how)
    (standing,) = await budget.standing(ports, CallSite(tenant="acme"))
    assert (standing.spent, standing.held, len(model.calls)) == (1, 0, 1)


async def test_rules_are_those_of_the_running_config(ports: Ports) -> None:
    model = ScriptedModel(calls=[])
    set_llm_cache(SharedCache(lambda config: ANY if (config or {}).get("configurable", {}).get("cached") else None))
    for cached in (False, False, True, True):
        await say(model, config_of(ports, cached=cached))
    assert len(model.calls) == 3


async def test_tenants_and_users_are_kept_apart(ports: Ports) -> None:
    model, private = ScriptedModel(calls=[]), ScriptedModel(calls=[], model="private")
    set_llm_cache(SharedCache(ANY))
    for tenant in ("acme", "globex", "acme"):
        await say(model, config_of(ports, tenant=tenant))
    set_llm_cache(SharedCache(replace(ANY, scope="user")))
    for user in ("ada", "bob", "ada", "", ""):
        await say(private, config_of(ports, user_id=user))
    assert (len(model.calls), len(private.calls)) == (2, 4)


@pytest.mark.parametrize(
    ("rules", "bound", "calls"),
    [
        (CacheRules(), {}, 2),
        (CacheRules(), {"temperature": 0}, 1),
        (CacheRules(), {"temperature": 0.5}, 2),
        (CacheRules(temperature="unset"), {}, 1),
        (CacheRules(temperature="unset"), {"temperature": 0.5}, 2),
        (CacheRules(temperature="any"), {"temperature": 0.5}, 1),
    ],
)
async def test_answers_that_vary_are_kept_only_if_told(ports: Ports, rules: CacheRules, bound: Any, calls: int) -> None:
    model = ScriptedModel(calls=[])
    set_llm_cache(SharedCache(rules))
    for _ in range(2):
        await say(model.bind(**bound), config_of(ports))
    assert len(model.calls) == calls


async def test_the_temperature_of_a_provider_is_seen(ports: Ports) -> None:
    from langchain_openai import ChatOpenAI

    class Offline(ChatOpenAI):
        async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            asked.append(self.temperature)
            message = AIMessage("yes", response_metadata={"finish_reason": "stop", "model_provider": "openai"})
            return ChatResult(generations=[ChatGeneration(message=message)])

    asked: list[Any] = []
    set_llm_cache(SharedCache())
    key: Any = "x"
    for temperature in (0, 0, 0.7, 0.7, None):
        await say(Offline(model="gpt-4o-mini", temperature=temperature, api_key=key), config_of(ports))
    assert asked == [0, 0.7, 0.7, None]


async def test_ids_of_messages_and_tool_calls_make_no_difference(ports: Ports) -> None:
    def conversation(number: int) -> list[Any]:
        call: Any = {"name": "look", "args": {}, "id": f"call-{number}"}
        asked = AIMessage("", tool_calls=[call], id=f"a-{number}", response_metadata={"at": number})
        return [HumanMessage("hi", id=f"m-{number}"), asked, ToolMessage("seen", tool_call_id=f"call-{number}")]

    model = ScriptedModel(calls=[])
    set_llm_cache(SharedCache(ANY))
    for number in (1, 2):
        await say(model, config_of(ports), what=conversation(number))
    assert len(model.calls) == 1
    await say(model, config_of(ports), what=conversation(1)[:1])
    assert len(model.calls) == 2


async def test_what_was_cut_is_not_kept(ports: Ports) -> None:
    class Cut(ScriptedModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
            self.calls.append("whole")
            message = AIMessage("half a sen", response_metadata={"finish_reason": "length"})
            return ChatResult(generations=[ChatGeneration(message=message)])

    model = Cut(calls=[])
    set_llm_cache(SharedCache(ANY))
    for _ in range(2):
        await say(model, config_of(ports))
    assert len(model.calls) == 2


async def test_of_many_runs_that_ask_the_same_at_once_one_pays(ports: Ports) -> None:
    model = ScriptedModel(calls=[], pause_s=0.05)
    set_llm_cache(SharedCache(ANY))
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(say(model, config_of(ports, run=f"r{number}")) for number in range(10)))
    assert said == ["a b c d"] * 10
    assert len(model.calls) == 1


async def test_the_retry_of_a_failed_call_does_not_wait_for_it(ports: Ports) -> None:
    class Once(ScriptedModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
            result = super()._generate(messages)
            if len(self.calls) == 1:
                raise ValueError("no")
            return result

    model = Once(calls=[])
    set_llm_cache(SharedCache(ANY))
    async with asyncio.timeout(60):
        assert await say(model.with_retry(wait_exponential_jitter=False), config_of(ports)) == "a b c d"
    assert len(model.calls) == 2


async def test_a_cache_that_is_away_is_not_in_the_way(ports: Ports) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError("away")

    real = ports.cache
    for method in ("get", "put", "lock", "unlock"):
        names = ("get", "put", "lock", "unlock")
        cache: Any = type("Away", (), {})()
        for name in names:
            setattr(cache, name, away if name == method else getattr(real, name))
        model = ScriptedModel(calls=[], model=method)
        set_llm_cache(SharedCache(ANY))
        assert await say(model, config_of(replace(ports, cache=cache))) == "a b c d"
        assert len(model.calls) == 1


async def test_without_a_graph_it_works_and_nobody_waits(ports: Ports) -> None:
    model = ScriptedModel(calls=[])
    set_llm_cache(SharedCache(ANY))
    for _ in range(2):
        await model.ainvoke("hi")
        await asyncio.to_thread(model.invoke, "hi")
    assert len(model.calls) == 1


async def test_clearing_removes_nothing_of_others(ports: Ports) -> None:
    model, cache = ScriptedModel(calls=[]), SharedCache(ANY)
    set_llm_cache(cache)
    await say(model, config_of(ports))
    await cache.aclear()
    cache.clear()
    await say(model, config_of(ports))
    assert len(model.calls) == 1
