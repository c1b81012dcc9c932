"""What a budget adds to a model call, in microseconds: the time of a call with it less the time of one without.

    python -m bench.guards.budget_overhead [--calls 2000]

In one process, with the ledger in memory and a model that answers at once; with a server's ports a call adds two round
trips to Postgres besides (reserve, settle), which calls of one moment share. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langgraph.graph import END, START, MessagesState, StateGraph

from scripted_calls import USAGE, ScriptedModel
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.guarded.graph import guarded
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports

PRICES = Prices({"scripted": Rates(Decimal("0.15"), Decimal("0.6"))})
ONE = (Limit(1e6, scope="user", window="day"),)
FOUR = (
    *ONE,
    Limit(1e6, scope="run"),
    Limit(10**12, unit="tokens", scope="tenant", window="month"),
    Limit(10**9, unit="model_calls", scope="thread"),
)


class Long(ScriptedModel):
    """Streams two hundred tokens."""

    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(200):
            usage = USAGE if number == 199 else None
            yield ChatGenerationChunk(message=AIMessageChunk(content="word ", usage_metadata=usage))


def graph_of(model: ScriptedModel, *, blocking: bool = False) -> Any:
    async def speak(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], max_tokens=4)]}

    def speak_in_a_thread(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"], max_tokens=4)]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("speak", speak_in_a_thread if blocking else speak)
    return builder.add_edge(START, "speak").add_edge("speak", END).compile()


async def invoked(graph: Any) -> None:
    await graph.ainvoke({"messages": [("user", "hi")]}, {"configurable": {"thread_id": "t", "user_id": "ada"}})


async def streamed(graph: Any) -> None:
    config = {"configurable": {"thread_id": "t", "user_id": "ada"}}
    async for _ in graph.astream({"messages": [("user", "hi")]}, config, stream_mode="messages"):
        pass


async def in_a_thread(graph: Any) -> None:
    graph.invoke({"messages": [("user", "hi")]}, {"configurable": {"thread_id": "t", "user_id": "ada"}})


CASES: tuple[tuple[str, ScriptedModel, Callable[[Any], Awaitable[None]], tuple[Limit, ...], bool], ...] = (
    ("awaited, one limit", ScriptedModel(), invoked, ONE, False),
    ("awaited, four limits", ScriptedModel(), invoked, FOUR, False),
    ("blocking, one limit", ScriptedModel(), in_a_thread, ONE, True),
    ("streamed, 200 tokens, one limit", Long(), streamed, ONE, False),
)


async def measured(calls: int, model: ScriptedModel, call: Any, limits: tuple[Limit, ...], blocking: bool) -> list[Any]:
    """Microseconds of the calls without and with a budget, taken in turns."""
    plain = graph_of(model, blocking=blocking)
    careful = guarded(plain, [Budget(*limits, prices=PRICES)])
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(calls + calls // 10):
        for graph, into in zip((plain, careful), times, strict=True):
            began = perf_counter_ns()
            await call(graph)
            if number >= calls // 10:
                into.append((perf_counter_ns() - began) / 1000)
    return [sorted(into) for into in times]


def at(times: list[float], part: float) -> float:
    return times[min(len(times) - 1, int(part * len(times)))]


async def main(calls: int) -> None:
    print("| a model call | without p50 | with p50 | adds p50 | without p99 | with p99 |")
    print("|---|---|---|---|---|---|")
    for title, model, call, limits, blocking in CASES:
        use_ports(memory_ports())
        plain, careful = await measured(calls, model, call, limits, blocking)
        cells = (
            at(plain, 0.5),
            at(careful, 0.5),
            at(careful, 0.5) - at(plain, 0.5),
            at(plain, 0.99),
            at(careful, 0.99),
        )
        print(f"| {title} | {' | '.join(f'{cell:.0f} µs' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    logging.disable(logging.WARNING)
    asyncio.run(main(parser.parse_args().calls))
