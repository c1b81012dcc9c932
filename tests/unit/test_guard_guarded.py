"""A guarded graph is the graph it was, with guards over every call below it."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command, interrupt

from scripted_calls import ScriptedModel
from waystation_guards.errors import BudgetExceeded
from waystation_guards.guarded.graph import guarded
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

pytestmark = pytest.mark.anyio


class Noting:
    """Notes what it is told, and refuses if it should."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked: list[ModelCall | ToolCall] = []
        self.ends: list[Made] = []

    async def before_model(self, call: ModelCall) -> None:
        self.asked.append(call)
        if self.refuses:
            raise BudgetExceeded("not today")

    async def after_model(self, call: ModelCall, made: Made) -> None:
        self.ends.append(made)

    async def before_tool(self, call: ToolCall) -> None:
        self.asked.append(call)

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        self.ends.append(made)


class Shared(TypedDict, total=False):
    said: str


def speaking(model: BaseChatModel | None = None, *, blocking: bool = False, checkpointer: Any = None) -> Any:
    """A graph with one node that calls a model."""
    speaker = model or ScriptedModel()

    async def speak(state: MessagesState) -> Any:
        return {"messages": [await speaker.ainvoke(state["messages"])]}

    def speak_in_a_thread(state: MessagesState) -> Any:
        return {"messages": [speaker.invoke(state["messages"])]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("speaker", speak_in_a_thread if blocking else speak)
    return builder.add_edge(START, "speaker").add_edge("speaker", END).compile(checkpointer=checkpointer, name="talk")


HI: Any = {"messages": [("user", "hi")]}


async def call(graph: Any, how: str, config: Any = None) -> Any:
    match how:
        case "invoke":
            return await asyncio.to_thread(graph.invoke, HI, config)
        case "ainvoke":
            return await graph.ainvoke(HI, config)
        case "stream":
            return [*await asyncio.to_thread(lambda: [*graph.stream(HI, config, stream_mode="values")])][-1]
        case _:
            return [part async for part in graph.astream(HI, config, stream_mode="values")][-1]


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
async def test_every_way_to_run_a_guarded_graph_is_watched(how: str) -> None:
    guard = Noting()
    graph = guarded(speaking(blocking=how in ("invoke", "stream")), [guard])
    assert (await call(graph, how))["messages"][-1].content == "a b c d"
    assert guard.ends == ["made"]
    refusing = guarded(speaking(blocking=how in ("invoke", "stream")), [Noting(refuses=True)])
    with pytest.raises(BudgetExceeded):
        await call(refusing, how)


async def test_the_graph_that_was_given_stays_as_it_is() -> None:
    guard, plain = Noting(refuses=True), speaking()
    graph = guarded(plain, [guard], name="careful")
    await plain.ainvoke(HI)
    assert guard.asked == []
    assert (graph.name, plain.name) == ("careful", "talk")
    assert isinstance(graph, type(plain))


async def test_copies_of_a_guarded_graph_are_guarded() -> None:
    guard = Noting()
    graph = guarded(speaking(), [guard]).with_config(tags=["copied"])
    await graph.ainvoke(HI)
    assert guard.ends == ["made"]


async def test_two_graphs_of_one_class_have_guards_of_their_own() -> None:
    one, other = Noting(), Noting()
    await guarded(speaking(), [one]).ainvoke(HI)
    await guarded(speaking(), [other]).ainvoke(HI)
    assert (one.ends, other.ends) == (["made"], ["made"])


async def test_what_is_streamed_and_drawn_is_the_same() -> None:
    plain, graph = speaking(), guarded(speaking(), [Noting()])

    async def streamed(graph: Any) -> list[Any]:
        modes = ["values", "updates", "messages", "custom"]
        parts = [part async for part in graph.astream(HI, stream_mode=modes, subgraphs=True)]
        return [(namespace, mode) for namespace, mode, _ in parts]

    assert await streamed(graph) == await streamed(plain)
    assert graph.get_graph().to_json() == plain.get_graph().to_json()
    assert graph.get_input_jsonschema() == plain.get_input_jsonschema()


async def test_checkpoints_and_interrupts_are_the_graphs_own() -> None:
    async def ask(state: Shared) -> Shared:
        return {"said": interrupt("what?")}

    builder: Any = StateGraph(Shared)
    builder.add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
    graph = guarded(builder.compile(checkpointer=InMemorySaver()), [Noting()])
    config: Any = {"configurable": {"thread_id": "t"}}
    asked = await graph.ainvoke({"said": ""}, config)
    assert asked["__interrupt__"][0].value == "what?"
    assert (await graph.aget_state(config)).next == ("ask",)
    assert (await graph.ainvoke(Command(resume="this"), config))["said"] == "this"
    assert len([one async for one in graph.aget_state_history(config)]) > 1


async def test_a_guarded_graph_is_a_node_like_any_subgraph() -> None:
    guard = Noting()
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", guarded(speaking(), [guard])).add_edge(START, "agent").add_edge("agent", END)
    outer = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    namespaces = {space async for space, _ in outer.astream(HI, config, stream_mode="values", subgraphs=True)}
    assert {space[0].partition(":")[0] for space in namespaces if space} == {"agent"}
    assert [name for name, _ in outer.get_subgraphs()] == ["agent"]
    assert guard.asked[0].site.thread == "t"
    assert guard.asked[0].site.namespace.startswith("agent:")


async def test_guards_of_graphs_around_it_are_asked_first_and_hear_of_a_refusal() -> None:
    outer, inner = Noting(), Noting(refuses=True)
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", guarded(speaking(), [inner])).add_edge(START, "agent").add_edge("agent", END)
    with pytest.raises(BudgetExceeded):
        await guarded(builder.compile(), [outer]).ainvoke(HI)
    assert outer.ends == ["not made"]
    assert len(inner.asked) == 1


@pytest.mark.parametrize("streams", [True, False])
async def test_a_cancelled_run_tells_of_its_open_calls(streams: bool) -> None:
    guard = Noting()
    model = ScriptedModel(waits=True, pause_s=60)
    graph = guarded(speaking(model), [guard])
    began = asyncio.Event()

    class Began(Noting):
        async def before_model(self, call: ModelCall) -> None:
            began.set()

    async def run() -> None:
        if streams:
            async for _ in graph.astream(HI, stream_mode="messages"):
                pass
        else:
            await graph.ainvoke(HI)

    graph = guarded(graph, [Began()])
    task = asyncio.create_task(run())
    async with asyncio.timeout(60):
        await began.wait()
        while not model.calls and streams:  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert guard.ends == ["cancelled"]


async def test_a_reader_that_leaves_ends_the_open_calls() -> None:
    guard = Noting()
    graph = guarded(speaking(ScriptedModel(waits=True)), [guard])
    stream = graph.astream(HI, stream_mode="messages")
    async with asyncio.timeout(60):
        await anext(stream)
        await stream.aclose()
    assert guard.ends == ["cancelled"]


async def test_other_runnables_are_guarded_too() -> None:
    guard = Noting()
    model = ScriptedModel()

    def exclaim(text: str) -> str:
        return f"{text}!"

    shout: Any = RunnableLambda(exclaim)
    chain: Any = guarded(shout | model, [guard])
    assert (await chain.ainvoke("hi")).content == "a b c d"
    assert (await asyncio.to_thread(chain.invoke, "hi")).content == "a b c d"
    assert len(await chain.abatch(["hi", "ho"])) == 2
    assert "".join([str(chunk.content) async for chunk in chain.astream("hi")]) == "a b c d"
    assert len(guard.asked) == 5
    assert guard.ends == ["made"] * 5
    assert (await chain.with_config(tags=["x"]).ainvoke("hi")).content == "a b c d"
    assert len(guard.asked) == 6


async def test_a_guarded_model_is_a_model_of_its_class() -> None:
    guard = Noting()
    model = guarded(ScriptedModel(), [guard])
    assert isinstance(model, ScriptedModel)
    assert (await model.ainvoke("hi")).content == "a b c d"
    assert (await model.bind(stop=["x"]).ainvoke("hi")).content == "a b c d"
    assert guard.ends == ["made", "made"]


async def test_a_cancelled_call_of_a_guarded_model_ends_with_its_task() -> None:
    ended = asyncio.Event()

    class Ended(Noting):
        async def after_model(self, call: ModelCall, made: Made) -> None:
            await super().after_model(call, made)
            ended.set()

    guard = Ended()
    model = guarded(ScriptedModel(pause_s=60), [guard])
    task = asyncio.create_task(model.ainvoke("hi"))
    async with asyncio.timeout(60):
        while not guard.asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await ended.wait()
    assert guard.ends == ["cancelled"]


@pytest.mark.parametrize("wrong", [RemoteGraph("agent", url="http://127.0.0.1:9"), "agent", None])
def test_what_runs_elsewhere_or_not_at_all_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="cannot be guarded"):
        guarded(wrong, [])
