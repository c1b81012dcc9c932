"""How many events a second the event log carries from a worker's loop to its readers, and what each costs in CPU.

    python -m bench.event_log [--runs 8] [--events 5000] [--batch 4] [--idle 5000]

Starts a Postgres and a Valkey of its own. The writer is on another thread, as the worker is; over Redis and Postgres
that makes one process do the work of two. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from event_logs import GraphLoop, Run
from services import Valkey
from waystation.events import BEGINNING, End, MemoryStore, RoutedLog, in_process, over_postgres, over_redis
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.events import CHANNEL
from waystation_db.listen import Listener
from waystation_db.migrate import migrate
from waystation_db.pool import Database
from waystation_db.rows import RunKey


@dataclass(frozen=True)
class Load:
    """What is written: `runs` at once, `events` each, `batch` in an append, of `size` bytes."""

    runs: int
    events: int
    batch: int
    size: int


@dataclass(frozen=True)
class Layout:
    """A writer on the graph loop and a reader on this one."""

    graph_loop: GraphLoop
    writer: RoutedLog
    reader: RoutedLog
    db: Database


Make = Callable[[Database, Listener], RoutedLog]


@asynccontextmanager
async def _layout(conninfo: str, make: Make) -> AsyncGenerator[Layout, None]:
    graph_loop = GraphLoop()

    async def open_writer() -> tuple[Database, RoutedLog]:
        db = await Database(conninfo, name="writer").open()
        return db, make(db, listener)

    async with AsyncExitStack() as stack:
        stack.callback(graph_loop.stop)
        listener = await stack.enter_async_context(Listener(conninfo, [CHANNEL]))
        db = await stack.enter_async_context(Database(conninfo, name="reader"))
        writer_db, writer = await graph_loop.call(open_writer())
        reader = make(db, listener)
        yield Layout(graph_loop, writer, reader, db)
        await reader.close()
        await graph_loop.call(writer.close())
        await graph_loop.call(writer_db.close())


async def _write(log: RoutedLog, run: Run, load: Load) -> None:
    data = b'"%s"' % (b"x" * load.size)
    for _ in range(0, load.events, load.batch):
        # The bytes are the worker's to make; the events and their ids are part of what the log costs.
        batch = [event._replace(data=data) for event in run.events(load.batch)]
        await log.append(run.key, run.attempt, batch, resumable=run.resumable)
        await asyncio.sleep(0)


async def _write_all(log: RoutedLog, runs: list[Run], load: Load) -> None:
    await asyncio.gather(*[_write(log, run, load) for run in runs])


async def _read(log: RoutedLog, run: Run) -> int:
    count = 0
    async for item in log.read(run.key, after=BEGINNING, resumable=run.resumable):
        if not isinstance(item, End):
            count += len(item)
    return count


async def _measure(name: str, layout: Layout, load: Load, *, resumable: bool) -> None:
    runs = [await Run(layout.db, resumable).insert() for _ in range(load.runs)]
    cpu, start = time.process_time(), time.perf_counter()
    reading = [asyncio.ensure_future(_read(layout.reader, run)) for run in runs]
    writing = asyncio.ensure_future(layout.graph_loop.call(_write_all(layout.writer, runs, load)))
    await writing
    for run in runs:
        await run.finish()
        await layout.graph_loop.call(layout.writer.end(run.key, 1, End("success"), resumable=resumable))
    counts = await asyncio.gather(*reading)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    total = sum(counts)
    assert total == load.runs * load.events, f"{total} events of {load.runs * load.events} arrived"
    print(f"{name:34} {total / seconds:>10,.0f} events/s   {cpu / total * 1e6:6.1f} us CPU per event")


async def _latency(name: str, layout: Layout, *, resumable: bool) -> None:
    run = await Run(layout.db, resumable).insert()
    reading = layout.reader.read(run.key, after=BEGINNING, resumable=resumable)
    took: list[float] = []
    for _ in range(300):
        (event,) = run.events(1)
        start = time.perf_counter()
        writing = asyncio.ensure_future(
            layout.graph_loop.call(layout.writer.append(run.key, 1, [event], resumable=resumable))
        )
        await anext(reading)
        took.append(time.perf_counter() - start)
        await writing
    await reading.aclose()
    took.sort()
    print(f"{name:34} {took[150] * 1e3:>8.2f} ms p50   {took[285] * 1e3:6.2f} ms p95 from append to reader")


async def _idle(name: str, layout: Layout, count: int) -> None:
    thread_id = (await Run(layout.db, False).insert()).key.thread_id
    keys = [RunKey("default", thread_id, f"00000000-0000-4000-8000-{n:012x}") for n in range(count)]
    async with layout.db.connection() as conn:
        await conn.execute(
            "insert into run (thread_id, run_id, assistant_id, graph_id, kwargs) "
            "select %s, run_id, run_id, 'g', '{}' from unnest(%s::uuid[]) as run_id",
            (thread_id, [key.run_id for key in keys]),
        )
    before = _resident_kib()
    readings = [layout.reader.read(key, after=BEGINNING, resumable=False) for key in keys]
    waiting = [asyncio.ensure_future(anext(reading)) for reading in readings]
    cpu = time.process_time()
    await asyncio.sleep(3.2)
    cpu = (time.process_time() - cpu) / 3.2
    taken = _resident_kib() - before
    ended = sum(isinstance(task.result(), End) for task in waiting if task.done())
    print(f"{name:34} {taken / count:>8.1f} KiB for each of {count - ended:,} idle readers, {cpu:.1%} of a core")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for reading in readings:
        await reading.aclose()


def _resident_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def _bench(conninfo: str, redis_url: str, load: Load, idle: int) -> None:
    memory = MemoryStore()
    layouts: dict[str, Make] = {
        "one process": lambda db, _: in_process(db, memory),
        "Redis": lambda db, listener: over_redis(db, redis_url, listener=listener),
        "Postgres": lambda db, listener: over_postgres(db, listener=listener),
    }
    for name, make in layouts.items():
        async with _layout(conninfo, make) as layout:
            for resumable in (False, True):
                kind = f"{name}, {'resumable' if resumable else 'live'}"
                await _measure(kind, layout, load, resumable=resumable)
                await _latency(kind, layout, resumable=resumable)
            if idle:
                await _idle(name, layout, idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in {"runs": 8, "events": 5000, "batch": 4, "size": 120, "idle": 5000}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    options = parser.parse_args()
    valkey = Valkey.start()
    with tempfile.TemporaryDirectory() as directory:
        postgres = EmbeddedPostgres.start(Path(directory) / "postgres")
        try:
            asyncio.run(migrate(postgres.conninfo))
            load = Load(options.runs, options.events, options.batch, options.size)
            uvloop.run(_bench(postgres.conninfo, valkey.url, load, options.idle))
        finally:
            postgres.stop()
            valkey.stop()


if __name__ == "__main__":
    main()
