"""What a rate limit adds to a model call, and how exactly four processes keep one rate.

    python -m bench.guards.rates_overhead [--calls 2000] [--seconds 10]

Prints two tables in Markdown: microseconds before and after a call by where the state is kept (one call after another,
and 50 at a time), and the rate that four processes made of 100 requests, and of 10,000 tokens, a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from time import perf_counter

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from bench.services import Services
from guard_rate_worker import Workers, effective_rate, model_call
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Ports
from waystation_guards.rates.guard import RateLimit
from waystation_guards.rates.rules import ModelRate

PROCESSES = 4
PLENTY = ModelRate(requests=10_000_000, tokens=1_000_000_000)


@asynccontextmanager
async def ports_on(kind: str, uri: str, redis: str) -> AsyncGenerator[Ports]:
    if kind == "memory":
        yield memory_ports()
        return
    async with Database(uri, max_size=10) as db:
        stores = guard_stores(db, redis if kind == "Redis" else None)
        try:
            yield stores.ports_for("default")
        finally:
            await stores.close()


async def one_call(limiter: RateLimit, ports: Ports, number: int) -> tuple[float, float]:
    """Seconds before and after it."""
    call = model_call(ports, number, tokens=100)
    began = perf_counter()
    await limiter.before_model(call)
    made = perf_counter()
    call.usage = {"input_tokens": 90, "output_tokens": 300}
    await limiter.after_model(call, "made")
    return made - began, perf_counter() - made


async def times(ports: Ports, rates: tuple[ModelRate, ...], calls: int, at_once: int) -> list[tuple[float, float]]:
    limiter, found = RateLimit(*rates), list[tuple[float, float]]()

    async def caller(first: int) -> None:
        for number in range(first, calls, at_once):
            found.append(await one_call(limiter, ports, number))

    await asyncio.gather(*(caller(first) for first in range(at_once)))
    return found


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    return " / ".join(f"{ordered[int(len(ordered) * part)] * 1e6:.0f}" for part in (0.5, 0.99))


async def overhead(uri: str, redis: str, calls: int) -> None:
    print("| state | rules | at a time | before, p50 / p99 in us | after |")
    print("|---|---|---|---|---|")
    rules = {
        "requests, tokens": (PLENTY,),
        "requests, tokens, open calls": (PLENTY, ModelRate(concurrent=1000)),
    }
    for kind in ("memory", "Redis", "Postgres"):
        async with ports_on(kind, uri, redis) as ports:
            for name, rates in rules.items():
                for at_once in (1, 50):
                    await times(ports, rates, calls // 10, at_once)
                    found = await times(ports, rates, calls, at_once)
                    before, after = ([one[part] for one in found] for part in (0, 1))
                    print(f"| {kind} | {name} | {at_once} | {percentiles(before)} | {percentiles(after)} |", flush=True)


def shared(uri: str, redis: str, seconds: float) -> None:
    print("\n| state | configured | of four processes | off by |")
    print("|---|---|---|---|")
    kinds = {"Redis": redis, "Postgres": ""}
    with Workers(PROCESSES) as workers:
        for kind, address in kinds.items():
            task = {"uri": uri, "redis": address, "callers": 8, "seconds": seconds}
            requests = {"requests": 6000, "seconds": 60, "burst": 0.005}
            went = workers.spend({**task, "rate": requests, "tokens": [1]})
            effective = effective_rate([*chain(*went)], workers.began_at, bucket=30)
            _show(kind, "100 requests/s", 100, effective)
            tokens = {"input_tokens": 600_000, "seconds": 60, "burst": 0.005}
            went = workers.spend({**task, "rate": tokens, "tokens": [1000, 50, 50, 50]})
            _show(
                kind,
                "10,000 tokens/s",
                10_000,
                effective_rate([*chain(*went)], workers.began_at, bucket=3000, weigh=True),
            )


def _show(kind: str, what: str, configured: float, effective: float) -> None:
    print(f"| {kind} | {what} | {effective:.1f} | {(effective / configured - 1) * 100:+.2f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    with Services.running() as services:
        uri, redis = services.database(migrated=True), services.redis()[0]
        uvloop.run(overhead(uri, redis, asked.calls))
        shared(uri, redis, asked.seconds)


if __name__ == "__main__":
    main()
