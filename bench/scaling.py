"""A wave of runs, and worker processes that KEDA's rules start and end by the queue in Postgres.

python -m bench.scaling --picture docs/operations/scaling.svg     about 4 minutes; times of the manifests divided by 6

The triggers' SQL, targets, policies and windows are those of k8s/components/keda; 1 to 6 workers instead of 2 to 20.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg

from bench.rollouts.__main__ import PROJECT, ROOT
from bench.rollouts.autoscaler import SYNC_S, Autoscaler, rules_of
from bench.rollouts.balancer import Balancer
from bench.rollouts.manifests import pod_rules
from bench.rollouts.picture import Curve, Panel, drawn
from bench.rollouts.pods import Deployment
from bench.services import Services

FACTOR = 6.0
WAVE = ((0.0, 2.0), (15.0, 2.0), (40.0, 33.0), (85.0, 33.0), (105.0, 2.0), (215.0, 2.0))
"""(second, runs per second): straight between these."""
RUN = {"steps": 3, "tokens": 1, "token_s": 0.5}
RUN_S = 1.5
MINIMUM, MAXIMUM = 1, 6


@dataclass
class Seen:
    """Samples over time: what the queries said, how many workers were ready, how many were wanted."""

    depth: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    waiting: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    ready: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    wanted: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    refused: int = 0


def rate(at: float) -> float:
    """Runs per second that become due at a moment of the wave."""
    for (before, low), (after, high) in pairwise(WAVE):
        if at < after:
            return low + (high - low) * (at - before) / (after - before)
    return 0.0


async def push(url: str, began: float, seen: Seen) -> None:
    """Create the runs of the wave, whatever becomes of them."""
    due, length = 0.0, WAVE[-1][0]
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client, asyncio.TaskGroup() as tasks:
        while due < length:
            await asyncio.sleep(max(0.0, began + due - monotonic()))
            tasks.create_task(_create(client, seen))
            due += 1 / rate(due)


async def _create(client: httpx.AsyncClient, seen: Seen) -> None:
    body = {"assistant_id": "paced", "input": RUN, "if_not_exists": "create"}
    answer = await client.post(f"/threads/{uuid.uuid4()}/runs", json=body)
    seen.refused += answer.status_code != 200


async def watch(uri: str, workers: Deployment, began: float, seen: Seen) -> None:
    """What is shown, twice a second."""
    waiting = "select count(*) from run where status = 'pending'"
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as conn:
        while True:
            at = monotonic() - began
            row = await (await conn.execute(waiting)).fetchone()
            seen.waiting.append((at, float(row[0]) if row else 0.0))
            seen.ready.append((at, workers.ready))
            await asyncio.sleep(0.5)


async def scale(uri: str, workers: Deployment, began: float, seen: Seen) -> None:
    """The autoscaler's loop."""
    autoscaler = Autoscaler(rules_of("waystation-worker", minimum=MINIMUM, maximum=MAXIMUM, factor=FACTOR))
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as conn, asyncio.TaskGroup() as tasks:
        while True:
            values, at = await autoscaler.measure(conn), monotonic() - began
            pods = workers.wanted
            wanted = autoscaler.decide(at, pods, values)
            seen.depth.append((at, values["depth"]))
            seen.wanted.append((at, wanted))
            if wanted != pods:
                print(
                    f"{at:6.1f} s  depth {values['depth']:4.0f}  age {values['age']:3.0f} s  {pods} -> {wanted}",
                    flush=True,
                )
                tasks.create_task(workers.scale_to(wanted))
            await asyncio.sleep(SYNC_S / FACTOR)


async def run(services: Services) -> tuple[Seen, list[Any]]:
    folder = services.folder()
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    # As it is now: a checkout may be edited while this goes on.
    source = services.folder()
    for root in ("server", "checkpoints", "graphs"):
        shutil.copytree(ROOT / root, source / root, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    uri = await asyncio.to_thread(services.database, migrated=True)
    environ, seen = {"DATABASE_URI": uri, "REDIS_URI": services.redis()[0]}, Seen()
    async with Balancer.open() as balancer:
        api = Deployment(pod_rules("api").quicker(FACTOR), folder, environ, balancer, source=source)
        workers = Deployment(pod_rules("worker").quicker(FACTOR), folder, environ, source=source)
        try:
            await asyncio.gather(api.scale_to(1), workers.scale_to(MINIMUM))
            began = monotonic()
            async with asyncio.TaskGroup() as tasks:
                loops = [tasks.create_task(loop(uri, workers, began, seen)) for loop in (watch, scale)]
                await push(balancer.url, began, seen)
                await asyncio.sleep(5)
                for loop in loops:
                    loop.cancel()
        finally:
            await asyncio.gather(api.end(), workers.end())
    return seen, await times(uri)


async def times(uri: str) -> list[Any]:
    """(created, seconds until it began, seconds until it ended, status, attempts, crashes) of every run, by age."""
    statement = """
        select extract(epoch from created_at - min(created_at) over ())::float8,
               extract(epoch from started_at - created_at)::float8, extract(epoch from ended_at - created_at)::float8,
               status, attempt, crashes
        from run order by created_at
    """
    async with await psycopg.AsyncConnection.connect(uri) as conn:
        return await (await conn.execute(statement)).fetchall()


def part(values: list[float], share: float) -> float:
    ranked = sorted(values) or [0.0]
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def told(seen: Seen, rows: list[Any]) -> list[str]:
    waits, totals = [row[1] for row in rows if row[1] is not None], [row[2] for row in rows if row[2] is not None]
    ended = {status: sum(row[3] == status for row in rows) for status in {row[3] for row in rows}}
    return [
        f"{len(rows)} runs of {RUN_S} s: {ended}, not accepted {seen.refused}",
        f"handed over {sum(row[4] > 1 for row in rows)}, crashes {sum(row[5] for row in rows)}",
        f"workers ready {min(n for _, n in seen.ready):.0f} to {max(n for _, n in seen.ready):.0f}",
        f"waiting runs at most {max(n for _, n in seen.waiting):.0f}",
        f"until it began: p50 {part(waits, 0.5):.2f} s, p95 {part(waits, 0.95):.2f} s, longest {max(waits):.2f} s",
        f"until it ended: p50 {part(totals, 0.5):.2f} s, p95 {part(totals, 0.95):.2f} s, longest {max(totals):.2f} s",
    ]


def picture(seen: Seen, rows: list[Any]) -> str:
    length = WAVE[-1][0]
    panels = [
        Panel("Runs per second", [Curve("due", "#6b7280", list(WAVE))]),
        Panel(
            "Runs",
            [Curve("depth, as the query counts it", "#2563eb", seen.depth), Curve("waiting", "#dc2626", seen.waiting)],
        ),
        Panel(
            "Workers",
            [Curve("wanted", "#9ca3af", seen.wanted, "steps"), Curve("ready", "#16a34a", seen.ready, "steps")],
        ),
        Panel(
            "Seconds",
            [
                Curve("until the run ended", "#93c5fd", [(row[0], row[2]) for row in rows if row[2]], "dots"),
                Curve("until it began", "#f97316", [(row[0], row[1]) for row in rows if row[1]], "dots"),
            ],
        ),
    ]
    title = f"Workers follow the queue: KEDA's rules, times divided by {FACTOR:.0f}; runs of {RUN_S} s, 10 per worker"
    return drawn(title, panels, seconds=length)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("scaling.svg"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with Services.running() as services:
        seen, rows = asyncio.run(run(services))
    print(f"load before {load:.1f}", *told(seen, rows), sep="\n")
    options.picture.write_text(picture(seen, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
