"""A live system under load, a Prometheus with the rules of `deploy/`, and every query of the dashboards.

    python -m bench.monitoring [--seconds 150] [--page monitoring.html]

1. An API process, two workers, Postgres, Redis, and their exporters where they are installed; an agent under load.
2. Every query of every dashboard is asked: how many are answered, and how many with data.
3. The workers are killed: which alerts fire, after how long. The load ends, they are started again: when is it quiet.

`prometheus` has to be on the PATH (Debian: prometheus, prometheus-postgres-exporter, prometheus-redis-exporter). The
`for` of each alert is shortened to 10 s, thresholds are as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.monitoring.drawing import Line, legend_of, page
from bench.monitoring.scraping import Prometheus, write_configuration
from bench.servers import Children, free_port
from bench.services import Services

PROJECT = Path(__file__).with_name("project")
BOARDS = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
WAYSTATION = [sys.executable, "-m", "waystation.cli"]
FOR_S = 10
RUNS_PER_S = 5.0
EXPECTED = {"WaystationNoWorkers", "WaystationProcessDown", "WaystationQueueOld"}
_PATIENCE_S = 240.0


@dataclass
class World:
    """Everything that runs."""

    children: Children
    environ: dict[str, str]
    api: int
    health: list[int]
    workers: list[int]
    prometheus: Prometheus

    def start_workers(self) -> None:
        for port in self.health:
            command = [*WAYSTATION, "worker", "--health-host", "127.0.0.1", "--health-port", str(port)]
            self.workers.append(self.children.start(command, self.environ))

    def kill_workers(self) -> None:
        """At once, as a node that goes away."""
        while self.workers:
            os.killpg(self.workers.pop(), signal.SIGKILL)


@contextlib.contextmanager
def world(services: Services) -> Any:
    folder = services.folder()
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    children = Children(folder)
    redis_folder, uri = services.redis()[0].removeprefix("unix://"), services.database(migrated=True)
    environ = {"DATABASE_URI": uri, "REDIS_URI": f"unix://{redis_folder}", "BENCH_KEY": "none", "LOG_LEVEL": "WARNING"}
    api, health, shown = free_port(), [free_port(), free_port()], free_port()
    targets = {"waystation-api": [api], "waystation-worker": health, **_exporters(children, uri, environ["REDIS_URI"])}
    try:
        started = World(children, environ, api, health, [], Prometheus(shown))
        children.start([*WAYSTATION, "serve", "--host", "127.0.0.1", "--port", str(api)], environ)
        started.start_workers()
        config = write_configuration(folder, targets, for_s=FOR_S)
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        children.start(["prometheus", *options, f"--web.listen-address=127.0.0.1:{shown}"], {})
        for port, path in ((api, "/ready"), *((one, "/ready") for one in health), (shown, "/-/ready")):
            children.until_ready(port, path)
        yield started
    finally:
        children.stop()


def _exporters(children: Children, database: str, redis: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    if shutil.which("prometheus-postgres-exporter"):
        found["postgres"] = [free_port()]
        listen = f"--web.listen-address=127.0.0.1:{found['postgres'][0]}"
        children.start(["prometheus-postgres-exporter", listen], {"DATA_SOURCE_NAME": database})
    if shutil.which("prometheus-redis-exporter"):
        found["redis"] = [free_port()]
        options = ["--web.listen-address", f"127.0.0.1:{found['redis'][0]}", "--redis.addr", redis]
        children.start(["prometheus-redis-exporter", *options], {})
    return found


@contextlib.asynccontextmanager
async def load(port: int) -> AsyncGenerator[None]:
    """So many runs a second become due, whether earlier ones are over or not; every fourth is streamed."""
    asked = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "go on"}]}}
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits) as http:

        async def one(number: int) -> None:
            with contextlib.suppress(httpx.HTTPError):
                content = f"question {number % 20}"
                body = {**asked, "input": {"messages": [{"role": "user", "content": content}]}}
                await http.post("/runs/stream" if number % 4 == 0 else "/runs", json=body)
                if number % 5 == 0:
                    await http.post("/threads/search", json={"limit": 1})

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                number = 0
                while True:
                    group.create_task(one(number))
                    number += 1
                    await asyncio.sleep(1 / RUNS_PER_S)

        working = asyncio.create_task(all_of_them())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.wait([working])


async def until(is_so: Callable[[], bool], what: str) -> float:
    """How many seconds it took. Raises TimeoutError."""
    began = time.monotonic()
    while not await asyncio.to_thread(is_so):
        if time.monotonic() - began > _PATIENCE_S:
            raise TimeoutError(f"not within {_PATIENCE_S:g} s: {what}")
        await asyncio.sleep(1)
    return time.monotonic() - began


def ask_dashboards(prometheus: Prometheus, begin: float, end: float) -> dict[str, Any]:
    """Every query of every panel, over the time of the load."""
    queries = answered = full = 0
    empty: list[str] = []
    drawn: dict[str, list[tuple[str, dict[str, Any], list[Line]]]] = {}
    for file in sorted(BOARDS.glob("*.json")):
        board = json.loads(file.read_text())
        panels = drawn.setdefault(board["title"], [])
        for panel in board["panels"]:
            lines: list[Line] = []
            for target in panel.get("targets", ()):
                queries += 1
                expr = _sent(target["expr"], end - begin)
                series = prometheus.ask_range(expr, begin, end)
                answered += 1
                full += bool(series)
                if not series:
                    empty.append(f"{file.stem}: {panel['title']}: {expr}")
                lines += [Line(legend_of(target["legendFormat"], one["metric"]),
                               [(x, float(y)) for x, y in one["values"] if y != "NaN"]) for one in series]  # fmt: skip
            if "targets" in panel:
                panels.append((board["title"], panel, lines))
    return {"queries": queries, "answered": answered, "with data": full, "empty": empty, "page": page(drawn)}


def _sent(expr: str, shown_s: float) -> str:
    for variable in ("namespace", "pod", "model", "tool", "tenant"):
        expr = expr.replace(f"${variable}", ".*")
    return expr.replace("$__rate_interval", "20s").replace("$__range", f"{int(shown_s)}s")


async def first_fired(prometheus: Prometheus) -> dict[str, int]:
    """After how many seconds from now each of the expected alerts fired."""
    fired: dict[str, int] = {}
    began = time.monotonic()

    def is_another() -> bool:
        return bool((EXPECTED - fired.keys()) & prometheus.firing())

    while missing := EXPECTED - fired.keys():
        await until(is_another, f"{', '.join(sorted(missing))} fire")
        fired |= dict.fromkeys(missing & prometheus.firing(), round(time.monotonic() - began))
    return fired


async def watch(world: World, *, seconds: float, picture: Path | None) -> dict[str, Any]:
    """The three parts; what was seen."""
    prometheus, seen = world.prometheus, dict[str, Any]()
    async with load(world.api):
        began = time.time()
        await asyncio.sleep(seconds)
        seen["targets"] = prometheus.health()
        seen["rules that fail"] = prometheus.failed_rules()
        seen["fires under load"] = sorted(prometheus.firing())
        asked = ask_dashboards(prometheus, began, time.time())
        if picture is not None:
            await asyncio.to_thread(picture.write_text, asked["page"])
        seen |= {f"dashboards: {key}": value for key, value in asked.items() if key != "page"}
        seen["runs a second"] = float(prometheus.ask("sum(rate(waystation_runs_finished_total[1m]))")[0]["value"][1])
        world.kill_workers()
        seen["fire without workers, after s"] = await first_fired(prometheus)
        seen["waiting runs"] = float(prometheus.ask("max(waystation_queue_pending_runs)")[0]["value"][1])
    world.start_workers()
    restarted = time.monotonic()
    await until(lambda: not EXPECTED & prometheus.firing(), "quiet again")
    seen["quiet again after s"] = round(time.monotonic() - restarted)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.monitoring")
    parser.add_argument("--seconds", type=float, default=150, help="how long the load goes on before the workers die")
    parser.add_argument("--page", type=Path, help="write the panels as a page of charts")
    given = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is not on the PATH (Debian: apt-get install prometheus)")
    with Services.running() as services, world(services) as started:
        print(json.dumps(asyncio.run(watch(started, seconds=given.seconds, picture=given.page)), indent=1))


if __name__ == "__main__":
    main()
