"""Streams more than a reader takes: `count` events of `size` bytes each, a few hundred in a second.

In steps, since LangGraph queues without bound what a node writes faster than it can be kept, and waits for that where a
step ends.
"""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, NotRequired

from executions import note
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

AT_ONCE = 30


class State(TypedDict):
    count: int
    size: int
    poured: NotRequired[int]
    done: Annotated[list[int], operator.add]


async def _pour(state: State, config: RunnableConfig) -> dict[str, Any]:
    first = state.get("poured", 0)
    last = min(first + AT_ONCE, state["count"])
    note(config, f"from-{first}", "start")
    write = get_stream_writer()
    for number in range(first, last):
        write({"number": number, "drops": chr(97 + number % 26) * state["size"]})
        await asyncio.sleep(0.002)
    note(config, f"from-{first}", "end")
    return {"poured": last, "done": [last] if last == state["count"] else []}


def _more(state: State) -> str:
    return END if state["done"] else "pour"


builder = StateGraph(State)
builder.add_node("pour", _pour)
builder.add_edge(START, "pour")
builder.add_conditional_edges("pour", _more, ["pour", END])
graph = builder.compile()
