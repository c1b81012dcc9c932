"""Answers are paid for once: what is the same call, what is kept, what a hit costs, and what happens under pressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypedDict, cast

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from scripted_calls import USAGE, ScriptedModel
from scripted_targets import until
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.caching.answers import MARK
from waystation_guards.caching.keys import key_of, question_of
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheEvent, CacheRules
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.errors import BudgetExceeded
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports
from waystation_guards.watching.watcher import Watcher

pytestmark = pytest.mark.anyio

ANY = CacheRules(temperature="any")
PRICES = Prices({"scripted": Rates(cast("Any", 1), cast("Any", 2))})
COST = 3 * 1_000 + 4 * 2_000
"""What a scripted call costs by these prices, in nano-dollars."""

HOW = ("ainvoke", "astream", "invoke", "stream")


class State(TypedDict, total=False):
    said: str
    ask: str


class World:
    """A scripted model behind a cache, and the ports of one tenant."""

    def __init__(self, rules: CacheRules = ANY, *, model: BaseChatModel | None = None, **settings: Any) -> None:
        self.now = [1000.0]
        self.paid: BaseChatModel = model or ScriptedModel(calls=[])
        self.events: list[CacheEvent] = []
        self.answers = ResponseCache(rules, prices=PRICES, on_event=self.events.append, **settings)
        self.model = CachedModel(inner=self.paid, answers=self.answers)
        self.ports = replace(memory_ports(), cache=MemoryCache(clock=lambda: self.now[0]))
        use_ports(self.ports)  # for calls outside of a graph

    @property
    def calls(self) -> int:
        return len(cast("Any", self.paid).calls)

    @property
    def happened(self) -> list[str]:
        return [event.happened for event in self.events]

    def config(self, *, tenant: str = "acme", guards: Any = (), **configurable: Any) -> Any:
        ports = replace(self.ports, tenant=tenant)
        return {"configurable": {PORTS_KEY: ports, **configurable}, "callbacks": Watcher(list(guards)).handlers}

    async def ask(self, what: str = "hi", how: str = "ainvoke", **config: Any) -> str:
        return await say(self.model, how, self.config(**config), what)

    @property
    def entries(self) -> list[Any]:
        return [entry for _, _, entry in cast("MemoryLedger", self.ports.ledger).entries]


async def say(model: Any, how: str, config: Any, what: Any = "hi") -> str:
    """Ask from within a node, as agents do."""

    async def node(state: State) -> State:
        match how:
            case "ainvoke":
                return {"said": str((await model.ainvoke(what)).text)}
            case _:
                return {"said": "".join([str(chunk.text) async for chunk in model.astream(what)])}

    def blocking_node(state: State) -> State:
        if how == "invoke":
            return {"said": str(model.invoke(what).text)}
        return {"said": "".join(str(chunk.text) for chunk in model.stream(what))}

    builder: Any = StateGraph(State)
    builder.add_node("speaker", node if how.startswith("a") else blocking_node)
    graph = builder.add_edge(START, "speaker").add_edge("speaker", END).compile()
    return str((await graph.ainvoke({}, config))["said"])


class Gated(ScriptedModel):
    """Waits for the test before it answers, and tells that it was asked."""

    asked: Any = None
    go: Any = None

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: AsyncCallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        self.asked.set()
        await self.go.wait()
        return self._generate(messages)

    async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.asked.set()
        await self.go.wait()
        for chunk in self._stream(messages):
            yield chunk


def gated() -> Gated:
    return Gated(calls=[], asked=asyncio.Event(), go=asyncio.Event())


class Says(ScriptedModel):
    """Answers with given messages, the last one again and again."""

    answers: list[AIMessage] = Field(default_factory=list[AIMessage])

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.calls.append("whole")
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        return ChatResult(generations=[ChatGeneration(message=answer.model_copy())])


class Failing(ScriptedModel):
    """Fails as long as it has troubles. They are no setting of the model."""

    troubles: list[str] = Field(default_factory=list[str])

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        result = super()._generate(messages)
        if self.troubles:
            raise ValueError("no")
        return result


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


# What is the same call


async def test_ids_of_messages_and_of_tool_calls_make_no_difference() -> None:
    def conversation(number: int) -> list[Any]:
        call: Any = {"name": "look", "args": {}, "id": f"call-{number}"}
        return [
            HumanMessage("hi", id=f"m-{number}"),
            AIMessage("", tool_calls=[call], id=f"a-{number}", response_metadata={"at": number}, usage_metadata=USAGE),
            ToolMessage("seen", tool_call_id=f"call-{number}"),
        ]

    world = World()
    await world.model.ainvoke(conversation(1))
    await world.model.ainvoke(conversation(2))
    assert world.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        [HumanMessage("hi ")],
        [SystemMessage("be brief"), HumanMessage("hi")],
        [HumanMessage("hi", name="ada")],
        [HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "url": "http://localhost/x.png"}])],
        [AIMessage("hi")],
    ],
)
async def test_other_messages_are_another_call(other: Any) -> None:
    world = World()
    await world.model.ainvoke("hi")
    await world.model.ainvoke(other)
    assert world.calls == 2


async def test_a_text_is_the_same_as_its_only_block_whether_marked_for_the_provider_or_not() -> None:
    world = World()
    await world.model.ainvoke("hi")
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    await world.model.ainvoke([HumanMessage([cast("Any", block)])])
    assert world.calls == 1


@pytest.mark.parametrize(
    "kwargs", [{"temperature": 0.1}, {"tools": [{"name": "x"}]}, {"max_tokens": 5}, {"stop": ["."]}, {"seed": 1}]
)
async def test_other_parameters_are_another_call(kwargs: Any) -> None:
    world = World()
    await world.model.ainvoke("hi")
    await world.model.ainvoke("hi", **kwargs)
    await world.model.ainvoke("hi", **kwargs)
    assert world.calls == 2


@pytest.mark.parametrize("kwargs", [{"user": "ada"}, {"safety_identifier": "ada"}, {"prompt_cache_key": "x"}])
async def test_parameters_that_change_no_answer_make_no_difference(kwargs: Any) -> None:
    world = World()
    await world.model.ainvoke("hi")
    await world.model.ainvoke("hi", **kwargs)
    assert world.calls == 1


async def test_other_models_and_other_settings_of_a_model_are_other_calls() -> None:
    digests = {
        question_of(model, [HumanMessage("hi")], None, {}).digest
        for model in (
            ScriptedModel(calls=[]),
            ScriptedModel(calls=[], model="other"),
            ScriptedModel(calls=[], pause_s=0.5),
            Says(answers=[]),
        )
    }
    assert len(digests) == 4


async def test_the_key_of_a_provider_is_the_same_with_another_api_key_and_not_with_another_address() -> None:
    from langchain_openai import ChatOpenAI

    def digest(**settings: Any) -> str:
        given: Any = {"model": "gpt-4o-mini", "temperature": 0, "api_key": "a", **settings}
        model = ChatOpenAI(**given)
        return question_of(model, [HumanMessage("hi")], None, {}).digest

    assert digest() == digest(api_key="b") == digest(timeout=3, max_retries=9)
    assert len({digest(), digest(model="gpt-4o"), digest(temperature=1), digest(base_url="http://localhost:1")}) == 4


class Answer(BaseModel):
    """A structured answer."""

    text: str


async def test_tools_and_structured_output_go_through_the_cache() -> None:
    from langchain_openai import ChatOpenAI

    call: Any = {"name": "Answer", "args": {"text": "yes"}, "id": "call_1"}

    class Structured(ChatOpenAI):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            asked.append(kwargs)
            message = AIMessage("", tool_calls=[call], response_metadata={"finish_reason": "tool_calls"})
            return ChatResult(generations=[ChatGeneration(message=message)])

    asked: list[Any] = []
    inner = Structured(model="gpt-4o-mini", temperature=0, api_key=cast("Any", "x"))
    model = CachedModel(inner=inner, answers=ResponseCache())
    for raw in (False, True):
        structured = model.with_structured_output(Answer, method="function_calling", include_raw=raw)
        for _ in range(2):
            found: Any = await asyncio.to_thread(structured.invoke, "hi")
            assert (found["parsed"] if raw else found) == Answer(text="yes")
    bound = model.bind_tools([Answer])
    assert cast("Any", await asyncio.to_thread(bound.invoke, "hi")).tool_calls[0]["args"] == {"text": "yes"}
    assert len(asked) == 2
    assert asked[0]["tools"][0]["function"]["name"] == "Answer"


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


# Whose an answer is


async def test_a_tenant_is_not_given_another_ones_answers() -> None:
    world = World()
    await world.ask(tenant="acme")
    await world.ask(tenant="globex")
    assert world.calls == 2
    await world.ask(tenant="globex")
    assert world.calls == 2


async def test_users_share_their_tenants_answers_unless_they_should_not() -> None:
    world, private = World(), World(replace(ANY, scope="user"))
    for user in ("ada", "bob", "ada"):
        await world.ask(user_id=user)
        await private.ask(user_id=user)
    assert (world.calls, private.calls) == (1, 2)


async def test_what_is_of_a_user_is_not_cached_for_who_is_none() -> None:
    world = World(replace(ANY, scope="user"))
    await world.ask()
    await world.ask()
    assert world.calls == 2
    assert world.happened == ["skipped"] * 2


async def test_only_what_is_shared_on_purpose_is_shared() -> None:
    world = World(replace(ANY, scope="shared"))
    await world.ask(tenant="acme")
    await world.ask(tenant="globex")
    assert world.calls == 1


def test_keys_of_tenants_and_users_are_not_mixed_up() -> None:
    sites = [CallSite(tenant="a", user="b"), CallSite(tenant="b", user="a"), CallSite(tenant="ab", user="")]
    keys = {key_of("answer", site, scope, "d") for site in sites for scope in ("tenant", "user")}
    assert len(keys) == 6
    assert not any(key.startswith("shared:") for key in keys)
    assert {key_of("answer", site, "shared", "d") for site in sites} == {key_of("answer", sites[0], "shared", "d")}


# Time


async def test_an_answer_ends_with_its_time_which_differs_a_little() -> None:
    world = World(replace(ANY, ttl_s=100, jitter=0.5))
    for number in range(40):
        await world.ask(str(number))
    world.now[0] += 75
    for number in range(40):
        await world.ask(str(number))
    assert 40 < world.calls < 80
    world.now[0] += 26
    before = world.calls
    for number in range(40):
        await world.ask(str(number))
    assert world.calls > before


async def test_another_version_finds_nothing_from_before() -> None:
    world = World()
    await world.ask()
    world.answers.rules = replace(ANY, version="2")
    await world.ask()
    assert world.calls == 2


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_stale_answer_is_given_at_once_and_renewed_by_one(how: str) -> None:
    model = gated()
    world = World(replace(ANY, ttl_s=10, jitter=0, stale_s=100), model=model)
    model.go.set()
    await world.ask(how=how)
    model.go.clear()
    world.now[0] += 50
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(world.ask(how=how) for _ in range(5)))
    assert said == ["a b c d"] * 5
    assert world.happened[2:] == ["stale"] * 5
    model.go.set()
    await world.answers.aclose()
    assert world.calls == 2
    assert await world.ask(how=how) == "a b c d"
    assert world.happened[-1] == "hit"
    world.now[0] += 111
    await world.ask(how=how)
    assert world.calls == 3


async def test_code_that_blocks_renews_a_stale_answer_itself() -> None:
    world = World(replace(ANY, ttl_s=10, jitter=0, stale_s=100))
    await world.ask(how="invoke")
    world.now[0] += 50
    await world.ask(how="invoke")
    assert world.calls == 2
    await world.ask(how="invoke")
    assert (world.calls, world.happened[-1]) == (2, "hit")


async def test_a_stale_answer_stays_when_it_cannot_be_renewed() -> None:
    model = Failing(calls=[])
    world = World(replace(ANY, ttl_s=10, jitter=0, stale_s=100), model=model)
    await world.ask()
    world.now[0] += 50
    model.troubles.append("down")
    for _ in range(2):
        assert await world.ask() == "a b c d"
        await world.answers.aclose()
    assert world.calls == 3


# Stampedes


@pytest.mark.parametrize("how", HOW)
async def test_of_many_that_ask_the_same_at_once_one_pays(how: str) -> None:
    world = World(model=ScriptedModel(calls=[], pause_s=0.05))
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(world.ask(how=how) for _ in range(20)))
    assert said == ["a b c d"] * 20
    assert world.calls == 1


async def test_when_the_one_who_asks_is_cancelled_the_next_one_asks() -> None:
    model = gated()
    world = World(model=model)
    first = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await model.asked.wait()
        model.asked.clear()
        second = asyncio.create_task(world.ask())
        first.cancel()
        await asyncio.wait([first])
        await model.asked.wait()
        model.go.set()
        assert await second == "a b c d"
    assert world.calls == 1


async def test_when_the_one_who_asks_is_dead_the_next_one_asks() -> None:
    world = World(replace(ANY, wait_s=20))
    key = world.answers.asked(world.paid, [HumanMessage("hi")], stop=None, kwargs={}, config=world.config()).key
    await world.ports.cache.lock(key, holder="a process that is gone", ttl_s=20)
    waiting = asyncio.create_task(world.ask())
    while cast("Any", world.answers).rules and not waiting.done():
        await asyncio.sleep(0.01)
        world.now[0] += 1
    assert await waiting == "a b c d"
    assert world.calls == 1


async def test_who_has_waited_long_enough_asks_for_itself() -> None:
    model = gated()
    world = World(replace(ANY, wait_s=0), model=model)
    first = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await model.asked.wait()
        model.asked.clear()
        second = asyncio.create_task(world.ask())
        await model.asked.wait()
        model.go.set()
        await asyncio.gather(first, second)
    assert world.calls == 2


async def test_a_lock_is_renewed_while_its_holder_lives() -> None:
    model = gated()
    world = World(replace(ANY, lock_s=0.3), model=model)
    renewed = asyncio.Event()
    real = world.ports.cache.lock

    async def lock(key: str, *, holder: str, ttl_s: float) -> bool:
        if model.asked.is_set():
            renewed.set()
        return await real(key, holder=holder, ttl_s=ttl_s)

    world.ports = replace(world.ports, cache=cast("Any", Spied(world.ports.cache, lock=lock)))
    asking = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await renewed.wait()
        model.go.set()
        assert await asking == "a b c d"


async def test_of_those_who_wait_in_a_process_one_asks_the_store() -> None:
    model, asked = gated(), list[str]()
    world = World(model=model)
    real = world.ports.cache

    async def lock(key: str, *, holder: str, ttl_s: float) -> bool:
        asked.append(key)
        return await real.lock(key, holder=holder, ttl_s=ttl_s)

    world.ports = replace(world.ports, cache=cast("Any", Spied(real, lock=lock)))
    asking = [asyncio.create_task(world.ask()) for _ in range(20)]
    async with asyncio.timeout(60):
        await model.asked.wait()
        model.go.set()
        assert await asyncio.gather(*asking) == ["a b c d"] * 20
    assert (world.calls, len(asked)) == (1, 1)


async def test_who_waits_bears_with_a_store_that_is_late_once() -> None:
    model, late, looks = gated(), list[bool](), list[str]()
    world = World(model=model)
    real = world.ports.cache

    async def get(key: str) -> bytes | None:
        looks.append(key)
        if late:
            late.pop()
            raise TimeoutError
        return await real.get(key)

    asking = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await model.asked.wait()
        other = World(model=model)
        other.ports = replace(world.ports, cache=cast("Any", Spied(real, get=get)))
        waiting = asyncio.create_task(other.ask())
        await until(lambda: len(looks) > 2)  # it has found nothing, and waits for another's answer
        late.append(True)
        await until(lambda: not late)
        model.go.set()
        assert await asking == await waiting == "a b c d"
    assert (late, world.calls) == ([], 1)


async def test_without_single_flight_everybody_asks() -> None:
    world = World(replace(ANY, single_flight=False), model=ScriptedModel(calls=[], pause_s=0.05))
    await asyncio.gather(*(world.ask() for _ in range(3)))
    assert world.calls == 3


# The store's troubles


class Spied:
    """A cache of which some methods are replaced."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real, self._methods = real, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._real, name)


