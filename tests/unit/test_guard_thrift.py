"""Contexts that are too long are shortened, nothing that belongs together is torn apart, and savings are noted."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any, cast

import pytest
from langchain import agents
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from scripted_calls import ScriptedModel
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.calls import PORTS_KEY
from waystation_guards.context.thrift import CLEARED, Thrift, prune
from waystation_guards.context.thrifty_model import MARK, ThriftyModel
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.thrift import SavingSummarization, ThriftMiddleware
from waystation_guards.ports import Ports, use_ports
from waystation_guards.watching.watcher import Watcher

pytestmark = pytest.mark.anyio

PRICES = Prices({"scripted": Rates(cast("Any", 1), cast("Any", 2)), "small": Rates(cast("Any", 1), cast("Any", 1))})
WORDS = "word " * 40


class Hearing(ScriptedModel):
    """Notes what it is told."""

    heard: list[list[BaseMessage]] = Field(default_factory=list[list[BaseMessage]])
    says: str = "fine"

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        self.heard.append([*messages])
        self.calls.append("whole")
        usage: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.says, usage_metadata=usage))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@pytest.fixture
def ports() -> Ports:
    ports = memory_ports()
    use_ports(ports)
    return ports


def savings(ports: Ports) -> list[Any]:
    ledger = cast("MemoryLedger", ports.ledger)
    return [entry for _, _, entry in ledger.entries if entry.kind == "saving"]


def tools_turn(number: int, *, results: int = 1, size: int = 40) -> list[BaseMessage]:
    calls: list[Any] = [{"name": "look", "args": {"n": number}, "id": f"c{number}-{one}"} for one in range(results)]
    answers = [ToolMessage(f"{number} " + "x " * size, tool_call_id=call["id"], name="look") for call in calls]
    return [AIMessage("", tool_calls=calls), *answers]


def talk(turns: int) -> list[BaseMessage]:
    said: list[BaseMessage] = [SystemMessage("be brief")]
    for number in range(turns):
        said += [HumanMessage(f"q{number} {WORDS}"), AIMessage(f"a{number} {WORDS}")]
    return [*said, HumanMessage("the question")]


def is_whole(messages: list[BaseMessage]) -> bool:
    """Every result follows its call, every call has its results, and it begins as providers want it."""
    open_calls: set[str] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_calls:
                return False
            open_calls.remove(message.tool_call_id)
        elif open_calls:
            return False
        if isinstance(message, AIMessage):
            open_calls = {str(call["id"]) for call in message.tool_calls}
    rest = [message for message in messages if not isinstance(message, SystemMessage)]
    return not open_calls and isinstance(rest[0], HumanMessage)


def test_what_fits_is_left_as_it_is() -> None:
    messages = talk(3)
    pruned = prune(messages, Thrift(max_tokens=10_000))
    assert pruned.messages == messages
    assert (pruned.saved, pruned.dropped, pruned.cleared) == (0, [], 0)


def test_the_oldest_turns_go_and_the_system_prompt_and_the_question_stay() -> None:
    messages = talk(20)
    pruned = prune(messages, Thrift(max_tokens=500))
    assert pruned.after <= 500 < pruned.before
    assert pruned.messages[0] == messages[0]
    assert pruned.messages[-1] == messages[-1]
    assert pruned.messages[1:] == messages[-len(pruned.messages) + 1 :]
    assert [*messages[:1], *pruned.dropped, *pruned.messages[1:]] == messages


def test_old_results_of_tools_are_cleared_before_anything_is_left_out() -> None:
    messages: list[BaseMessage] = [HumanMessage("go")]
    for number in range(9):
        messages += tools_turn(number, size=300)
    pruned = prune(messages, Thrift(max_tokens=1_500, keep_tool_results=3))
    results = [str(message.content) for message in pruned.messages if isinstance(message, ToolMessage)]
    assert pruned.dropped == []
    assert results[:6] == [CLEARED] * 6
    assert all(one != CLEARED for one in results[6:])
    assert pruned.cleared == 6
    assert is_whole(pruned.messages)


def test_short_results_errors_and_chosen_tools_are_not_cleared() -> None:
    messages: list[BaseMessage] = [HumanMessage("go")]
    for number in range(6):
        messages += tools_turn(number, size=300)
    messages[2] = cast("ToolMessage", messages[2]).model_copy(update={"status": "error"})
    messages[4] = cast("ToolMessage", messages[4]).model_copy(update={"name": "keep"})
    messages[6] = cast("ToolMessage", messages[6]).model_copy(update={"content": "ok"})
    pruned = prune(messages, Thrift(max_tokens=700, keep_tool_results=1, keep_tools=("keep",)))
    left = {id(message) for message in [*pruned.messages, *pruned.dropped]}
    assert all(id(messages[number]) in left for number in (2, 4, 6))


def test_one_question_with_a_long_way_to_its_answer_keeps_its_question() -> None:
    messages: list[BaseMessage] = [SystemMessage("be brief"), HumanMessage("the question")]
    for number in range(30):
        messages += tools_turn(number, results=2, size=20)
    pruned = prune(messages, Thrift(max_tokens=600))
    assert pruned.messages[:2] == messages[:2]
    assert pruned.messages[-1] is messages[-1]
    assert pruned.after <= 600
    assert is_whole(pruned.messages)


def test_a_turn_that_does_not_fit_by_itself_stays_whole() -> None:
    messages = [*talk(5), *tools_turn(1, results=3, size=2_000)]
    pruned = prune(messages, Thrift(max_tokens=300, keep_tool_results=5))
    assert pruned.messages[-5:] == messages[-5:]
    assert is_whole(pruned.messages)


def test_several_system_messages_stay() -> None:
    messages = [SystemMessage("one"), SystemMessage("two"), *talk(20)[1:]]
    pruned = prune(messages, Thrift(max_tokens=500))
    assert pruned.messages[:2] == messages[:2]


def test_no_context_is_ever_torn_apart() -> None:
    chance = random.Random(7)
    for _ in range(300):
        messages: list[BaseMessage] = [SystemMessage("be brief")] if chance.random() < 0.5 else []
        for number in range(chance.randint(1, 12)):
            messages.append(HumanMessage(f"q{number} " + "x " * chance.randint(1, 80)))
            for step in range(chance.randint(0, 4)):
                size = chance.randint(1, 300)
                messages += tools_turn(number * 10 + step, results=chance.randint(1, 3), size=size)
            if chance.random() < 0.8:
                messages.append(AIMessage(f"a{number} " + "x " * chance.randint(1, 80)))
        before = [message.model_copy(deep=True) for message in messages]
        thrift = Thrift(max_tokens=chance.randint(50, 1_500), keep_tool_results=chance.randint(0, 4))
        pruned = prune(messages, thrift)
        assert messages == before
        assert is_whole(pruned.messages)
        asked = [message for message in messages if isinstance(message, HumanMessage)]
        assert any(message is asked[-1] for message in pruned.messages)
        assert len(pruned.messages) + len(pruned.dropped) == len(messages)


def test_the_beginning_of_the_prompt_stays_the_same_for_some_turns() -> None:
    begins = list[str]()
    for turns in range(20, 60):
        pruned = prune(talk(turns), Thrift(max_tokens=1_500, step=0.3))
        begins.append(str(pruned.messages[1].content)[:4])
    assert len(set(begins)) <= len(begins) / 2


@pytest.mark.parametrize("how", ["ainvoke", "astream", "invoke", "stream"])
async def test_a_model_is_told_less_and_the_ledger_what_that_saved(ports: Ports, how: str) -> None:
    inner = Hearing(calls=[], disable_streaming=True)
    model, messages = ThriftyModel(inner=inner, thrift=Thrift(max_tokens=500), prices=PRICES), talk(20)
    match how:
        case "ainvoke":
            answer: Any = await model.ainvoke(messages)
        case "astream":
            answer, *_ = [chunk async for chunk in model.astream(messages)]
        case "invoke":
            answer = await asyncio.to_thread(model.invoke, messages)
        case _:
            answer = (await asyncio.to_thread(lambda: [*model.stream(messages)]))[0]
    saved = count_tokens_approximately(messages) - count_tokens_approximately(inner.heard[0])
    assert saved > 1_000
    (entry,) = savings(ports)
    assert (entry.cost_nano_usd, entry.spent) == (0, {})
    assert entry.detail["what"] == "context"
    assert (entry.detail["saved_tokens"], entry.detail["saved_nano_usd"]) == (saved, saved * 1_000)
    assert answer.response_metadata[MARK]["saved_tokens"] == saved


async def test_a_short_context_leaves_no_trace(ports: Ports) -> None:
    model = ThriftyModel(inner=Hearing(calls=[]), thrift=Thrift(max_tokens=50_000))
    answer = await model.ainvoke(talk(3))
    assert MARK not in answer.response_metadata
    assert savings(ports) == []


async def test_what_is_left_out_is_summarised_once_and_continued(ports: Ports) -> None:
    inner, small = Hearing(calls=[]), Hearing(calls=[], model="small", says="they talked of words")
    model = ThriftyModel(inner=inner, thrift=Thrift(max_tokens=500), summariser=small, prices=PRICES)
    config: Any = {"configurable": {PORTS_KEY: ports, "thread_id": "t1"}}
    messages = talk(12)
    await model.ainvoke(messages, config)
    first = len(small.calls)
    assert first >= 1
    assert "they talked of words" in str(inner.heard[0][1].content)
    assert inner.heard[0][0] == messages[0]
    await model.ainvoke([*messages, AIMessage("fine"), HumanMessage("and now?")], config)
    assert len(small.calls) == first
    assert "they talked of words" in str(inner.heard[1][1].content)
    await model.ainvoke([*talk(16)], config)
    assert first < len(small.calls) <= first + 3
    assert "they talked of words" in str(small.heard[first][0].content)
    assert "q0 " not in str(small.heard[first][0].content)


async def test_a_summary_is_billed_and_its_cost_is_taken_from_the_saving(ports: Ports) -> None:
    budget = Budget(Limit(9, scope="tenant"), prices=PRICES)
    small = Hearing(calls=[], model="small", says="short")
    model = ThriftyModel(inner=Hearing(calls=[]), thrift=Thrift(max_tokens=4_000), summariser=small, prices=PRICES)
    await model.ainvoke(talk(80), {"callbacks": Watcher([budget]).handlers})
    entries = [entry for _, _, entry in cast("MemoryLedger", ports.ledger).entries]
    billed = {entry.model: entry.cost_nano_usd for entry in entries if entry.kind == "model"}
    assert set(billed) == {"small", "scripted"}
    (entry,) = savings(ports)
    calls = len(small.calls)
    assert entry.detail["summary_nano_usd"] == calls * 15_000
    assert entry.detail["saved_nano_usd"] == entry.detail["saved_tokens"] * 1_000 - calls * 15_000


async def test_summaries_of_other_tenants_and_threads_are_not_used(ports: Ports) -> None:
    small = Hearing(calls=[], model="small")
    model = ThriftyModel(inner=Hearing(calls=[]), thrift=Thrift(max_tokens=4_000), summariser=small)
    made = list[int]()
    for tenant, thread in (("acme", "t1"), ("globex", "t1"), ("acme", "t2"), ("acme", "t1")):
        mine = replace(ports, tenant=tenant)
        await model.ainvoke(talk(60), {"configurable": {PORTS_KEY: mine, "thread_id": thread}})
        made.append(len(small.calls))
    assert made == [made[0], 2 * made[0], 3 * made[0], 3 * made[0]]


async def test_a_summary_that_fails_leaves_the_turns_out_without_one(ports: Ports) -> None:
    inner = Hearing(calls=[])
    broken = ScriptedModel(calls=[], fails=True)
    model = ThriftyModel(inner=inner, thrift=Thrift(max_tokens=500), summariser=broken)
    assert (await model.ainvoke(talk(20))).text == "fine"
    assert count_tokens_approximately(inner.heard[0]) <= 500


async def test_an_agents_state_is_left_as_it_is(ports: Ports) -> None:
    inner = Hearing(calls=[])
    agent = cast("Any", agents).create_agent(inner, [], middleware=[ThriftMiddleware(Thrift(max_tokens=500))])
    messages = talk(20)[1:]
    result = await agent.ainvoke({"messages": messages})
    assert len(result["messages"]) == len(messages) + 1
    assert count_tokens_approximately(inner.heard[0]) <= 500
    agent.invoke({"messages": messages})
    assert len(savings(ports)) == 2


async def test_langchains_summaries_note_what_they_save(ports: Ports) -> None:
    inner, small = Hearing(calls=[]), Hearing(calls=[], model="small", says="short")
    middleware = SavingSummarization(small, trigger=("tokens", 500), keep=("messages", 2))
    middleware.prices = PRICES
    agent = cast("Any", agents).create_agent(inner, [], middleware=[middleware])
    result = await agent.ainvoke({"messages": talk(20)[1:]})
    assert len(result["messages"]) < 10
    agent.invoke({"messages": talk(20)[1:]})
    first, second = savings(ports)
    assert first.detail["what"] == second.detail["what"] == "summary"
    assert first.detail["saved_tokens"] > 1_000
    assert first.detail["saved_nano_usd"] == first.detail["saved_tokens"] * 1_000


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"max_tokens": 0}, "max_tokens"), ({"step": 0}, "step"), ({"step": 1}, "step"), ({"clear_above": -1}, "clear")],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Thrift(**settings)
