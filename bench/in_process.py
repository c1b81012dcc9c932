"""The same graphs called without any server, as the floor: the workloads of `load.py`, by `ainvoke` and `astream`.

python -m bench.in_process '{"conninfo": null, "workloads": [...]}'     conninfo: with the stock saver on Postgres
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import orjson
import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from bench.load import spread

PROJECT = Path(__file__).with_name("project")


def load_graph(name: str) -> Any:
    """A graph of the project, compiled."""
    spec = spec_from_file_location("bench_graphs", PROJECT / "graphs.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["bench_graphs"] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


@asynccontextmanager
async def stock_saver(conninfo: str | None) -> AsyncGenerator[Any]:
    """LangGraph's own saver with a pool, or None."""
    if conninfo is None:
        yield None
        return
    kwargs: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(conninfo, min_size=10, max_size=10, kwargs=kwargs, open=False) as pool:
        saver = AsyncPostgresSaver(pool)  # pyright: ignore[reportArgumentType]  # a pool of dict rows
        await saver.setup()
        yield saver


class InProcess:
    """Calls a graph as a workload says."""

    def __init__(self, workload: dict[str, Any], saver: Any) -> None:
        self._graph: Any = load_graph(workload["graph"])
        self._graph.checkpointer = saver
        self._workload = workload
        self.took: list[float] = []
        self.first: list[float] = []
        self.marks = 0

    async def call(self) -> None:
        """One run on a thread of its own."""
        began = time.perf_counter()
        config = {"configurable": {"thread_id": str(uuid.uuid4())}}
        if self._workload["kind"] == "stream":
            await self._stream(config, began)
        else:
            await self._graph.ainvoke(self._workload["input"], config)
        self.took.append(time.perf_counter() - began)

    async def _stream(self, config: dict[str, Any], began: float) -> None:
        mode = self._workload["stream_mode"].removesuffix("-tuple")
        first = True
        async for _ in self._graph.astream(self._workload["input"], config, stream_mode=mode):
            if first:
                self.first.append(time.perf_counter() - began)
                first = False
            self.marks += 1

    async def work(self, count: int, seconds: float) -> None:
        until = time.perf_counter() + seconds
        left = count

        async def client() -> None:
            nonlocal left
            while left > 0 and time.perf_counter() < until:
                left -= 1
                await self.call()

        await asyncio.gather(*(client() for _ in range(self._workload["clients"])))


async def measure(conninfo: str | None, workload: dict[str, Any]) -> dict[str, Any]:
    """The whole job; returns the same figures as a load on a server."""
    async with stock_saver(conninfo) as saver:
        await InProcess(workload, saver).work(workload["warmup"], 30)
        calls = InProcess(workload, saver)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.perf_counter()
        await calls.work(workload["count"], workload["seconds"])
        seconds = time.perf_counter() - began
        print("done", flush=True)
    first = spread(calls.first)["p50_ms"]
    return {
        "seconds": seconds,
        "runs": len(calls.took),
        "marks": calls.marks,
        "accepted_per_s": 0.0,
        **spread(calls.took),
        "first_event_ms": first,
        "first_mark_ms": first,
    }


def main() -> None:
    order = orjson.loads(sys.argv[1])
    for workload in order["workloads"]:
        print(orjson.dumps(uvloop.run(measure(order["conninfo"], workload))).decode(), flush=True)


if __name__ == "__main__":
    main()
