"""What saving a run costs: our saver next to LangGraph's own with a pool and to no saver at all, in one run.

    python -m bench.checkpointer [--database-uri postgres://…] [--seconds 3] [--profile]

CPU is that of this process (graph included) and of all processes of the Postgres server, which must be local and idle.
Without an address an embedded Postgres is started. Compare within one run only: machines differ.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import operator
import os
import pstats
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psycopg
import uvloop
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from typing_extensions import TypedDict

from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate
from waystation_db.pool import Database
from waystation_db.rows import RunKey

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_INSERT_RUN = """
with t as (
    insert into thread (thread_id, status, active_runs) values (%(thread)s, 'busy', 1)
)
insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, attempt, lease_expires_at)
values (%(thread)s, %(run)s, gen_random_uuid(), 'g', '{}', 'running', 1, now() + interval '1 hour')
"""


class State(TypedDict):
    """A counter, a log and a text that changes little."""

    n: int
    log: Annotated[list[str], operator.add]


async def _step(state: State) -> dict[str, Any]:
    return {"n": state["n"] + 1, "log": [f"step {state['n']}"]}


def _graph(steps: int) -> Any:
    builder: Any = StateGraph(State)
    names = [f"node_{i}" for i in range(steps)]
    for name in names:
        builder.add_node(name, _step)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile()


# For one run: the saver it works with, and its thread.
Prepared = tuple[BaseCheckpointSaver[Any] | None, str]


@dataclass(frozen=True)
class Contender:
    """A way of saving: `prepare` makes `count` threads ready to run, outside the measured time."""

    name: str
    prepare: Callable[[int], Any]


@asynccontextmanager
async def _contenders(uri: str) -> AsyncGenerator[list[Contender]]:
    async with AsyncExitStack() as stack:
        pool = AsyncConnectionPool(
            uri,
            min_size=10,
            max_size=10,
            kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
            open=False,
        )
        await stack.enter_async_context(pool)
        db = await stack.enter_async_context(Database(uri, max_size=10, name="bench"))
        plain = await stack.enter_async_context(Database(uri, max_size=10, name="bench", prepare=False))
        stock: Any = AsyncPostgresSaver(pool)  # pyright: ignore[reportArgumentType]  # a pool of dict rows
        ours, unprepared = PostgresCheckpointer(db), PostgresCheckpointer(plain)

        async def fenced(saver: PostgresCheckpointer, count: int) -> list[Prepared]:
            keys = [RunKey("default", str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(count)]
            async with db.connection() as conn, conn.transaction(), conn.cursor() as cursor:
                await cursor.executemany(_INSERT_RUN, [{"thread": key.thread_id, "run": key.run_id} for key in keys])
            return [(saver.for_run(key, 1), key.thread_id) for key in keys]

        async def plainly(saver: BaseCheckpointSaver[Any] | None, count: int) -> list[Prepared]:
            return [(saver, str(uuid.uuid4())) for _ in range(count)]

        yield [
            Contender("no saver", lambda count: plainly(None, count)),
            Contender("langgraph, pool", lambda count: plainly(stock, count)),
            Contender("ours, no fence", lambda count: plainly(ours, count)),
            Contender("ours, fenced", lambda count: fenced(ours, count)),
            Contender("ours, unprepared", lambda count: fenced(unprepared, count)),
        ]
        await ours.aclose()
        await unprepared.aclose()


async def _run_all(graph: Any, prepared: list[Prepared], concurrency: int) -> None:
    async def worker() -> None:
        while prepared:
            saver, thread_id = prepared.pop()
            configurable: dict[str, Any] = {"thread_id": thread_id}
            if saver is not None:
                configurable["__pregel_checkpointer"] = saver
            await graph.ainvoke({"n": 0, "log": []}, {"configurable": configurable})

    await asyncio.gather(*(worker() for _ in range(concurrency)))


def _postgres_cpu_s(postmaster: int) -> float:
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.name) == postmaster:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            total += int(fields[11]) + int(fields[12])
    return total * _TICK_S


async def _measure(contender: Contender, graph: Any, concurrency: int, count: int, postmaster: int) -> str:
    await _run_all(graph, await contender.prepare(concurrency * 3), concurrency)
    prepared = await contender.prepare(count)
    postgres, python, began = _postgres_cpu_s(postmaster), time.process_time(), time.perf_counter()
    await _run_all(graph, prepared, concurrency)
    wall, cpu = time.perf_counter() - began, time.process_time() - python
    ours = _postgres_cpu_s(postmaster) - postgres
    per_run_ms = 1e3 / count
    figures = (cpu * per_run_ms, ours * per_run_ms, count / wall, wall * per_run_ms * concurrency)
    return "".join(f"{figure:12.2f}" for figure in figures)


async def _main(uri: str, seconds: float, profile: bool, only: str) -> None:
    with psycopg.connect(uri) as conn:
        row = conn.execute("select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int").fetchone()
    postmaster = row[0] if row else 0
    async with _contenders(uri) as contenders:
        for steps, concurrency, count in ((2, 32, 400), (2, 1, 150), (10, 32, 120), (10, 1, 50)):
            print(f"\n{steps} supersteps, {concurrency} at a time")
            print(" " * 30 + "".join(f"{title:>12}" for title in ("python ms", "postgres ms", "runs/s", "ms/run")))
            graph = _graph(steps)
            for contender in contenders:
                if only and only not in contender.name:
                    continue
                scaled = max(concurrency * 3, int(count * seconds))
                with cProfile.Profile() if profile else _NoProfile() as profiler:
                    line = await _measure(contender, graph, concurrency, scaled, postmaster)
                print(f"  {contender.name:<28}{line}")
                if isinstance(profiler, cProfile.Profile):
                    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


class _NoProfile:
    """Stands in for the profiler when there is none."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-uri")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long each measurement takes")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    options = parser.parse_args()
    if options.database_uri:
        uvloop.run(_main(options.database_uri, options.seconds, options.profile, options.only))
        return
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres.start(Path(directory) / "data")
        try:
            asyncio.run(migrate(server.conninfo))
            uvloop.run(_main(server.conninfo, options.seconds, options.profile, options.only))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
