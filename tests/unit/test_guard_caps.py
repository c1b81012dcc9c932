"""Caps on inputs, outputs, steps and fan-out, and answers that have to fit a schema."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from langchain import agents
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel

from scripted_calls import ScriptedModel
from scripted_targets import until
from waystation_guards.caps.caps import CapGuard, Caps, capped, capped_sends
from waystation_guards.caps.schema import CheckedModel, OutputCheck
from waystation_guards.errors import LimitPassed, OutputInvalid
from waystation_guards.middleware.caps import CapsMiddleware, OutputCheckMiddleware, limits_of
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio

create_agent = cast("Any", agents).create_agent  # its parameters have types that are not whole


class Answers(GenericFakeChatModel):
    """Gives these answers, one after the other, and remembers what it was asked."""

    asked: list[Any]

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(list(messages))
        return super()._generate(messages, *args, **kwargs)


def answers(*texts: str | AIMessage) -> Answers:
    return Answers(messages=iter([AIMessage(one) if isinstance(one, str) else one for one in texts]), asked=[])


async def ask(caps: Caps, *prompt: Any, answer: str | AIMessage = "fine") -> Any:
    return await answers(answer).ainvoke(list(prompt), watched({}, [CapGuard(caps)]))


IMAGE = HumanMessage(
    [{"type": "text", "text": "see"}, {"type": "image", "base64": "x" * 500, "mime_type": "image/png"}]
)


@pytest.mark.parametrize(
    ("caps", "prompt", "says"),
    [
        (Caps(input_chars=10), ["x" * 11], "too many characters in a prompt: 11; at most 10"),
        (Caps(input_tokens=10), ["word " * 100], "tokens in a prompt"),
        (Caps(input_messages=2), ["a", "b", "c"], "messages in a prompt: 3; at most 2"),
        (Caps(input_attachments=1), [IMAGE, IMAGE], "attachments in a prompt: 2; at most 1"),
        (Caps(input_attachment_chars=100), [IMAGE], "characters in an attachment"),
    ],
)
async def test_a_prompt_that_is_too_large_is_not_sent(caps: Caps, prompt: list[Any], says: str) -> None:
    model = answers("fine")
    with pytest.raises(LimitPassed, match=says):
        await model.ainvoke(
            [HumanMessage(one) if isinstance(one, str) else one for one in prompt], watched({}, [CapGuard(caps)])
        )
    assert model.asked == []


async def test_what_fits_is_sent() -> None:
    caps = Caps(input_chars=3, input_messages=1, input_attachments=1, output_chars=4, output_tokens=50)
    assert (await ask(caps, IMAGE)).content == "fine"


async def test_an_answer_that_is_too_large_or_calls_too_many_tools_is_refused() -> None:
    with pytest.raises(LimitPassed, match="characters in an answer: 5; at most 4"):
        await ask(Caps(output_chars=4), "hi", answer="xxxxx")
    calls: Any = [{"name": "t", "args": {}, "id": str(number)} for number in range(3)]
    with pytest.raises(LimitPassed, match="tool calls in one answer: 3; at most 2"):
        await ask(Caps(tool_calls_per_turn=2), "hi", answer=AIMessage("", tool_calls=calls))
    usage: Any = {"input_tokens": 1, "output_tokens": 9, "total_tokens": 10}
    with pytest.raises(LimitPassed, match="tokens in an answer: 9; at most 8"):
        await ask(Caps(output_tokens=8), "hi", answer=AIMessage("x", usage_metadata=usage))


def graph_of(node: Any) -> Any:
    builder: Any = StateGraph(MessagesState)
    return builder.add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()


async def test_calls_of_a_run_are_counted_and_runs_have_counts_of_their_own() -> None:
    model, guard = ScriptedModel(calls=[]), CapGuard(Caps(model_calls=2))

    async def node(state: MessagesState) -> Any:
        for _ in range(int(state["messages"][-1].text)):
            await model.ainvoke("hi")
        return {}

    async def run(name: str, times: int) -> None:
        config: Any = watched({"configurable": {"run_id": name}}, [guard])
        await graph_of(node).ainvoke({"messages": [("user", str(times))]}, config)

    await run("one", 2)
    await run("two", 2)
    with pytest.raises(LimitPassed, match="model calls of a run: 3; at most 2"):
        await run("three", 3)
    assert len(model.calls) == 6


async def test_no_more_calls_are_open_at_the_same_moment_and_room_comes_back() -> None:
    class Gated(ScriptedModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await go.wait()
            return await super()._agenerate(*args, **kwargs)

    go = asyncio.Event()
    model, guard = Gated(calls=[]), CapGuard(Caps(parallel_calls=3))

    async def node(state: MessagesState) -> Any:
        asked = [asyncio.create_task(model.ainvoke("hi")) for _ in range(8)]
        await until(lambda: sum(one.done() for one in asked) >= 5)
        go.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, LimitPassed) for one in outcomes) == 5
        await asyncio.gather(*(model.ainvoke("hi") for _ in range(3)))
        return {}

    await graph_of(node).ainvoke({"messages": []}, watched({"configurable": {"run_id": "r"}}, [guard]))
    assert len(model.calls) == 6


async def test_a_step_fans_out_only_so_far() -> None:
    def node(state: MessagesState) -> Any:
        return {}

    def route(state: MessagesState) -> list[Send]:
        return [Send("work", state) for _ in range(int(state["messages"][-1].text))]

    def command(state: MessagesState) -> Command[str]:
        return Command(goto=route(state))

    def plain(state: MessagesState) -> str:
        return "work"

    caps = Caps(sends=5)
    builder: Any = StateGraph(MessagesState)
    builder.add_node("work", node).add_node("first", node).add_edge(START, "first")
    graph = builder.add_conditional_edges("first", capped_sends(route, caps), ["work"]).compile()
    await graph.ainvoke({"messages": [("user", "5")]})
    with pytest.raises(LimitPassed, match="parallel tasks of one step: 6; at most 5"):
        await graph.ainvoke({"messages": [("user", "6")]})
    with pytest.raises(LimitPassed):
        capped_sends(command, caps)({"messages": [HumanMessage("6")]})
    assert capped_sends(plain, caps)({"messages": []}) == "work"


async def test_steps_are_capped_by_langgraph_and_a_smaller_limit_stays() -> None:
    builder: Any = StateGraph(MessagesState)

    def node(state: MessagesState) -> Any:
        return {}

    graph = builder.add_node("a", node).add_edge(START, "a").add_edge("a", "a").compile()
    config = capped({}, Caps(steps=3, parallel_calls=2))
    assert (config.get("recursion_limit"), config.get("max_concurrency")) == (3, 2)
    assert capped({"recursion_limit": 2}, Caps(steps=3)).get("recursion_limit") == 2
    with pytest.raises(GraphRecursionError):
        await graph.ainvoke({"messages": []}, config)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "5"])
def test_a_wrong_cap_names_itself(wrong: Any) -> None:
    with pytest.raises(ValueError, match="model_calls is"):
        Caps(model_calls=wrong)


@tool
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing at {place}"


def looks(count: int) -> AIMessage:
    calls: Any = [{"name": "look", "args": {"place": str(n)}, "id": f"c{n}"} for n in range(count)]
    return AIMessage("", tool_calls=calls)


async def test_an_agent_is_told_of_its_surplus_calls_or_ends_or_raises() -> None:
    caps, given = Caps(tool_calls_per_turn=2), {"messages": [("user", "look")]}

    async def run(on_limit: Any) -> list[Any]:
        middleware = [CapsMiddleware(caps, on_limit=on_limit)]
        agent = create_agent(answers(looks(3), "done"), [look], middleware=middleware)
        return (await agent.ainvoke(given))["messages"]

    told = await run("tell")
    results = {one.tool_call_id: one.content for one in told if isinstance(one, ToolMessage)}
    assert results["c0"] == "nothing at 0"
    assert results["c2"] == "too many tool calls in one answer: 3; at most 2 are allowed"
    assert told[-1].content == "done"
    ended = await run("end")
    assert [one.tool_call_id for one in ended if isinstance(one, ToolMessage)] == ["c0", "c1", "c2"]
    assert ended[-1].content.startswith("I have to stop here: too many tool calls")
    with pytest.raises(LimitPassed):
        await run("raise")


async def test_an_agent_with_a_prompt_that_is_too_large_ends() -> None:
    model = answers("never")
    agent = create_agent(model, [look], middleware=[CapsMiddleware(Caps(input_chars=10), on_limit="end")])
    state = await agent.ainvoke({"messages": [("user", "x" * 11)]})
    assert "I have to stop here" in state["messages"][-1].content
    assert model.asked == []


async def test_calls_of_an_agent_are_counted_by_langchains_own_middleware() -> None:
    made = limits_of(Caps(model_calls=1, tool_calls=1), on_limit="end")
    agent = create_agent(answers(looks(1), "never"), [look], middleware=made)
    state = await agent.ainvoke({"messages": [("user", "look")]})
    assert "limit" in state["messages"][-1].content.lower()


class Invoice(BaseModel):
    total: int


GOOD, BAD = '{"total": 5}', '{"total": "five"}'
SCHEMA: dict[str, Any] = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}


@pytest.mark.parametrize("schema", [Invoice, SCHEMA])
@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_that_does_not_fit_is_asked_for_again_with_what_was_wrong(schema: Any, streams: bool) -> None:
    inner = answers(BAD, "no json", f"```json\n{GOOD}\n```")
    model = CheckedModel(inner=inner, check=OutputCheck(schema))
    if streams:
        text = "".join([str(chunk.content) async for chunk in model.astream("bill")])
    else:
        text = (await model.ainvoke("bill")).content
    assert GOOD in str(text)
    assert len(inner.asked) == 3
    assert "total" in inner.asked[1][-1].content
    assert "it is no JSON" in inner.asked[2][-1].content


def test_answers_that_never_fit_raise_or_are_replaced_also_without_a_loop() -> None:
    model = CheckedModel(inner=answers(BAD, BAD, BAD), check=OutputCheck(Invoice))
    with pytest.raises(OutputInvalid, match="total: Input should be a valid integer"):
        model.invoke("bill")
    check = OutputCheck(Invoice, retries=0, on_violation="fallback", fallback=Invoice(total=0))
    answer = CheckedModel(inner=answers(BAD), check=check).invoke("bill")
    assert (answer.content, answer.response_metadata["output_check"]) == ('{"total":0}', "fallback")


async def test_an_answer_that_calls_tools_is_not_checked() -> None:
    model = CheckedModel(inner=answers(looks(1)), check=OutputCheck(Invoice, retries=0))
    assert (await model.ainvoke("bill")).tool_calls


async def test_an_agents_last_answer_fits() -> None:
    model = answers(looks(1), BAD, GOOD)
    agent = create_agent(model, [look], middleware=[OutputCheckMiddleware(OutputCheck(SCHEMA))])
    state = await agent.ainvoke({"messages": [("user", "bill")]})
    assert state["messages"][-1].content == GOOD
    assert [type(one).__name__ for one in state["messages"]] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "AIMessage",
    ]


def test_a_schema_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="schema is no JSON schema"):
        OutputCheck({"type": "money"})
    with pytest.raises(ValueError, match="on_violation is 'ask'"):
        OutputCheck(Invoice, on_violation=cast("Any", "ask"))
