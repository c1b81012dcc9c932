"""Replace every pod under load, by the rules of the manifests: what do clients notice?

python -m bench.rollouts                         restart: 2 api and 2 worker pods, one after the other; about 2 minutes
python -m bench.rollouts --from GIT_REVISION     upgrade: from that revision's code and schema to this one's
python -m bench.rollouts --quick                 all times a tenth, for a look
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg

from bench.rollouts.balancer import Balancer
from bench.rollouts.clients import Clients
from bench.rollouts.manifests import pod_rules
from bench.rollouts.pods import Deployment, environ_of
from bench.services import Services

ROOT = Path(__file__).parents[2]
PROJECT = Path(__file__).with_name("project")


@dataclass
class Cluster:
    """Everything that runs."""

    balancer: Balancer
    api: Deployment
    worker: Deployment
    uri: str


@contextlib.asynccontextmanager
async def cluster(
    services: Services, *, factor: float, propagation_s: float, source: Path | None
) -> AsyncGenerator[Cluster]:
    folder = services.folder()
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    uri = services.database(migrated=False)
    await migrate(uri, folder, source=source)
    environ = {"DATABASE_URI": uri, "REDIS_URI": services.redis()[0]}
    rules = {name: pod_rules(name).quicker(factor) for name in ("api", "worker")}
    async with Balancer.open() as balancer:
        api = Deployment(rules["api"], folder, environ, balancer, propagation_s / factor, source)
        worker = Deployment(rules["worker"], folder, environ, source=source)
        try:
            await asyncio.gather(api.scale_to(2), worker.scale_to(2))
            yield Cluster(balancer, api, worker, uri)
        finally:
            await asyncio.gather(api.end(), worker.end())


async def migrate(uri: str, folder: Path, *, source: Path | None = None, phase: str | None = None) -> None:
    command = [sys.executable, "-m", "waystation.cli", "migrate", *(["--phase", phase] if phase else [])]
    environ = environ_of({"DATABASE_URI": uri}, source=source)
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit(f"migrate ended with {process.returncode}")


async def replace_everything(cluster: Cluster, *, upgrade: bool) -> list[tuple[str, float]]:
    """The rollout of docs/operations/upgrades.md; how long each part took."""
    took = list[tuple[str, float]]()

    async def part(name: str, work: Awaitable[None]) -> None:
        began = monotonic()
        await work
        took.append((name, monotonic() - began))

    if upgrade:
        await part("migrate --phase pre", migrate(cluster.uri, cluster.api.folder, phase="pre"))
    source = ROOT if upgrade else None
    await part("workers", cluster.worker.replace_all(source=source))
    await part("api", cluster.api.replace_all(source=source))
    if upgrade:
        await part("migrate --phase post", migrate(cluster.uri, cluster.api.folder, phase="post"))
    return took


async def run(services: Services, *, factor: float, propagation_s: float, source: Path | None) -> dict[str, Any]:
    async with cluster(services, factor=factor, propagation_s=propagation_s, source=source) as fleet:
        clients = Clients(fleet.balancer.url, long_s=max(2.0, 12.0 / factor))
        working = asyncio.create_task(clients.work())
        await asyncio.sleep(max(1.0, 5.0 / factor))
        took = await replace_everything(fleet, upgrade=source is not None)
        await asyncio.sleep(max(0.5, 5.0 / factor))
        clients.stop.set()
        await working
        gone = [*fleet.worker.gone, *fleet.api.gone]
        return {
            "parts": took,
            "requests": dict(clients.counts.requests),
            "retried": dict(clients.counts.retried),
            "went_on": {
                "stream": clients.counts.went_on["stream"],
                "wait or join": clients.counts.went_on["wait or join"] - clients.counts.requests["join"],
            },
            "failed": clients.counts.failed,
            "wrong": clients.counts.wrong,
            "longest_s": clients.counts.longest_s,
            "refused": fleet.balancer.refused,
            "pods": {pod.name: pod.ended_s for pod in gone},
            "codes": sorted({pod.process.returncode or 0 for pod in gone}),
            "killed": [pod.name for pod in gone if pod.was_killed],
            **await in_database(fleet.uri),
        }


async def in_database(uri: str) -> dict[str, Any]:
    """How the runs ended, and how many attempts and crashes there were."""
    statement = "select status, count(*), sum(attempt)::int, sum(crashes)::int from run group by status"
    async with await psycopg.AsyncConnection.connect(uri) as conn:
        rows = await (await conn.execute(statement)).fetchall()
    return {
        "runs": {status: count for status, count, _, _ in rows},
        "handed_over": sum(attempts - count for _, count, attempts, _ in rows),
        "crashes": sum(row[3] for row in rows),
    }


def told(found: dict[str, Any]) -> list[str]:
    retried = found["retried"]
    lines = [f"{name:<22} {seconds:6.1f} s" for name, seconds in found["parts"]]
    lines.append(f"requests               {sum(found['requests'].values())}: {found['requests']}")
    lines.append(f"first try failed       {sum(retried.values())}")
    lines += [f"  {count} x {what}" for what, count in retried.items()]
    lines.append(f"went on elsewhere      {found['went_on']}")
    lines.append(f"failed after one retry {len(found['failed'])}: {found['failed'][:5]}")
    lines.append(f"wrong or torn          {len(found['wrong'])}: {found['wrong'][:3]}")
    lines.append(
        f"runs                   {found['runs']}, handed over {found['handed_over']}, crashes {found['crashes']}"
    )
    lines.append("longest, s             " + ", ".join(f"{k} {v:.1f}" for k, v in found["longest_s"].items()))
    lines.append(
        f"pods gone after, s     {', '.join(f'{name} {took:.1f}' for name, took in found['pods'].items())}; "
        f"exit codes {found['codes']}, killed {found['killed']}; connections without an endpoint {found['refused']}"
    )
    return lines


def checkout(folder: Path, revision: str) -> Path:
    """The code of a revision of this repository, as it was."""
    command = ["git", "-C", str(ROOT), "archive", revision, "server", "checkpoints", "graphs"]
    archive = subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def measure(options: argparse.Namespace) -> dict[str, Any]:
    factor = 10.0 if options.quick else 1.0
    with Services.running() as services:
        source = checkout(services.folder(), options.since) if options.since else None
        return asyncio.run(run(services, factor=factor, propagation_s=options.propagation, source=source))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rollouts", description=__doc__)
    parser.add_argument("--from", dest="since", metavar="GIT_REVISION", help="upgrade from there")
    parser.add_argument("--quick", action="store_true", help="all times of the manifests divided by ten")
    parser.add_argument("--propagation", type=float, default=2.0, metavar="SECONDS", help="until the Service forgets")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(options)
    print(json.dumps(found) if options.json else "\n".join([f"load before {load:.1f}", *told(found)]))
    raise SystemExit(bool(found["failed"] or found["wrong"] or set(found["runs"]) - {"success"}))


if __name__ == "__main__":
    main()
