"""At the level `minimal` no model that nobody edited is called: what was kept answers, then a list of questions."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, cast

import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel

from scripted_calls import USAGE, ScriptedModel
from waystation.catalog.keys_guards import LevelKeys
from waystation.guarding.policy_levels import Levels
from waystation_guards.caching.answers import MARK
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.errors import InMaintenance, InMinimal
from waystation_guards.levels.answering import LIMITED, Known
from waystation_guards.levels.answers import Faq
from waystation_guards.levels.levels import Degradation, Level, LevelPolicy, set_level
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ports import memory_ports
from waystation_guards.model_layer import Layer, install, layered, went_through
from waystation_guards.ports import State, use_ports
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall, watched

pytestmark = pytest.mark.anyio

FAQ = Faq({"opening hours": "From 9 to 17 h."})
HOURS, SKY = "What are your opening hours?", "Why is the sky blue?"


class World:
    """A model, the level that holds, and a clock of what is kept."""

    def __init__(self) -> None:
        install()
        self.now = [1000.0]
        self.ports = replace(memory_ports(), cache=MemoryCache(clock=lambda: self.now[0]))
        use_ports(self.ports)
        self.model = ScriptedModel()
        self.degradation = Degradation(LevelPolicy(check_s=1e-9))

    def layer(self, answers: Faq | None = FAQ, **rules: Any) -> AbstractContextManager[None]:
        kept = ResponseCache(CacheRules(temperature="any", **rules)) if rules else None
        return layered(Layer(cache=kept, known=Known(self.degradation, answers)))

    async def set(self, level: Level) -> None:
        await set_level(self.ports, level)


@pytest.fixture
def world() -> World:
    return World()


def text(message: Any) -> tuple[str, Any]:
    return message.text, message.response_metadata.get("level")


async def test_a_question_that_is_listed_is_answered_and_another_is_told_that_the_service_is_limited(
    world: World,
) -> None:
    with world.layer():
        assert text(await world.model.ainvoke(SKY)) == ("a b c d", None)
        await world.set("minimal")
        assert text(await world.model.ainvoke(HOURS)) == ("From 9 to 17 h.", "minimal")
        assert text(await world.model.ainvoke(SKY)) == (LIMITED, "minimal")
        await world.set("full")
        assert text(await world.model.ainvoke(SKY)) == ("a b c d", None)
    assert len(world.model.calls) == 2


async def test_without_a_list_it_says_what_was_configured(world: World) -> None:
    await world.set("minimal")
    with layered(Layer(known=Known(world.degradation, otherwise="Please call us."))):
        assert text(await world.model.ainvoke(HOURS)) == ("Please call us.", "minimal")


async def test_every_way_to_call_a_model_is_answered_alike(world: World) -> None:
    await world.set("minimal")

    def blocking() -> list[Any]:
        pieces: list[Any] = list(world.model.stream(HOURS))
        whole = sum(pieces[1:], pieces[0])
        return [world.model.invoke(HOURS), whole, *world.model.batch([HOURS, HOURS])]

    with world.layer():
        streamed: list[Any] = [chunk async for chunk in world.model.astream(HOURS)]
        merged = sum(streamed[1:], streamed[0])
        said = [merged, *await world.model.abatch([HOURS] * 2), *await asyncio.to_thread(blocking)]
        assert [text(one) for one in said] == [("From 9 to 17 h.", "minimal")] * 7
        assert text(world.model.invoke(HOURS))[0] == "From 9 to 17 h."  # ports in memory live on any loop
    assert world.model.calls == []


async def test_what_was_kept_goes_before_the_list_and_stale_answers_count_where_they_are_kept(world: World) -> None:
    with world.layer(ttl_s=60, jitter=0, stale_s=600):
        await world.model.ainvoke(HOURS)
        await world.set("minimal")
        fresh = await world.model.ainvoke(HOURS)
        world.now[0] += 300
        stale = await world.model.ainvoke(HOURS)
        assert [text(one) for one in (fresh, stale)] == [("a b c d", "minimal")] * 2
        assert ["stale" in one.response_metadata[MARK] for one in (fresh, stale)] == [False, True]
        world.now[0] += 600
        assert text(await world.model.ainvoke(HOURS)) == ("From 9 to 17 h.", "minimal")
    assert len(world.model.calls) == 1


async def test_a_graph_that_streams_messages_shows_the_answer_and_its_agent_ends(world: World) -> None:
    @tool
    def look(query: str) -> str:
        """Look."""
        return query

    class Calling(ScriptedModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=[one.name for one in tools], **kwargs)

    async def think(state: MessagesState) -> Any:
        return {"messages": [await Calling().bind_tools([look]).ainvoke(state["messages"])]}

    def more(state: Any) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    builder: Any = StateGraph(MessagesState)
    builder.add_node("think", think).add_node("tools", ToolNode([look])).add_edge(START, "think")
    graph = builder.add_conditional_edges("think", more).compile()
    await world.set("minimal")
    with world.layer():
        parts = [part async for part, _ in graph.astream({"messages": [("user", HOURS)]}, stream_mode="messages")]
        state = await graph.ainvoke({"messages": [("user", HOURS)]})
    assert "".join(part.text for part in parts) == "From 9 to 17 h."
    assert text(state["messages"][-1]) == ("From 9 to 17 h.", "minimal")


class Person(BaseModel):
    """A person."""

    name: str


class Structured(ScriptedModel):
    """Answers with a call of the schema's tool, as providers do."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=["Person"], **kwargs)

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.calls.append("whole")
        calls: Any = [{"name": "Person", "args": {"name": "Ada"}, "id": "c1"}]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=calls, usage_metadata=USAGE))])


