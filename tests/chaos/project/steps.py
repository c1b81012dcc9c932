"""Graphs of several steps that count their executions: one step after the other, with or without tokens between."""

from __future__ import annotations

import asyncio
import operator
import time
from typing import Annotated, NotRequired

import wrong_clock  # noqa: F401
from executions import note
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.stream import CustomTransformer
from langgraph.types import interrupt
from typing_extensions import TypedDict


class State(TypedDict):
    steps: int
    delay_s: float
    blocking: NotRequired[bool]
    tokens: NotRequired[int]
    done: Annotated[list[int], operator.add]


def _more(state: State) -> str:
    return "step" if len(state["done"]) < state["steps"] else END


async def _step(state: State, config: RunnableConfig) -> dict[str, list[int]]:
    number = len(state["done"]) + 1
    note(config, number, "start")
    if state.get("blocking"):
        time.sleep(state["delay_s"])  # noqa: ASYNC251  # as careless users do
    else:
        await asyncio.sleep(state["delay_s"])
    note(config, number, "end")
    return {"done": [number]}


async def _token_step(state: State, config: RunnableConfig) -> dict[str, list[int]]:
    number = len(state["done"]) + 1
    note(config, number, "start")
    write = get_stream_writer()
    for token in range(state.get("tokens", 10)):
        write({"step": number, "token": token})
        await asyncio.sleep(state["delay_s"])
    note(config, number, "end")
    return {"done": [number]}


def _loop(node: object) -> StateGraph:
    builder = StateGraph(State)
    builder.add_node("step", node)
    builder.add_conditional_edges(START, _more, ["step", END])
    builder.add_conditional_edges("step", _more, ["step", END])
    return builder


graph = _loop(_step).compile()
tokens = _loop(_token_step).compile()
streaming = _loop(_token_step).compile(transformers=[CustomTransformer])


class Answers(TypedDict):
    answers: Annotated[list[str], operator.add]
    done: Annotated[list[int], operator.add]


def _ask_twice(state: Answers) -> dict[str, list[str]]:
    first = interrupt("one")
    return {"answers": [first, interrupt("two")]}


async def _act(state: Answers, config: RunnableConfig) -> dict[str, list[int]]:
    note(config, "act", "start")
    return {"done": [1]}


_asking = StateGraph(Answers)
_asking.add_node("ask", _ask_twice)
_asking.add_node("act", _act)
_asking.add_edge(START, "ask")
_asking.add_edge("ask", "act")
asking = _asking.compile()

_nested = StateGraph(State)
_nested.add_node("child", graph)
_nested.add_edge(START, "child")
nested = _nested.compile()
