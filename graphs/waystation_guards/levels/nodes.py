"""Levels in any `StateGraph`: routes by level, the level in the state, and an answer without a model.

routes = {"full": "agent", "minimal": "faq", "maintenance": "closed"}
builder.add_conditional_edges(START, by_level(degradation, routes), [*routes.values()])
builder.add_node("faq", answer_node(faq))
builder.add_node("closed", answer_node(Faq({}, otherwise="We are working on it.")))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from typing_extensions import TypedDict  # LangGraph's own states are made of these; the two do not mix

from waystation_guards.blocking import wait_for
from waystation_guards.calls import site_of
from waystation_guards.levels.answers import Answers
from waystation_guards.levels.levels import Degradation, Level, LevelStanding, at_level, in_maintenance
from waystation_guards.ports import ports_of


class LevelState(TypedDict, total=False):
    """The member of a graph's state that tells the level. Mix it into a state of your own."""

    level: Level


async def level_of(degradation: Degradation, config: RunnableConfig | None) -> LevelStanding:
    """The level that holds for the caller of a node."""
    return await degradation.level(ports_of(config), site_of(config))


def by_level(degradation: Degradation, routes: Mapping[Level, str]) -> Runnable[Any, str]:
    """A route for `add_conditional_edges`: the node for the level, or that of the next better level that has one.

    Raises:
        ValueError: there is no route for `full`.
        InMaintenance: when routing, the level is `maintenance`, and there is no route of its own.
    """
    if "full" not in routes:
        raise ValueError("routes by level have none for 'full'")

    async def route(_: Any, config: RunnableConfig) -> str:
        standing = await level_of(degradation, config)
        if standing.level == "maintenance" and "maintenance" not in routes:
            raise in_maintenance(standing)
        return cast("str", at_level(routes, standing.level))

    return _both(route, "by_level")


def level_node(degradation: Degradation) -> Runnable[Any, LevelState]:
    """A node that writes the level into the state."""

    async def write(_: Any, config: RunnableConfig) -> LevelState:
        return {"level": (await level_of(degradation, config)).level}

    return _both(write, "level")


def answer_node(answers: Answers, *, otherwise: str = "I cannot answer this at the moment.") -> Runnable[Any, Any]:
    """A node that answers the last question in `messages` without a model."""

    async def answer(state: Any, config: RunnableConfig) -> dict[str, list[BaseMessage]]:
        given: Any = cast("Any", state)["messages"] if isinstance(state, Mapping) else state.messages
        text = await answers(ports_of(config), site_of(config), convert_to_messages(given))
        return {"messages": [AIMessage(otherwise if text is None else text)]}

    return _both(answer, "answer")


def _both(work: Any, name: str) -> Runnable[Any, Any]:
    """The same for graphs that are awaited and for those that block."""

    def blocking(state: Any, config: RunnableConfig) -> Any:
        return wait_for(work(state, config), ports_of(config).loop)

    return RunnableLambda(blocking, work, name=name)
