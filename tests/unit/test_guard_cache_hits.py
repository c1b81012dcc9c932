"""Answers are paid for once: what a hit costs and how it shows, and what is kept."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph

from cached_calls import ANY, COST, HOW, PRICES, Says, State, World
from scripted_calls import USAGE, ScriptedModel
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.caching.answers import MARK
from waystation_guards.caching.rules import CacheRules
from waystation_guards.calls import CallSite
from waystation_guards.errors import BudgetExceeded

pytestmark = pytest.mark.anyio

# What a hit is, and what it costs


@pytest.mark.parametrize("again", HOW)
@pytest.mark.parametrize("first", HOW)
async def test_the_same_question_is_paid_for_once_however_it_is_asked(first: str, again: str) -> None:
    world = World()
    assert await world.ask(how=first) == "a b c d"
    assert await world.ask(how=again) == "a b c d"
    assert world.calls == 1
    assert world.happened == ["miss", "kept", "hit"]


async def test_a_hit_is_a_free_entry_in_the_ledger_with_what_it_saved() -> None:
    world, budget = World(), Budget(Limit(1, scope="tenant"), prices=PRICES)
    await world.ask(guards=[budget])
    await world.ask(guards=[budget])
    assert [(entry.kind, entry.cost_nano_usd) for entry in world.entries] == [("model", COST), ("cache_hit", 0)]
    hit = world.entries[-1]
    assert (hit.model, hit.spent) == ("scripted", {})
    assert hit.detail == {"node": "speaker", "layer": "exact", "saved_tokens": 7, "saved_nano_usd": COST}
    assert (world.events[-1].saved_tokens, world.events[-1].saved_nano_usd) == (7, COST)


@pytest.mark.parametrize("how", HOW)
async def test_a_hit_needs_no_budget_and_holds_none(how: str) -> None:
    world, budget = World(), Budget(Limit(1, "model_calls", scope="tenant"), prices=PRICES, wait_s=0)
    await world.ask(how=how, guards=[budget])
    assert await world.ask(how=how, guards=[budget]) == "a b c d"
    (standing,) = await budget.standing(world.ports, CallSite(tenant="acme"))
    assert (standing.spent, standing.held) == (1, 0)
    with pytest.raises(BudgetExceeded):
        await world.ask("something else", how=how, guards=[budget])


@pytest.mark.parametrize("how", HOW)
async def test_guards_see_a_miss_once(how: str) -> None:
    world, budget = World(), Budget(Limit(9, "model_calls", scope="tenant"), prices=PRICES)
    await world.ask(how=how, guards=[budget])
    (standing,) = await budget.standing(world.ports, CallSite(tenant="acme"))
    assert (standing.spent, standing.held) == (1, 0)


async def test_a_hit_says_so_and_is_a_message_of_its_own() -> None:
    world = World()
    first, hit = await world.model.ainvoke("hi"), await world.model.ainvoke("hi")
    assert hit.response_metadata[MARK] == {"layer": "exact", "saved_tokens": 7, "saved_nano_usd": COST}
    assert MARK not in first.response_metadata
    assert first.id != hit.id
    assert cast("Any", hit.usage_metadata) == {**USAGE, "total_cost": 0}


async def test_a_stream_of_a_hit_comes_in_pieces_and_adds_up_to_the_answer() -> None:
    said = AIMessage("one two three four five six seven eight nine ten", usage_metadata=USAGE)
    said.response_metadata = {"finish_reason": "stop", "model_name": "scripted"}
    world = World(model=Says(answers=[said]))
    await world.model.ainvoke("hi")
    chunks = [chunk async for chunk in world.model.astream("hi")]
    assert len(chunks) > 2
    assert len({chunk.id for chunk in chunks}) == 1
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert whole.content == said.content
    assert whole.response_metadata["finish_reason"] == "stop"
    assert chunks[-1].chunk_position == "last"


async def test_tool_calls_are_given_again_with_ids_of_their_own() -> None:
    call = {"name": "look", "args": {"at": [1, 2]}, "id": "call_1"}
    block = {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": [1, 2]}}
    world = World(model=Says(answers=[AIMessage([block], tool_calls=[cast("Any", call)])]))
    first, hit = await world.model.ainvoke("hi"), await world.model.ainvoke("hi")
    streamed = [chunk async for chunk in world.model.astream("hi")]
    whole = streamed[0]
    for chunk in streamed[1:]:
        whole = whole + chunk
    for again in (hit, whole):
        (made,) = again.tool_calls
        assert (made["name"], made["args"]) == ("look", {"at": [1, 2]})
        assert made["id"] != first.tool_calls[0]["id"] == "call_1"
        assert cast("Any", again.content[0])["id"] == made["id"]
    assert world.calls == 1


async def test_clients_of_a_graph_see_a_hit_once_and_a_miss_once() -> None:
    world = World()

    async def node(state: State) -> State:
        return {"said": str((await world.model.ainvoke("hi")).text)}

    builder: Any = StateGraph(State)
    graph = builder.add_node("speaker", node).add_edge(START, "speaker").add_edge("speaker", END).compile()
    for _ in range(2):
        seen = [chunk async for chunk, _ in graph.astream({}, world.config(), stream_mode="messages")]
        assert "".join(str(chunk.text) for chunk in seen) == "a b c d"
        assert len({chunk.id for chunk in seen}) == 1
    assert world.calls == 1


# What is kept


@pytest.mark.parametrize(
    ("rules", "settings", "calls"),
    [
        (CacheRules(), {}, 2),
        (CacheRules(), {"temperature": 0}, 1),
        (CacheRules(), {"temperature": 0.0}, 1),
        (CacheRules(), {"temperature": 0.7}, 2),
        (CacheRules(temperature="unset"), {}, 1),
        (CacheRules(temperature="unset"), {"temperature": 0.7}, 2),
        (CacheRules(temperature="any"), {"temperature": 0.7}, 1),
        (CacheRules(temperature="any"), {"n": 2}, 2),
    ],
)
async def test_answers_that_vary_are_kept_only_if_told(rules: CacheRules, settings: Any, calls: int) -> None:
    world = World(rules)
    await world.model.ainvoke("hi", **settings)
    await world.model.ainvoke("hi", **settings)
    assert world.calls == calls


@pytest.mark.parametrize(
    "answer",
    [
        AIMessage("half a sen", response_metadata={"finish_reason": "length"}),
        AIMessage("half a sen", response_metadata={"stop_reason": "max_tokens"}),
        AIMessage("", response_metadata={"finish_reason": "content_filter"}),
        AIMessage("I", response_metadata={"stop_reason": "refusal"}),
        AIMessage("", additional_kwargs={"refusal": "I cannot do that"}),
        AIMessage([{"type": "refusal", "refusal": "no"}]),
        AIMessage(""),
        AIMessage("", invalid_tool_calls=[{"name": "x", "args": "{", "id": "1", "error": "no JSON"}]),
        AIMessage("…", response_metadata={"status": "incomplete"}),
    ],
)
async def test_what_was_cut_refused_or_malformed_is_not_kept(answer: AIMessage) -> None:
    world = World(model=Says(answers=[answer]))
    await world.ask()
    await world.ask()
    assert world.calls == 2
    assert world.happened == ["miss", "not_kept"] * 2


async def test_a_stream_of_a_provider_that_ends_without_its_end_is_not_kept() -> None:
    class Provider(ScriptedModel):
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return {"ls_provider": "openai", "ls_model_type": "chat"}

    world = World(model=Provider(calls=[]))
    await world.ask(how="astream")
    assert await world.ask(how="astream") == "a b c d"
    assert world.calls == 2


@pytest.mark.parametrize("how", HOW)
async def test_a_failed_call_is_not_kept_and_lets_the_next_one_try(how: str) -> None:
    world = World(model=ScriptedModel(calls=[], fails=True))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await world.ask(how=how)
    assert world.calls == 2
    cast("Any", world.paid).fails = False
    assert await world.ask(how=how) == "a b c d"


async def test_a_stream_that_its_reader_left_is_not_kept_and_lets_the_next_one_try() -> None:
    world = World()
    async with aclosing(cast("Any", world.model.astream("hi"))) as chunks:
        async for _ in chunks:
            break
    async with asyncio.timeout(60):
        assert await world.ask() == "a b c d"
    assert world.calls == 2


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    world = World(replace(ANY, max_bytes=10))
    await world.ask()
    await world.ask()
    assert world.calls == 2
