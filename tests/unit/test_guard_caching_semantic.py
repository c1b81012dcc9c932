"""Near questions get the same answer only where nothing that can be seen speaks against it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from math import sqrt
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.store.memory import InMemoryStore

from scripted_calls import ScriptedModel
from waystation_guards.caching.answers import MARK
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.caching.semantic import SemanticCache, may_mean_the_same
from waystation_guards.calls import PORTS_KEY
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports

pytestmark = pytest.mark.anyio

ANY = CacheRules(temperature="any")


def embed(texts: list[str]) -> list[list[float]]:
    """Words counted into a few dozen places: near for texts that share most words, whatever their order."""
    vectors: list[list[float]] = []
    for text in texts:
        counts = Counter(sum(map(ord, word)) % 64 for word in re.findall(r"\w+", text.lower()))
        length = sqrt(sum(count * count for count in counts.values())) or 1.0
        vectors.append([counts[place] / length for place in range(64)])
    return vectors


def store(embedding: Any = embed) -> InMemoryStore:
    index: Any = {"dims": 64, "embed": embedding, "fields": ["text"]}
    return InMemoryStore(index=index)


def model_of(threshold: float = 0.8, kept: Any = None, **rules: Any) -> CachedModel:
    use_ports(memory_ports())
    semantic = SemanticCache(threshold=threshold, store=kept or store())
    return CachedModel(inner=ScriptedModel(calls=[]), answers=ResponseCache(replace(ANY, **rules), semantic=semantic))


def calls(model: CachedModel) -> int:
    return len(model.inner.calls)  # type: ignore[attr-defined]  # a scripted model


async def test_a_question_in_other_words_gets_the_same_answer_and_says_how_near_it_was() -> None:
    model = model_of()
    await model.ainvoke("how do I change my password?")
    hit = await model.ainvoke("how do I change my password please?")
    assert calls(model) == 1
    assert hit.response_metadata[MARK]["layer"] == "semantic"
    assert 0.8 <= hit.response_metadata[MARK]["score"] < 1


async def test_another_question_is_asked() -> None:
    model = model_of()
    await model.ainvoke("how do I change my password?")
    await model.ainvoke("what is the weather like?")
    assert calls(model) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how do I enable the backup?", "how do I disable the backup?"),
        ("what costs less than 5 days of rent?", "what costs less than 50 days of rent?"),
        ("is it safe to eat raw eggs?", "is it not safe to eat raw eggs?"),
        ("which trains go from Berlin to Paris?", "which trains go from Paris to Berlin?"),
        ("who is the best player of the year?", "who is the worst player of the year?"),
        ("what happens before the update?", "what happens after the update?"),
        ("please send the invoice INV-1001 again", "please send the invoice INV-1002 again"),
        ("how do I delete the file 'a.txt'?", "how do I delete the file 'b.txt'?"),
        ("what did Alice say about the plan?", "what did Bob say about the plan?"),
        ("can I pay with a card?", "can I pay without a card?"),
        ("why does it work?", "why doesn't it work?"),
        ("is the price higher in May?", "is the price lower in May?"),
    ],
)
async def test_near_questions_of_another_meaning_are_asked(one: str, other: str) -> None:
    assert not may_mean_the_same(one, other)
    model = model_of(threshold=0.3)
    await model.ainvoke(one)
    await model.ainvoke(other)
    assert calls(model) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how do I reset my password?", "How can I reset my password?"),
        ("what is the capital of France?", "tell me the capital of France"),
        ("cancel order 1001", "please cancel the order 1001"),
        ("why is the sky blue?", "Why's the sky blue?"),
        ("it does not start", "it doesn't start"),
    ],
)
def test_paraphrases_may_mean_the_same(one: str, other: str) -> None:
    assert may_mean_the_same(one, other)


async def test_everything_but_the_last_question_has_to_be_equal() -> None:
    asked, near = "how do I change my password?", "how do I change my password please?"
    for before, after in (
        ([SystemMessage("You are a bank.")], [SystemMessage("You are a pirate.")]),
        ([], [HumanMessage("hi"), AIMessage("hello")]),
    ):
        model = model_of()
        await model.ainvoke([*before, HumanMessage(asked)])
        await model.ainvoke([*after, HumanMessage(near)])
        assert calls(model) == 2
    model = model_of()
    await model.ainvoke(asked)
    await model.ainvoke(near, tools=[{"name": "x"}])
    await model.ainvoke(near, temperature=1)
    assert calls(model) == 3


async def test_only_what_a_person_asks_in_a_few_words_is_looked_for() -> None:
    long = "how do I change my password? " * 40
    picture: Any = [{"type": "text", "text": "how do I change my password?"}, {"type": "image", "url": "x"}]
    for one, other in (
        ([HumanMessage(long)], [HumanMessage(long + "please")]),
        ([HumanMessage(picture)], [HumanMessage([*picture, {"type": "text", "text": "please"}])]),
        ([AIMessage("how do I change my password?")], [AIMessage("how do I change my password please?")]),
    ):
        model = model_of(threshold=0.3)
        await model.ainvoke(one)
        await model.ainvoke(other)
        assert calls(model) == 2


class State(TypedDict, total=False):
    said: str


async def test_tenants_and_users_are_kept_apart_in_the_graphs_own_store() -> None:
    ports, kept = memory_ports(), store()
    model = CachedModel(
        inner=ScriptedModel(calls=[]), answers=ResponseCache(ANY, semantic=SemanticCache(threshold=0.8))
    )

    def ask(what: str) -> Any:
        async def node(state: State) -> State:
            return {"said": str((await model.ainvoke(what)).text)}

        builder: Any = StateGraph(State)
        return builder.add_node("a", node).add_edge(START, "a").add_edge("a", END).compile(store=kept)

    async def run(what: str, tenant: str) -> None:
        await ask(what).ainvoke({}, {"configurable": {PORTS_KEY: replace(ports, tenant=tenant)}})

    await run("how do I change my password?", "acme")
    await run("how do I change my password please?", "globex")
    assert calls(model) == 2
    await run("how do I change my password now?", "acme")
    assert calls(model) == 2


async def test_answers_end_with_their_time() -> None:
    model = model_of(ttl_s=0.000001)
    await model.ainvoke("how do I change my password?")
    await model.ainvoke("how do I change my password please?")
    assert calls(model) == 2


@pytest.mark.parametrize("kept", [InMemoryStore(), None])
async def test_without_an_index_or_a_store_only_the_same_question_is_found(kept: Any) -> None:
    use_ports(memory_ports())
    semantic = SemanticCache(threshold=0.1, store=kept)
    model = CachedModel(inner=ScriptedModel(calls=[]), answers=ResponseCache(ANY, semantic=semantic))
    await model.ainvoke("how do I change my password?")
    await model.ainvoke("how do I change my password please?")
    await model.ainvoke("how do I change my password?")
    assert calls(model) == 2


async def test_a_store_in_trouble_leaves_the_exact_cache_as_it_is() -> None:
    def broken(texts: list[str]) -> list[list[float]]:
        raise ConnectionError("no embeddings today")

    model = model_of(kept=store(broken))
    for _ in range(2):
        assert (await model.ainvoke("how do I change my password?")).text == "a b c d"
    assert calls(model) == 1


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"threshold": 1.1}, {"candidates": 0}])
def test_settings_that_make_no_sense_are_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SemanticCache(**settings)
