"""A graph of given length that says at each token where it is, and in its state which steps were taken."""

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph


class Pace(TypedDict, total=False):
    steps: int
    tokens: int
    token_s: float
    done: Annotated[list[int], operator.add]


def _more(state: Pace) -> str:
    return "step" if len(state.get("done", [])) < state.get("steps", 1) else END


async def _step(state: Pace) -> Pace:
    number = len(state.get("done", []))
    write = get_stream_writer()
    for token in range(state.get("tokens", 1)):
        await asyncio.sleep(state.get("token_s", 0.05))
        write([number, token])
    return {"done": [number]}


def _looped() -> Any:
    builder: Any = StateGraph(Pace)
    builder.add_node("step", _step)
    builder.add_conditional_edges(START, _more, ["step", END])
    builder.add_conditional_edges("step", _more, ["step", END])
    return builder.compile()


paced = _looped()
