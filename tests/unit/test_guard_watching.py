"""Guards are asked before every call, whoever makes it and however, and are told its end once."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from scripted_calls import USAGE, ScriptedModel
from waystation_guards.errors import BudgetExceeded, GuardError, GuardUnavailable
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall, Watcher, watched

pytestmark = pytest.mark.anyio


class Noting:
    """Notes what it is told, and refuses what it should."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked: list[ModelCall | ToolCall] = []
        self.ended: list[tuple[ModelCall | ToolCall, Made]] = []

    async def before_model(self, call: ModelCall) -> None:
        await self.before_tool(call)

    async def after_model(self, call: ModelCall, made: Made) -> None:
        self.ended.append((call, made))

    async def before_tool(self, call: Any) -> None:
        await asyncio.sleep(0)
        self.asked.append(call)
        if self.refuses:
            raise BudgetExceeded("not today")

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        self.ended.append((call, made))

    @property
    def ends(self) -> list[str]:
        return [made for _, made in self.ended]


class State(TypedDict, total=False):
    said: str


def graph_of(node: Any) -> Any:
    builder: Any = StateGraph(State)
    return builder.add_node("speaker", node).add_edge(START, "speaker").add_edge("speaker", END).compile()


def model() -> ScriptedModel:
    return ScriptedModel(calls=[])


async def say(model: ScriptedModel, how: str, config: Any = None) -> str:
    match how:
        case "ainvoke":
            return str((await model.ainvoke("hi", config)).content)
        case "astream":
            return "".join([str(chunk.content) async for chunk in model.astream("hi", config)])
        case "invoke":
            return str((await asyncio.to_thread(model.invoke, "hi", config)).content)
        case _:
            return "".join(
                str(chunk.content) for chunk in await asyncio.to_thread(lambda: [*model.stream("hi", config)])
            )


HOW = ("ainvoke", "astream", "invoke", "stream")


@pytest.mark.parametrize("how", HOW)
async def test_every_way_to_call_a_model_is_asked_about_and_told_of_once(how: str) -> None:
    guard, speaker = Noting(), model()
    assert await say(speaker, how, watched(None, [guard])) == "a b c d"
    assert len(guard.asked) == 1
    assert guard.ends == ["made"]
    (call, _) = guard.ended[0]
    assert isinstance(call, ModelCall)
    assert call.usage == USAGE
    assert call.messages[0].content == "hi"


@pytest.mark.parametrize("how", HOW)
async def test_a_refused_call_is_not_made(how: str) -> None:
    agreed, refusing, never, speaker = Noting(), Noting(refuses=True), Noting(), model()
    with pytest.raises(BudgetExceeded):
        await say(speaker, how, watched(None, [agreed, refusing, never]))
    assert speaker.calls == []
    assert agreed.ends == ["not made"]
    assert refusing.ends == []
    assert never.asked == []


@pytest.mark.parametrize("how", HOW)
async def test_a_failed_call_is_told_as_failed(how: str) -> None:
    guard, speaker = Noting(), ScriptedModel(calls=[], fails=True)
    with pytest.raises(ValueError, match="no"):
        await say(speaker, how, watched(None, [guard]))
    assert guard.ends == ["failed"]
    assert isinstance(guard.ended[0][0].error, ValueError)


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_cancelled_stream_is_told_with_what_had_come(how: str) -> None:
    guard, speaker = Noting(), ScriptedModel(calls=[], waits=True)
    watcher = Watcher([guard])
    config: Any = {"callbacks": watcher.handlers}
    streaming = asyncio.Event()

    async def node(_: State) -> State:
        return {"said": await say(speaker, how)}

    async def read() -> None:
        async for _ in graph_of(node).astream({}, config, stream_mode="messages"):
            streaming.set()

    task = asyncio.create_task(read())
    async with asyncio.timeout(60):
        await streaming.wait()
    task.cancel()
    await asyncio.wait([task])
    await watcher.close()
    await watcher.close()
    assert guard.ends == ["cancelled"]
    (call, _) = guard.ended[0]
    assert isinstance(call, ModelCall)
    assert (call.streamed_chunks, call.streamed_chars) == (1, 2)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("waits", [True, False])
