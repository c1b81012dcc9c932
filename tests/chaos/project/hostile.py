"""A graph that does what no graph should; its input says what."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import sys
import threading
import time
from typing import Annotated, Any, NotRequired

from executions import note
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict


class State(TypedDict):
    how: str
    s: NotRequired[float]
    n: NotRequired[int]
    out: NotRequired[Any]
    done: Annotated[list[int], operator.add]


class _Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


async def _misbehave(state: State, config: RunnableConfig) -> dict[str, Any]:
    how, seconds = state["how"], state.get("s", 0.5)
    note(config, how, "start")
    match how:
        case "block":
            time.sleep(seconds)  # noqa: ASYNC251  # as careless users do
        case "hang":
            while True:
                pass
        case "spin":
            while True:  # noqa: ASYNC110
                await asyncio.sleep(0)
        case "spin-in-thread":
            ends = time.monotonic() + seconds
            await asyncio.to_thread(_burn, ends)
        case "exit":
            sys.exit(3)
        case "exit-in-thread":
            await asyncio.to_thread(sys.exit, 3)
        case "keyboard":
            raise KeyboardInterrupt
        case "os-exit":
            os._exit(7)
        case "out-of-memory":
            os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does
        case "memory-error":
            bytearray(1 << 60)
        case "swallow":
            await _swallow(seconds)
            note(config, how, "went on")
        case "cancel-itself":
            raise asyncio.CancelledError
        case "unserialisable":
            return {"out": threading.Lock(), "done": [1]}
        case "circular":
            circle: list[Any] = []
            circle.append(circle)
            return {"out": circle, "done": [1]}
        case "deep":
            deep: Any = 1
            for _ in range(state.get("n", 5000)):
                deep = [deep]
            return {"out": deep, "done": [1]}
        case "odd-text":
            return {"out": {"nul": "a\x00b", "lone": "\ud800", "nan": float("nan")}, "done": [1]}
        case "giant":
            return {"out": "x" * state.get("n", 10_000_000), "done": [1]}
        case "raise-odd":
            raise RuntimeError("a\x00b \ud800")
        case "raise-wordless":
            raise _Wordless
        case "recurse":
            _recurse(0)
        case _:
            pass
    note(config, how, "end")
    return {"done": [1]}


def _burn(ends: float) -> None:
    while time.monotonic() < ends:
        pass


def _recurse(depth: int) -> int:
    return _recurse(depth + 1) + 1


async def _swallow(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass


def _route(state: State) -> Any:
    if state["how"] == "fan-out":
        return [Send("leaf", {"how": "leaf", "n": n}) for n in range(state.get("n", 500))]
    return "after"


async def _leaf(state: State) -> dict[str, Any]:
    return {"done": [state.get("n", 0)]}


async def _after(state: State, config: RunnableConfig) -> dict[str, Any]:
    note(config, "after", "start")
    return {"done": [2]}


builder = StateGraph(State)
builder.add_node("misbehave", _misbehave)
builder.add_node("leaf", _leaf)
builder.add_node("after", _after)
builder.add_edge(START, "misbehave")
builder.add_conditional_edges("misbehave", _route, ["leaf", "after"])
builder.add_edge("leaf", END)
builder.add_edge("after", END)
graph = builder.compile()
