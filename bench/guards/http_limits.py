"""What limits of requests add to a request, by where they are counted; nothing where there are none.

    python -m bench.guards.http_limits [--requests 4000]

Prints a table in Markdown: microseconds of one process's loop per `arrive` and `admit`, as the frame calls them, one
request after another and 50 at a time; then of whole requests (`GET /assistants/{id}` without a match) on a real
server with and without limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from bench.services import Services
from live_server import live_server_on
from waystation.auth import Principal
from waystation.catalog import read_project
from waystation.config import Settings
from waystation.guarding.http_limits import HttpLimits
from waystation.services.http_limits import open_http_limits
from waystation_db.pool import Database

BUCKETS: list[dict[str, Any]] = [
    {"per": "key", "rate": "1000000/second"},
    {"per": "user", "rate": "1000000/second"},
    {"per": "tenant", "rate": "1000000/second"},
]
KINDS: dict[str, list[dict[str, Any]]] = {
    "1 token bucket": BUCKETS[:1],
    "3 token buckets": BUCKETS,
    "1 sliding window": [{**BUCKETS[2], "algorithm": "sliding_window"}],
    "1 bucket by address, 2 others": [*BUCKETS[:2], {"per": "address", "rate": "1000000/second"}],
}
READS = frozenset(("reads",))
GRAPH = """
from langgraph.graph import StateGraph
g = StateGraph(dict)
g.add_node("a", lambda state: state)
g.set_entry_point("a")
"""


def project(folder: Path, limits: list[dict[str, Any]] | None) -> Path:
    own = {} if limits is None else {"waystation": {"guards": {"http": {"limits": limits}}}}
    (folder / "graph.py").write_text(GRAPH)
    config = {"dependencies": ["."], "graphs": {"g": "./graph.py:g"}, **own}
    (folder / "langgraph.json").write_text(json.dumps(config))
    return folder


@asynccontextmanager
async def limits_on(kind: str, folder: Path, uri: str, redis: str) -> AsyncGenerator[HttpLimits]:
    settings = Settings(redis_uri=redis if kind == "Redis" else None)
    async with (
        Database(uri, max_size=10) as db,
        open_http_limits(settings, read_project(folder), db, alone=kind == "memory") as limits,
    ):
        assert limits is not None
        yield limits


async def each(limits: HttpLimits, requests: int, at_once: int) -> list[float]:
    """Seconds of each request; 50 at a time share them."""
    caller, found = Principal("acme", "kim", (), {"api_key": "0123456789abcdef"}), list[float]()

    async def some(number: int) -> None:
        for _ in range(number):
            scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
            began = perf_counter()
            await limits.arrive(scope, READS)
            await limits.admit(scope, caller, READS)
            await limits.leave(scope)
            found.append(perf_counter() - began)

    await asyncio.gather(*(some(requests // at_once) for _ in range(at_once)))
    return found


async def counting(services: Services, uri: str, redis: str, requests: int) -> None:
    print("| counted in | limits | p50 / p99 alone, us | 50 at a time: us of the loop each |")
    print("|---|---|---|---|")
    for kind in ("memory", "Redis", "Postgres"):
        for name, limits in KINDS.items():
            if kind == "Postgres" and "window" in name:
                continue
            folder = project(services.folder(), limits)
            async with limits_on(kind, folder, uri, redis) as opened:
                await each(opened, requests // 10, 1)
                alone = sorted(await each(opened, requests, 1))
                began = perf_counter()
                await each(opened, requests, 50)
                together = (perf_counter() - began) / requests
            shown = " / ".join(f"{alone[int(len(alone) * part)] * 1e6:.0f}" for part in (0.5, 0.99))
            print(f"| {kind} | {name} | {shown} | {together * 1e6:.0f} |", flush=True)


def whole(services: Services, redis: str, requests: int) -> None:
    print("\n| server | p50 of a whole request, us |")
    print("|---|---|")
    for name, limits, address in (
        ("without limits", None, None),
        ("3 buckets in memory", BUCKETS, None),
        ("3 buckets in Redis", BUCKETS, redis),
    ):
        folder, uri = project(services.folder(), limits), services.database(migrated=True)
        settings = Settings(n_jobs_per_worker=0, redis_uri=address)
        with live_server_on(uri, project=folder, settings=settings) as server, httpx.Client() as http:
            url = f"{server.url}/assistants/00000000-0000-0000-0000-000000000000"
            found: list[float] = []
            for _ in range(requests):
                began = time.perf_counter()
                http.get(url)
                found.append(time.perf_counter() - began)
        print(f"| {name} | {median(found[requests // 10 :]) * 1e6:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    requests: int = parser.parse_args().requests
    with Services.running() as services:
        uri, redis = services.database(migrated=True), services.redis()[0]
        uvloop.run(counting(services, uri, redis, requests))
        whole(services, redis, requests // 2)


if __name__ == "__main__":
    main()
