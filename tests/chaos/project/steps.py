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