async def test_structured_output_comes_from_what_was_kept_or_is_refused(world: World) -> None:
    model = Structured()
    chain = model.with_structured_output(Person)
    with world.layer(ttl_s=60):
        assert await chain.ainvoke(HOURS) == Person(name="Ada")
        await world.set("minimal")
        assert await chain.ainvoke(HOURS) == Person(name="Ada")
        with pytest.raises(InMinimal) as refused:
            await chain.ainvoke(SKY)
        assert refused.value.code == "minimal"
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_object"}},
        {"tool_choice": "any"},
        {"tool_choice": {"type": "tool", "name": "look"}},
        {"tool_choice": "look"},
    ],
)
async def test_calls_that_words_cannot_answer_are_refused_and_streams_of_them_too(
    world: World, asked: dict[str, Any]
) -> None:
    await world.set("minimal")
    model = world.model.bind(**asked)
    with world.layer():
        with pytest.raises(InMinimal):
            await model.ainvoke(HOURS)
        with pytest.raises(InMinimal):
            await asyncio.to_thread(model.invoke, HOURS)
        with pytest.raises(InMinimal):
            async for _ in model.astream(HOURS):
                pass
        assert text(await world.model.bind(tool_choice="auto").ainvoke(HOURS))[0] == "From 9 to 17 h."
    assert world.model.calls == []


async def test_a_guard_can_tell_calls_that_the_layer_has_seen_from_others(world: World) -> None:
    seen: list[bool] = []

    class Notes:
        async def before_model(self, call: ModelCall) -> None:
            seen.append(went_through())

        async def after_model(self, call: ModelCall, made: Made) -> None: ...

        async def before_tool(self, call: ToolCall) -> None: ...

        async def after_tool(self, call: ToolCall, made: Made) -> None: ...

    config = watched({}, [Notes()])
    with world.layer():
        await world.model.ainvoke(SKY, config)
        stream: Any = world.model.astream(SKY, config)
        await anext(stream)
        await FakeListLLM(responses=["x"]).ainvoke(SKY, config)  # between two parts of a stream
        await stream.aclose()
        thread = threading.Thread(target=world.model.invoke, args=(SKY, config))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert seen == [True, True, False, False]


async def test_a_policys_levels_refuse_a_model_that_the_layer_cannot_stand_before(world: World) -> None:
    levels = Levels(LevelKeys(check_s=0.01), {})
    await world.set("minimal")
    with layered(Layer(known=Known(levels, FAQ))):
        config = watched({}, [levels])
        assert text(await world.model.ainvoke(HOURS, config)) == ("From 9 to 17 h.", "minimal")
        with pytest.raises(InMinimal):
            await FakeListLLM(responses=["x"]).ainvoke(HOURS, config)


async def test_a_level_that_cannot_be_read_is_the_last_known_one(world: World) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise ConnectionError("nobody answers")

    await world.set("minimal")
    with world.layer():
        await world.model.ainvoke(HOURS)
        use_ports(replace(world.ports, state=cast("State", Away())))
        assert text(await world.model.ainvoke(HOURS)) == ("From 9 to 17 h.", "minimal")
    assert world.model.calls == []


async def test_maintenance_is_the_guards_to_refuse(world: World) -> None:
    await world.set("maintenance")
    with world.layer(), pytest.raises(InMaintenance):
        await world.model.ainvoke(HOURS, watched({}, [world.degradation]))


async def test_an_answer_is_json_and_has_an_id_like_any_other(world: World) -> None:
    await world.set("minimal")
    with world.layer():
        one, other = [await world.model.ainvoke(HOURS) for _ in range(2)]
    assert json.loads(json.dumps(one.response_metadata)) == {"level": "minimal"}
    assert one.id
    assert one.id != other.id
