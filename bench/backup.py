"""Time and size of a backup and its restore, per 1,000 threads, on an embedded Postgres.

    python -m bench.backup [--threads 500] [--turns 4]

A thread is a conversation: a turn is one question of 200 characters and one answer of 800, random words.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph

from waystation.cli.backing_up_places import Folder
from waystation_db import backup_format, backup_reading, backup_restoring
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate
from waystation_db.pool import Database

_LETTERS = "etaoinshrdlucmfwypvbgkqjxz"
_THREADS = """
with t as (insert into thread (thread_id, "values") select i::uuid, '{}' from unnest(%(ids)s::text[]) i)
insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, attempt, ended_at)
select i::uuid, gen_random_uuid(), gen_random_uuid(), 'g', '{}', 'success', 1, now()
from unnest(%(ids)s::text[]) i, generate_series(1, %(turns)s)
"""


def _text(length: int) -> str:
    return " ".join("".join(random.choices(_LETTERS, k=random.randint(2, 9))) for _ in range(length // 6))[:length]


async def _answer(state: MessagesState) -> dict[str, Any]:
    assert state["messages"]
    return {"messages": [AIMessage(_text(800))]}


async def _fill(uri: str, threads: int, turns: int) -> None:
    ids = [str(uuid.uuid4()) for _ in range(threads)]
    async with await psycopg.AsyncConnection.connect(uri) as conn:
        await conn.execute(_THREADS, {"ids": ids, "turns": turns})
    # langgraph leaves the type of its checkpointer open.
    builder: Any = StateGraph(MessagesState)
    graph = builder.add_node("answer", _answer).add_edge(START, "answer").add_edge("answer", END)
    async with Database(uri, max_size=8, name="bench") as db:
        compiled = graph.compile(checkpointer=PostgresCheckpointer(db))

        async def talk(thread_id: str) -> None:
            config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
            for _ in range(turns):
                await compiled.ainvoke({"messages": [HumanMessage(_text(200))]}, config)

        for start in range(0, threads, 16):
            await asyncio.gather(*[talk(one) for one in ids[start : start + 16]])


async def _measure(threads: int, turns: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="waystation-bench-") as folder:
        server = EmbeddedPostgres.start(Path(folder) / "postgres", settings={"fsync": "off"})
        try:
            async with await psycopg.AsyncConnection.connect(server.conninfo, autocommit=True) as conn:
                await conn.execute("create database source")
                await conn.execute("create database target")
            await migrate(server.conninfo_of("source"))
            await migrate(server.conninfo_of("target"))
            await _fill(server.conninfo_of("source"), threads, turns)
            async with await psycopg.AsyncConnection.connect(server.conninfo_of("source")) as conn:
                row = await (await conn.execute("select pg_database_size('source')")).fetchone()
            before = _memory_mb()
            place = Folder(Path(folder) / "backup")
            place.open_for_writing()
            began = time.monotonic()
            async with backup_reading.open_source(server.conninfo_of("source"), tenant=None) as source:
                manifest = await backup_reading.read_all(source, place.aput, version="bench", jobs=jobs)
            place.finish(backup_format.write(manifest))
            backed_up_s = time.monotonic() - began
            began = time.monotonic()
            await backup_restoring.restore(server.conninfo_of("target"), manifest, place.aread, jobs=jobs)
            restored_s = time.monotonic() - began
        finally:
            server.stop()
    thousands = threads / 1000
    raw = sum(part.raw_bytes for part in manifest.parts)
    print(f"{threads} threads of {turns} turns, {jobs} connections, load {os.getloadavg()[0]:.0f}")
    print(f"database                {row[0] / 1e6 if row else 0:.1f} MB")
    print(f"rows                    {sum(manifest.rows.values())}, {raw / 1e6:.1f} MB as COPY has them")
    print(f"backup per 1,000        {backed_up_s / thousands:.2f} s, {manifest.stored_bytes / 1e6 / thousands:.2f} MB")
    print(f"restore per 1,000       {restored_s / thousands:.2f} s")
    print(f"memory                  {before:.0f} MB before, {_memory_mb():.0f} MB at most")


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=500)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    uvloop.run(_measure(given.threads, given.turns, given.jobs))


if __name__ == "__main__":
    main()
