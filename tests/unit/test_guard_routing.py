"""The small model answers what it can; nothing is shown of an answer that a larger one has to give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypedDict, cast

import pytest
from langchain import agents
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from scripted_calls import ScriptedModel
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.calls import CallSite
from waystation_guards.context.routed_model import MARK, RoutedModel
from waystation_guards.context.routing import MARKER, RoutingRules, why_larger
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.thrift import RoutingMiddleware
from waystation_guards.ports import Ports, use_ports
from waystation_guards.watching.watcher import Watcher

pytestmark = pytest.mark.anyio

RATES = {"small": 1, "middle": 5, "large": 10}
PRICES = Prices({name: Rates(cast("Any", rate), cast("Any", rate)) for name, rate in RATES.items()})
HOW = ("ainvoke", "astream", "invoke", "stream")


class Saying(ScriptedModel):
    """Says one thing, in pieces of four characters where it streams, and notes what it is told."""

    answer: AIMessage = AIMessage("")
    heard: list[list[BaseMessage]] = Field(default_factory=list[list[BaseMessage]])
    bound: list[Any] = Field(default_factory=list[Any])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[self.model, *tools], **kwargs)

    def noted(self, messages: Any, kwargs: Any) -> AIMessage:
        self.heard.append([*messages])
        self.bound.append(kwargs)
        self.calls.append(self.model)
        usage: Any = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        return self.answer.model_copy(update={"usage_metadata": usage})

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.noted(messages, kwargs))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        message = self.noted(messages, kwargs)
        text = str(message.content)
        for start in range(0, len(text), 4):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text[start : start + 4]))
        calls: Any = [
            {"name": one["name"], "args": json.dumps(one["args"]), "id": one["id"], "index": number}
            for number, one in enumerate(message.tool_calls)
        ]
        told = message.response_metadata
        last = AIMessageChunk(
            content="", tool_call_chunks=calls, usage_metadata=message.usage_metadata, response_metadata=told
        )
        yield ChatGenerationChunk(message=last)

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, **kwargs):
            yield chunk

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages, **kwargs)


def saying(name: str, text: str = "", **members: Any) -> Saying:
    return Saying(calls=[], model=name, answer=AIMessage(text or f"{name} says so", **members))


def routed(small: Saying, *larger: Saying, **rules: Any) -> RoutedModel:
    models: list[Any] = [*(larger or (saying("large"),))]
    return RoutedModel(inner=small, larger=models, rules=RoutingRules(**rules), prices=PRICES)


@pytest.fixture(autouse=True)
def ports() -> Ports:
    ports = memory_ports()
    use_ports(ports)
    return ports


def savings(ports: Ports) -> list[Any]:
    ledger = cast("MemoryLedger", ports.ledger)
    return [entry for _, _, entry in ledger.entries if entry.kind == "saving"]


async def ask(model: Any, how: str, what: Any = "hi", config: Any = None) -> AIMessage:
    match how:
        case "ainvoke":
            return cast("AIMessage", await model.ainvoke(what, config))
        case "astream":
            chunks = [chunk async for chunk in model.astream(what, config)]
        case "invoke":
            return cast("AIMessage", await asyncio.to_thread(model.invoke, what, config))
        case _:
            chunks = await asyncio.to_thread(lambda: [*model.stream(what, config)])
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return cast("AIMessage", whole)


@pytest.mark.parametrize("how", HOW)
async def test_the_small_model_answers_what_it_can(ports: Ports, how: str) -> None:
    small, large = saying("small"), saying("large")
    answer = await ask(routed(small, large), how)
    assert answer.text == "small says so"
    assert (len(small.calls), len(large.calls)) == (1, 0)
    assert answer.response_metadata[MARK] == {"model": "small", "tried": ["small"]}
    (entry,) = savings(ports)
    assert (entry.cost_nano_usd, entry.model) == (0, "small")
    assert entry.detail["saved_nano_usd"] == 110 * 10_000 - 110 * 1_000


@pytest.mark.parametrize("how", HOW)
async def test_a_model_that_is_not_sure_hands_over_and_is_not_heard(ports: Ports, how: str) -> None:
    small, large = saying("small", f" {MARKER}\n"), saying("large")
    answer = await ask(routed(small, large), how)
    assert answer.text == "large says so"
    assert answer.response_metadata[MARK] == {
        "model": "large",
        "tried": ["small", "large"],
        "why": "it is not sure",
    }
    (entry,) = savings(ports)
    assert entry.detail["saved_nano_usd"] == -110 * 1_000
    assert "exactly" in str(small.heard[0][0].content)
    assert large.heard[0] == [HumanMessage("hi")]


async def test_the_request_to_say_so_goes_to_the_system_prompt_that_is_there() -> None:
    small = saying("small")
    await routed(small).ainvoke([SystemMessage("be brief"), HumanMessage("hi")])
    assert str(small.heard[0][0].content).startswith("be brief\n\n")
    assert len(small.heard[0]) == 2
    quiet = saying("small")
    await routed(quiet, ask_confidence=False).ainvoke("hi")
    assert quiet.heard[0] == [HumanMessage("hi")]


@pytest.mark.parametrize("how", ["ainvoke", "invoke"])
async def test_an_answer_that_was_cut_is_asked_for_again_unless_it_was_shown(how: str) -> None:
    cut = AIMessage("half a sen", response_metadata={"finish_reason": "length"})
    small, large = Saying(calls=[], model="small", answer=cut), saying("large")
    assert (await ask(routed(small, large), how)).text == "large says so"
    assert (await ask(routed(small, large), how.replace("invoke", "stream"))).text == "half a sen"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "answer",
    [
        AIMessage("", response_metadata={"finish_reason": "stop"}),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        AIMessage("", tool_calls=[{"name": "other", "args": {"at": 1}, "id": "1"}]),
    ],
)
async def test_an_answer_that_will_not_do_is_asked_for_again(how: str, answer: AIMessage) -> None:
    small, large = Saying(calls=[], model="small", answer=answer), saying("large")
    model = routed(small, large).bind_tools([look])
    assert (await ask(model, how)).text == "large says so"


@pytest.mark.parametrize("how", ["astream", "stream"])
async def test_a_tool_call_that_was_cut_off_in_a_stream_is_not_shown(how: str) -> None:
    class Cut(Saying):
        def _stream(self, messages: Any, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            piece: Any = {"name": "look", "args": '{"at": 1', "id": "c1", "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))

    small, large = Cut(calls=[], model="small"), saying("large")
    assert (await ask(routed(small, large).bind_tools([look]), how)).text == "large says so"


@tool
def look(at: int) -> str:
    """Look."""
    return str(at)


class Answer(BaseModel):
    """A structured answer."""

    text: str
    score: int


@pytest.mark.parametrize("how", ["ainvoke", "invoke"])
async def test_an_answer_that_does_not_fit_its_schema_is_asked_for_again(how: str) -> None:
    wrong: Any = {"name": "Answer", "args": {"text": "a", "score": "many"}, "id": "1"}
    right: Any = {"name": "Answer", "args": {"text": "b", "score": 3}, "id": "2"}
    small, large = saying("small", " ", tool_calls=[wrong]), saying("large", " ", tool_calls=[right])
    structured = routed(small, large).with_structured_output(Answer)
    found: Any = await (structured.ainvoke("hi") if how == "ainvoke" else asyncio.to_thread(structured.invoke, "hi"))
    assert found == Answer(text="b", score=3)
    good = saying("small", " ", tool_calls=[right])
    assert await routed(good, large).with_structured_output(Answer).ainvoke("hi") == Answer(text="b", score=3)
    assert len(large.calls) == 1


async def test_who_has_to_call_a_tool_and_does_not_is_not_heard() -> None:
    right: Any = {"name": "look", "args": {"at": 1}, "id": "2"}
    small, large = saying("small"), saying("large", " ", tool_calls=[right])
    for how in HOW:
        answer = await ask(routed(small, large).bind_tools([look], tool_choice="any"), how)
        assert [call["name"] for call in answer.tool_calls] == ["look"]
        assert answer.text.strip() == ""


async def test_each_model_gets_its_tools_in_its_own_form() -> None:
    small, large = saying("small", MARKER), saying("large")
    await routed(small, large).bind_tools([look]).ainvoke("hi")
    assert small.bound[0]["tools"][0] == "small"
    assert large.bound[0]["tools"][0] == "large"


@pytest.mark.parametrize("how", ["astream", "stream"])
async def test_a_stream_is_shown_as_it_comes_once_it_cannot_be_thrown_away(how: str) -> None:
    small = saying("small", "one two three four five six")
    model = routed(small).bind_tools([look])
    if how == "astream":
        chunks = [chunk async for chunk in model.astream("hi")]
    else:
        chunks = await asyncio.to_thread(lambda: [*model.stream("hi")])
    assert len([chunk for chunk in chunks if chunk.content]) == 7
    assert chunks[0].response_metadata[MARK]["model"] == "small"
    almost = saying("small", MARKER[:-4] + "er")
    assert (await ask(routed(almost), how)).text == MARKER[:-4] + "er"


async def test_clients_of_a_graph_see_only_the_answer_that_counts() -> None:
    class State(TypedDict, total=False):
        said: str

    model = routed(saying("small", MARKER), saying("large"))

    async def node(state: State) -> State:
        return {"said": str((await model.ainvoke("hi")).text)}

    builder: Any = StateGraph(State)
    graph = builder.add_node("a", node).add_edge(START, "a").add_edge("a", END).compile()
    seen = [chunk async for chunk, _ in graph.astream({}, stream_mode="messages")]
    assert "".join(str(chunk.text) for chunk in seen) == "large says so"


@pytest.mark.parametrize(
    ("messages", "kwargs", "rules", "why"),
    [
        ([HumanMessage("x" * 4_000)], {}, {"max_input_tokens": 500}, "long"),
        ([HumanMessage("hi")], {"tools": [{"name": str(number)} for number in range(3)]}, {"max_tools": 2}, "tools"),
        ([HumanMessage("hi")], {"tools": [{"function": {"name": "pay"}}]}, {"tools": ("pay",)}, "tool"),
        ([HumanMessage("please PROVE it")], {}, {"words": (r"\bprove\b",)}, "question"),
        ([HumanMessage("hi"), *[AIMessage("step")] * 4], {}, {"max_steps": 3}, "steps"),
        ([HumanMessage("hi")], {}, {}, None),
        ([HumanMessage("prove it"), AIMessage("no"), HumanMessage("hi")], {}, {"words": ("prove",)}, None),
    ],
)
async def test_what_is_hard_goes_to_the_largest_model_at_once(
    messages: Any, kwargs: Any, rules: Any, why: str | None
) -> None:
    found = why_larger(messages, kwargs, RoutingRules(**rules))
    assert found is None if why is None else found is not None and why in found
    small, middle, large = saying("small"), saying("middle"), saying("large")
    await routed(small, middle, large, **rules).ainvoke(messages, **kwargs)
    assert (len(small.calls), len(middle.calls), len(large.calls)) == ((1, 0, 0) if why is None else (0, 0, 1))


async def test_models_are_climbed_one_by_one() -> None:
    small, middle, large = saying("small", MARKER), saying("middle", MARKER), saying("large")
    answer = await routed(small, middle, large).ainvoke("hi")
    assert answer.response_metadata[MARK]["tried"] == ["small", "middle", "large"]


async def test_guards_see_each_call_and_no_other(ports: Ports) -> None:
    budget = Budget(Limit(9, "model_calls", scope="tenant"), prices=PRICES)
    for how in HOW:
        model = routed(saying("small", MARKER), saying("large"))
        await ask(model, how, config={"callbacks": Watcher([budget]).handlers})
    (standing,) = await budget.standing(ports, CallSite())
    assert (standing.spent, standing.held) == (8, 0)


async def test_an_agents_own_model_is_the_largest(ports: Ports) -> None:
    small, large = saying("small"), saying("large")
    agent = cast("Any", agents).create_agent(large, [look], middleware=[RoutingMiddleware(small, prices=PRICES)])
    result = await agent.ainvoke({"messages": [("user", "hi")]})
    assert result["messages"][-1].text == "small says so"
    agent.invoke({"messages": [("user", "hi")]})
    assert (len(small.calls), len(large.calls), len(savings(ports))) == (2, 0, 2)


@pytest.mark.parametrize(("settings", "named"), [({"max_tools": -1}, "max_tools"), ({"words": ("(",)}, "words")])
def test_rules_that_make_no_sense_are_refused(settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RoutingRules(**settings)
