"""What a policy adds to a run over HTTP: the whole server, a graph that nobody edited, one call of a scripted model.

    python -m bench.guards.policy [--runs 200]

Prints a table in Markdown: milliseconds of `runs.wait`, one after the other, the policies in turns; and what a run
without a policy pays for there being policies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from timeit import timeit
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from langgraph_sdk import get_client

from bench.services import Services
from live_server import Client, live_server_on
from waystation.guarding.watch import Guards
from waystation_db.rows import ClaimedRun

PROJECT = Path(__file__).parents[2] / "tests/fixtures/projects/guarded"
HI = {"messages": [{"role": "user", "content": "hi"}]}
BUDGETS = [{"size": 1000, "scope": "tenant", "window": "day"}, {"size": 10, "scope": "run"}]
POLICIES: dict[str, dict[str, Any] | None] = {
    "no policy": None,
    "an empty one": {},
    "permissions, screening": {"permissions": [{"default": "allow"}], "screening": [{"on_input": "block"}]},
    "two budgets": {"budgets": BUDGETS},
    "a rate": {"rates": [{"requests": 1_000_000}]},
    "all of these": {
        "permissions": [{"default": "allow"}],
        "screening": [{"on_input": "block"}],
        "budgets": BUDGETS,
        "rates": [{"requests": 1_000_000}],
    },
    "a cache, hit": {"cache": [{"ttl_s": 600}]},
}


def project_of(folder: Path, policy: dict[str, Any] | None) -> Path:
    """The project with a policy."""
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    keys = json.loads((folder / "langgraph.json").read_text())
    keys["waystation"] = {} if policy is None else {"guards": {"prices": "prices.json", **policy}}
    (folder / "langgraph.json").write_text(json.dumps(keys))
    return folder


async def measured(urls: Mapping[str, str], runs: int) -> dict[str, list[float]]:
    """Milliseconds of runs, one after the other, of each server in turn: so all of them see the same machine."""
    found: dict[str, list[float]] = {name: [] for name in urls}
    async with AsyncExitStack() as stack:
        sdks: dict[str, Client] = {
            name: await stack.enter_async_context(get_client(url=url)) for name, url in urls.items()
        }
        for _ in range(runs + 20):
            for name, sdk in sdks.items():
                began = perf_counter()
                await sdk.runs.wait(None, "ask", input=HI)
                found[name].append((perf_counter() - began) * 1000)
    return {name: times[20:] for name, times in found.items()}


def watch_ns() -> float:
    """What asking for guards costs a run that has none."""
    guards = Guards(cast("Any", None))
    run = cast("ClaimedRun", None)
    sys.modules.pop("waystation_guards.ports", None)
    return timeit(lambda: guards.watch(run, is_over=bool), number=1_000_000) * 1000


async def main(runs: int) -> None:
    logging.disable(logging.WARNING)
    with Services.running() as services, ExitStack() as servers:
        urls: dict[str, str] = {}
        for name, policy in POLICIES.items():
            folder = project_of(services.folder() / "project", policy)
            uri = await asyncio.to_thread(services.database, migrated=True)
            urls[name] = servers.enter_context(live_server_on(uri, project=folder)).url
        found = await measured(urls, runs)
    print("| policy | p50 ms | p99 ms |\n| --- | --- | --- |")
    for name, times in found.items():
        cuts = quantiles(times, n=100)
        print(f"| {name} | {cuts[49]:.1f} | {cuts[98]:.1f} |")
    print(f"\nAsking for guards costs a run without any {watch_ns():.0f} ns.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    asyncio.run(main(parser.parse_args().runs))
