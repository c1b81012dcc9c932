"""What a question to the guards' ports costs: one after the other, and from many callers at once.

    python -m bench.guards.ports [--calls 1000]

Prints a table in Markdown: microseconds at the median and the 99th percentile, in memory, on Postgres and on Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import perf_counter
from typing import Any
from uuid import uuid4

from bench.services import Services
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.calls import CallSite
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Account, BreakerRules, Draw, Entry, Hold, Ports, Rate

SITE = CallSite(thread=str(uuid4()), run=str(uuid4()), user="ada")
RULES = BreakerRules()
RATES = [Rate(10**9, 60)]
PARALLEL = 32
LIMIT = 10**15

Question = Callable[[int], Awaitable[Any]]


def holds(accounts: int) -> list[Hold]:
    return [Hold(Account("default", f"scope{n}", "ada", "usd"), 10, LIMIT, worst=30) for n in range(accounts)]


def questions(ports: Ports) -> dict[str, Question]:
    """By name; the number makes what is asked about another each time."""
    ledger, state, cache = ports.ledger, ports.state, ports.cache
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    spent = {hold.account: 8 for hold in holds(3)}
    entry = Entry("model", "gpt", 8, 10, "v", usage, spent, {"node": "model"})

    async def both(number: int) -> None:
        call = str(uuid4())
        await ledger.reserve(f"{call}/x", SITE, holds(3), ttl_s=900)
        await ledger.settle(f"{call}/x", SITE, entry)

    return {
        "reserve, 1 account": lambda n: ledger.reserve(f"one{n}/b", SITE, holds(1), ttl_s=900),
        "reserve, 3 accounts": lambda n: ledger.reserve(f"three{n}/b", SITE, holds(3), ttl_s=900),
        "settle, 3 accounts": lambda n: ledger.settle(f"three{n}/b", SITE, entry),
        "release": lambda n: ledger.release(f"one{n}/b"),
        "reserve and settle": both,
        "balances, 3 accounts": lambda n: ledger.balances(list(spent)),
        "ratio": lambda n: ledger.ratio("default", "gpt"),
        "now": lambda n: ledger.now(),
        "take": lambda n: state.take("limiter", RATES),
        "draw of 2 buckets": lambda n: state.draw([Draw("{t}/r", RATES[0]), Draw("{t}/t", RATES[0], 500)]),
        "enter and leave": lambda n: _enter(state, n),
        "admit": lambda n: state.admit("target", RULES),
        "report": lambda n: state.report("target", RULES, ok=True),
        "read a value": lambda n: state.read("level"),
        "cache put, 2 kB": lambda n: cache.put(f"k{n % 100}", b"x" * 2000, ttl_s=600),
        "cache get": lambda n: cache.get(f"k{n % 100}"),
    }


async def _enter(state: Any, number: int) -> None:
    await state.enter("places", limit=100, holder=str(number), ttl_s=60)
    await state.leave("places", holder=str(number))


async def timed(question: Question, calls: int, parallel: int) -> tuple[float, float, float]:
    """Microseconds at the median and the 99th percentile, and calls per second."""
    spans: list[float] = []
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            began = perf_counter()
            await question(number)
            spans.append(perf_counter() - began)

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(parallel)))
    elapsed = perf_counter() - began
    spans.sort()
    return spans[len(spans) // 2] * 1e6, spans[int(len(spans) * 0.99)] * 1e6, calls / elapsed


@contextlib.asynccontextmanager
async def opened(uri: str, redis: str | None) -> AsyncGenerator[Ports]:
    async with Database(uri, name="bench", max_size=10) as db:
        stores = guard_stores(db, redis)
        yield stores.ports_for("default")
        await stores.close()


async def measure(services: Services, calls: int) -> None:
    found: dict[str, list[str]] = {}
    uri = await asyncio.to_thread(services.database, migrated=True)
    redis, _ = services.redis()
    for kind in ("memory", "postgres", "redis"):
        async with contextlib.AsyncExitStack() as stack:
            ports = memory_ports()
            if kind != "memory":
                ports = await stack.enter_async_context(opened(uri, redis if kind == "redis" else None))
            for name, question in questions(ports).items():
                if kind == "redis" and question_is_of_the_ledger(name):
                    found[name] += ["as Postgres", ""]
                    continue
                p50, p99, _ = await timed(question, calls, 1)
                cells = [f"{p50:,.0f} / {p99:,.0f}"]
                if kind != "memory" and not name.startswith(("reserve, ", "settle", "release")):
                    p50, p99, rate = await timed(question, calls * 3, PARALLEL)
                    cells.append(f"{p50:,.0f} / {p99:,.0f}, {rate:,.0f}/s")
                elif kind != "memory":
                    cells.append("")  # it has a part of `reserve and settle`
                found.setdefault(name, []).extend(cells)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; µs p50 / p99; ‖: {PARALLEL} callers at once")
    print("| | memory | Postgres | Postgres ‖ | Redis | Redis ‖ |\n|---|---|---|---|---|---|")
    for name, cells in found.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def question_is_of_the_ledger(name: str) -> bool:
    return name.split(",")[0] in ("reserve", "settle", "release", "reserve and settle", "balances", "ratio", "now")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.guards.ports", description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    with Services.running() as services:
        asyncio.run(measure(services, options.calls))


if __name__ == "__main__":
    main()
