"""Streams more than a reader takes: `count` events of `size` bytes each, a few hundred in a second."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated

from executions import note
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class State(TypedDict):
    count: int
    size: int
    done: Annotated[list[int], operator.add]


async def _pour(state: State, config: RunnableConfig) -> dict[str, list[int]]:
    note(config, 1, "start")
    write = get_stream_writer()
    for number in range(state["count"]):
        write({"number": number, "drops": chr(97 + number % 26) * state["size"]})
        await asyncio.sleep(0.002)  # LangGraph queues without bound what a node writes faster than it can be kept
    note(config, 1, "end")
    return {"done": [state["count"]]}


builder = StateGraph(State)
builder.add_node("pour", _pour)
builder.add_edge(START, "pour")
builder.add_edge("pour", END)
graph = builder.compile()