async def fails(*_: Any, **__: Any) -> Any:
    raise ConnectionError("away")


async def hangs(*_: Any, **__: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("trouble", [fails, hangs])
@pytest.mark.parametrize("method", ["get", "put", "lock", "unlock"])
async def test_a_cache_in_trouble_is_not_in_the_way(method: str, trouble: Any) -> None:
    world = World(replace(ANY, store_s=0.05))
    world.ports = replace(world.ports, cache=cast("Any", Spied(world.ports.cache, **{method: trouble})))
    async with asyncio.timeout(60):
        assert await world.ask() == "a b c d"
        assert await world.ask("more") == "a b c d"
    assert world.calls == 2


async def test_a_store_that_is_away_is_not_asked_for_each_call() -> None:
    asked: list[str] = []

    async def get(key: str) -> Any:
        asked.append(key)
        raise ConnectionError("away")

    world = World()
    world.ports = replace(world.ports, cache=cast("Any", Spied(world.ports.cache, get=get)))
    for _ in range(5):
        await world.ask()
    assert len(asked) == 1


async def test_a_ledger_in_trouble_does_not_keep_a_hit_back() -> None:
    world = World()
    await world.ask()
    world.ports = replace(world.ports, ledger=cast("Any", Spied(world.ports.ledger, settle=fails)))
    assert await world.ask() == "a b c d"
    assert world.calls == 1


async def test_what_somebody_else_wrote_into_the_cache_is_a_miss() -> None:
    for spoiled in (b"", b"{", b"[]", b'{"format": 1}', b'{"format": 0, "message": {}}', b"\xff\xfe"):
        world = World()
        asked = world.answers.asked(world.paid, [HumanMessage("hi")], stop=None, kwargs={}, config=world.config())
        await world.ports.cache.put(asked.key, spoiled, ttl_s=60)
        assert await world.ask() == "a b c d"
        assert world.calls == 1


async def test_a_call_without_await_on_the_caches_own_loop_is_made_without_it() -> None:
    world = World()
    world.ports = replace(world.ports, loop=asyncio.get_running_loop())

    async def node(state: State) -> State:
        return {"said": str(world.model.invoke("hi").text)}

    builder: Any = StateGraph(State)
    graph = builder.add_node("speaker", node).add_edge(START, "speaker").add_edge("speaker", END).compile()
    config: Any = {"configurable": world.config()["configurable"]}
    assert (await graph.ainvoke({}, config))["said"] == "a b c d"
    assert await world.ask(how="invoke") == "a b c d"
    assert world.calls == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": True}, "ttl_s"),
        ({"jitter": 2}, "jitter"),
        ({"scope": "world"}, "scope"),
        ({"temperature": "low"}, "temperature"),
        ({"stale_s": -1}, "stale_s"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_rules_that_make_no_sense_name_what_is_wrong(settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CacheRules(**settings)
