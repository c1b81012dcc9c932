"""What 1,000 runs leave behind and cost Postgres: bytes, write-ahead log, transactions.

python -m bench.footprint        about a minute; says nothing of time, so the machine may be busy
"""

from __future__ import annotations

import asyncio

import psycopg

from bench.servers import api_and_workers
from bench.services import Services
from waystation.cli.bench_load import Load, drive

RUNS = 1000
GRAPHS = ("trivial", "ten_steps")

_NOW = """
    select pg_database_size(current_database()), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
           (select xact_commit from pg_stat_database where datname = current_database())
"""


def now(uri: str) -> tuple[int, ...]:
    with psycopg.connect(uri, autocommit=True) as conn:
        conn.execute("checkpoint")
        row = conn.execute(_NOW).fetchone()
    return tuple(int(part) for part in row) if row else (0, 0, 0)


async def runs(port: int, graph: str, count: int) -> None:
    load = Load(
        url=f"http://127.0.0.1:{port}", graph=graph, threads="new", input={"n": 0}, runs=count, clients=16, keep=True
    )
    outcome = await drive(load, on_sample=lambda _: None)
    failed = [sample.error for sample in outcome.samples if sample.error]
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {failed[0]}")


def main() -> None:
    uris: list[str] = []
    with Services.running() as services:
        made = services.database

        def noted(*, migrated: bool) -> str:
            uris.append(made(migrated=migrated))
            return uris[-1]

        services.database = noted
        with api_and_workers(services, jobs=50) as server:
            print(
                "| graph, each run on a thread of its own | Postgres, MB per 1,000 | WAL, MB | transactions per run |"
            )
            print("|---|---|---|---|")
            for graph in GRAPHS:
                asyncio.run(runs(server.port, graph, 50))
                before = now(uris[0])
                asyncio.run(runs(server.port, graph, RUNS))
                size, wal, commits = (after - past for after, past in zip(now(uris[0]), before, strict=True))
                print(f"| {graph} | {size / 1e6:.1f} | {wal / 1e6:.1f} | {commits / RUNS:.1f} |", flush=True)


if __name__ == "__main__":
    main()
