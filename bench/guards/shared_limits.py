"""A limiter and a breaker that four processes share: how much gets through, next to what is configured.

python -m bench.guards.shared_limits [--seconds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from uuid import uuid4

from bench.services import Services
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.ports import BreakerRules, Rate

PROCESSES = 4
CALLERS = 8
RATE = Rate(100, 0.5)
RULES = BreakerRules(minimum=20, cooldown_s=0.5, probe_s=5, window_s=10)


@dataclass(frozen=True)
class Seen:
    """What one process saw. Times are of the machine's clock, which all processes share."""

    taken: int
    first: float
    last: float
    called: int
    probes: int
    opened: int


def process(uri: str, redis: str | None, name: str, begin: float, seconds: float) -> Seen:
    return asyncio.run(_process(uri, redis, name, begin, seconds))


async def _process(uri: str, redis: str | None, name: str, begin: float, seconds: float) -> Seen:
    async with Database(uri, name="bench", max_size=CALLERS) as db:
        stores = guard_stores(db, redis)
        state = stores.ports_for("default").state
        await asyncio.sleep(max(0.0, begin - time.time()))
        until, times = begin + seconds, list[float]()
        counts = {"called": 0, "probes": 0, "opened": 0}

        async def taker() -> None:
            while time.time() < until:
                wait_s = await state.take(name, [RATE])
                if wait_s == 0:
                    times.append(time.time())
                else:
                    await asyncio.sleep(min(wait_s, 0.02))

        async def caller() -> None:
            """Calls a target that always fails."""
            while time.time() < until:
                admission = await state.admit(name, RULES)
                if admission.allowed:
                    counts["called"] += 1
                    counts["probes"] += admission.is_probe
                    opened = await state.report(name, RULES, ok=False, is_probe=admission.is_probe)
                    counts["opened"] += opened
                else:
                    await asyncio.sleep(min(admission.retry_after_s, 0.05))

        await asyncio.gather(*(taker() for _ in range(CALLERS)))
        until += seconds
        await asyncio.sleep(max(0.0, begin + seconds - time.time()))
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        await stores.close()
    return Seen(len(times), min(times, default=begin), max(times, default=begin), **counts)


def line(title: str, seen: Sequence[Seen], seconds: float) -> str:
    taken = sum(one.taken for one in seen)
    elapsed = max(one.last for one in seen) - min(one.first for one in seen)
    allowed = RATE.amount + RATE.amount / RATE.seconds * elapsed
    called, probes = sum(one.called for one in seen), sum(one.probes for one in seen)
    return (
        f"| {title} | {taken} | {allowed:.0f} | {taken / allowed:.1%} | {called - probes} | {RULES.minimum} | {probes} "
        f"| {int(seconds / RULES.cooldown_s)} | {sum(one.opened for one in seen)} |"
    )


def measure(services: Services, seconds: float) -> None:
    uri = services.database(migrated=True)
    redis, _ = services.redis()
    print(f"{PROCESSES * CALLERS} callers at once")
    print("| | taken | configured | part | failing calls until it opened | configured | probes | at most | opened |")
    print("|---|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        list(pool.map(process, *zip(*[(uri, None, "warm", time.time() + 15, 0.3)] * PROCESSES, strict=True)))
        for title, address in (("Postgres", None), ("Redis", redis)):
            arguments = (uri, address, str(uuid4()), time.time() + 1, seconds)
            seen = list(pool.map(process, *zip(*[arguments] * PROCESSES, strict=True)))
            print(line(f"{title}, {PROCESSES} processes", seen, seconds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.guards.shared_limits", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    with Services.running() as services:
        measure(services, options.seconds)


if __name__ == "__main__":
    main()
