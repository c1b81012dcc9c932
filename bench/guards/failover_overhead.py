"""What a failover adds to a model call: p50 and p99 of its CPU time, with a model that answers at once.

    python -m bench.guards.failover_overhead [--calls 2000]

The breakers' state is in memory; over Redis or Postgres add two round trips to each call (`admit` and `report`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from time import thread_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from scripted_targets import Scripted, Status
from waystation_guards.failover.hedging import Hedge
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Decision, FailoverPolicy
from waystation_guards.levels.levels import Degradation, LevelPolicy
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports
from waystation_guards.watching.watcher import watched

WORDS = [f"word{number} " for number in range(100)]


def model(*scripts: list[Any]) -> Scripted:
    return Scripted(model=f"m{id(scripts)}", scripts=list(scripts))


async def timed(work: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    """Seconds of CPU of each call, after some that warm up: nothing is waited for, and others may use the machine."""
    for _ in range(100):
        await work()
    gc.collect()
    gc.disable()
    found: list[float] = []
    try:
        for _ in range(calls):
            began = thread_time()
            await work()
            found.append(thread_time() - began)
    finally:
        gc.enable()
    return found


async def read(one: Any) -> None:
    async for _ in one.astream("hi"):
        pass


async def measure(calls: int) -> list[tuple[str, list[float]]]:
    use_ports(memory_ports())
    rows: Any = {"overload": Decision()}
    failing = [Scripted(model="failing", scripts=[[Status(503)]]), Scripted(model="well", scripts=[["fine"]])]
    fast, whole = model(["fine"]), model(WORDS)
    pair = [Scripted(model="a", scripts=[["fine"]]), Scripted(model="b", scripts=[["fine"]])]
    streams = [Scripted(model="sa", scripts=[WORDS]), Scripted(model="sb", scripts=[WORDS])]
    over = FailoverModel(pair)
    bare = FailoverModel(pair, FailoverPolicy(breaker=None))
    hedged = FailoverModel(pair, FailoverPolicy(hedge=Hedge(after_s=5, least_s=5)))
    second = FailoverModel(failing, FailoverPolicy(breaker=None, decisions=rows))
    streamed = FailoverModel(streams)
    levels = watched(None, [Degradation(LevelPolicy())])
    empty = watched(None, [])
    return [
        ("ainvoke: the model alone", await timed(lambda: fast.ainvoke("hi"), calls)),
        ("ainvoke: failover", await timed(lambda: over.ainvoke("hi"), calls)),
        ("ainvoke: failover without breakers", await timed(lambda: bare.ainvoke("hi"), calls)),
        ("ainvoke: failover with a hedge in readiness", await timed(lambda: hedged.ainvoke("hi"), calls)),
        ("ainvoke: failover whose first target fails", await timed(lambda: second.ainvoke("hi"), calls)),
        ("astream of 100 words: the model alone", await timed(lambda: read(whole), calls // 10)),
        ("astream of 100 words: failover", await timed(lambda: read(streamed), calls // 10)),
        ("ainvoke: watched, no guards", await timed(lambda: fast.ainvoke("hi", empty), calls)),
        ("ainvoke: watched, levels", await timed(lambda: fast.ainvoke("hi", levels), calls)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    found = asyncio.run(measure(parser.parse_args().calls))
    print("| | p50, µs | p99, µs |\n|---|---|---|")
    for name, seconds in found:
        cuts = quantiles(seconds, n=100)
        print(f"| {name} | {cuts[49] * 1e6:.0f} | {cuts[98] * 1e6:.0f} |")


if __name__ == "__main__":
    main()