async def test_an_answer_in_langchains_event_protocol_is_counted_as_it_comes(waits: bool) -> None:
    guard, speaker = Noting(), ScriptedModel(waits=waits, silent=True)
    watcher = Watcher([guard])

    async def node(_: State) -> State:
        return {"said": str((await speaker.ainvoke("hi")).content)}

    events: Any = await graph_of(node).astream_events({}, {"callbacks": watcher.handlers}, version="v3")
    async with asyncio.timeout(60):
        if waits:
            reading = asyncio.create_task(events.output())
            while not any(isinstance(call, ModelCall) and call.streamed_chunks for call in guard.asked):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            reading.cancel()
            await asyncio.wait([reading])
        else:
            await events.output()
        await watcher.close()
    (call, made) = guard.ended[0]
    assert isinstance(call, ModelCall)
    assert made == ("cancelled" if waits else "made")
    assert (call.streamed_chunks, call.streamed_chars) == ((1, 2) if waits else (4, 7))


@pytest.mark.parametrize("how", ["ainvoke", "invoke"])
async def test_models_of_plain_text_are_asked_about_too(how: str) -> None:
    guard = Noting()
    model: Any = FakeListLLM(responses=["a b c d"])
    config = watched(None, [guard])
    said = await (model.ainvoke("hi", config) if how == "ainvoke" else asyncio.to_thread(model.invoke, "hi", config))
    assert said == "a b c d"
    assert guard.ends == ["made"]
    (call,) = guard.asked
    assert isinstance(call, ModelCall)
    assert (call.messages[0].content, call.answered_chars) == ("hi", 7)


async def test_a_run_without_an_id_is_one_run_for_all_of_its_calls() -> None:
    guard, speaker = Noting(), model()
    config = watched(None, [guard])
    await say(speaker, "ainvoke", config)
    await say(speaker, "invoke", config)
    await say(speaker, "ainvoke", watched(None, [guard]))
    first, second, other = (call.site.run for call in guard.asked)
    assert first == second != other


async def test_a_model_is_priced_by_its_own_name_and_not_by_its_callers_metadata() -> None:
    guard, speaker = Noting(), model()
    await speaker.ainvoke("hi", watched({"metadata": {"model": "cheap", "ls_model_name": "cheap"}}, [guard]))
    (call,) = guard.asked
    assert isinstance(call, ModelCall)
    assert call.model == "scripted"


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_calls_inside_a_graph_know_their_thread_and_node(asynchronous: bool) -> None:
    guard, speaker = Noting(), model()

    async def node(_: State) -> State:
        return {"said": str((await speaker.ainvoke("hi")).content)}

    def blocking_node(_: State) -> State:
        return {"said": str(speaker.invoke("hi").content)}

    config = watched({"configurable": {"thread_id": "t-1", "user_id": "ada"}, "metadata": {"run_attempt": 2}}, [guard])
    assert (await graph_of(node if asynchronous else blocking_node).ainvoke({}, config))["said"] == "a b c d"
    site = guard.asked[0].site
    assert (site.thread, site.user, site.attempt, site.node) == ("t-1", "ada", 2, "speaker")


async def test_a_call_that_is_not_awaited_in_an_async_node_is_asked_about_too() -> None:
    guard, speaker = Noting(refuses=True), model()

    async def node(_: State) -> State:
        return {"said": str(speaker.invoke("hi").content)}

    with pytest.raises(BudgetExceeded):
        await graph_of(node).ainvoke({}, watched(None, [guard]))
    assert speaker.calls == []


async def test_where_guards_live_on_the_very_loop_that_is_blocked_the_call_is_refused() -> None:
    guard, speaker = Noting(), model()
    watcher = Watcher([guard], loop=asyncio.get_running_loop())
    with pytest.raises(GuardUnavailable, match="await it"):
        speaker.invoke("hi", {"callbacks": watcher.handlers})
    assert speaker.calls == []


async def test_threads_ask_on_the_loop_where_the_guards_live() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Where(Noting):
        async def before_model(self, call: ModelCall) -> None:
            loops.append(asyncio.get_running_loop())

    watcher = Watcher([Where()], loop=asyncio.get_running_loop())
    await say(model(), "invoke", {"callbacks": watcher.handlers})
    assert loops == [asyncio.get_running_loop()]


async def test_tools_are_asked_about_with_their_arguments() -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    guard = Noting()
    assert await add.ainvoke({"a": 1, "b": 2}, watched(None, [guard])) == 3
    (call,) = guard.asked
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("add", {"a": 1, "b": 2})
    assert guard.ends == ["made"]
    with pytest.raises(GuardError):
        await add.ainvoke({"a": 1, "b": 2}, watched(None, [Noting(refuses=True)]))


async def test_trouble_of_one_guard_does_not_keep_the_others_from_the_end() -> None:
    class Broken(Noting):
        async def after_model(self, call: ModelCall, made: Made) -> None:
            raise RuntimeError("broken")

    first, speaker = Noting(), model()
    with pytest.raises(RuntimeError):
        await say(speaker, "ainvoke", watched(None, [first, Broken()]))
    assert first.ends == ["made"]
