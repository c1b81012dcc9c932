"""Measures Waystation next to the bare graph and to the in-memory reference server, side by side in one run.

    make bench                                    everything, about five minutes
    make bench ARGS="--quick"                     a first look, under two minutes
    make bench ARGS="--only wait32,burst8 --contenders one,bare --repeat 3"

Everything listens on 127.0.0.1. CPU is that of the contender's processes: server, Postgres and, where there is one,
Redis; what they use when idle is taken off. Close everything else first; compare only within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import servers
from bench.cpu import Meter
from bench.measuring import Measured, measure_in_process, measure_server
from bench.reference_env import langgraph_command
from bench.services import Services
from bench.table import render
from bench.workloads import WORKLOADS, Workload

_IDLE_S = 1.5

Measurements = Iterator[tuple[Workload, Measured]]


@dataclass(frozen=True)
class Contender:
    """Something that runs the graphs. `measure` starts it, measures the workloads one after the other, and ends it."""

    key: str
    title: str
    measure: Callable[[Services, Sequence[Workload]], Measurements]


def contenders(options: argparse.Namespace) -> list[Contender]:
    """All of them, in the order of the table."""
    jobs: int = options.jobs

    def of_reference(services: Services) -> AbstractContextManager[servers.Running]:
        command = langgraph_command(options.reference)
        return servers.reference(services, command=command, jobs=options.reference_jobs)

    return [
        Contender("bare", "in process", lambda services, workloads: _in_process(services, workloads, None)),
        Contender(
            "stock",
            "in process, stock saver",
            lambda services, workloads: _in_process(services, workloads, services.database(migrated=False)),
        ),
        Contender("one", "Waystation, one process", _over_http(lambda s: servers.one_process(s, jobs=jobs))),
        Contender("two", "Waystation, api + 2 workers", _over_http(lambda s: servers.api_and_workers(s, jobs=jobs))),
        Contender("reference", "langgraph dev (in memory)", _over_http(of_reference)),
    ]


def _in_process(services: Services, workloads: Sequence[Workload], conninfo: str | None) -> Measurements:
    yield from zip(workloads, measure_in_process(workloads, conninfo, services.postmaster), strict=True)


def _over_http(
    serve: Callable[[Services], AbstractContextManager[servers.Running]],
) -> Callable[[Services, Sequence[Workload]], Measurements]:
    def measure(services: Services, workloads: Sequence[Workload]) -> Measurements:
        with serve(services) as running:
            time.sleep(0.5)
            meter = Meter.calibrated(running.groups, seconds=_IDLE_S)
            yield from zip(workloads, measure_server(workloads, running.port, meter), strict=True)

    return measure


def run(options: argparse.Namespace) -> None:
    """Measure round by round, so that a slow minute of the machine does not hit one contender alone."""
    workloads = [workload.shorter() if options.quick else workload for workload in _chosen_workloads(options)]
    chosen = [one for one in contenders(options) if not options.contenders or one.key in options.contenders.split(",")]
    results: dict[str, dict[str, list[Measured]]] = {one.title: {} for one in chosen}
    with Services.running() as services:
        for number in range(options.repeat):
            for one in chosen:
                began = time.perf_counter()
                _measure_one(one, services, workloads, results[one.title], verbose=options.verbose)
                _say(f"round {number + 1}: {one.title} took {time.perf_counter() - began:.0f} s")
    print(_heading(options))
    print(render({title: measured for title, measured in results.items() if measured}))


def _measure_one(
    one: Contender,
    services: Services,
    workloads: Sequence[Workload],
    into: dict[str, list[Measured]],
    *,
    verbose: bool,
) -> None:
    try:
        for workload, measured in one.measure(services, workloads):
            into.setdefault(workload.name, []).append(measured)
            if verbose:
                figures = ", ".join(f"{name} {value:.2f}" for name, value in measured.items())
                _say(f"  {one.key} {workload.name}: {figures}")
    except RuntimeError as error:
        # The others are worth measuring all the same; the table shows what is missing.
        _say(f"{one.title}: {error}")


def _chosen_workloads(options: argparse.Namespace) -> list[Workload]:
    only: str = options.only
    names = only.split(",") if only else []
    known = [workload.name for workload in WORKLOADS]
    if unknown := set(names) - set(known):
        raise SystemExit(f"--only {','.join(unknown)}: there are {', '.join(known)}")
    return [workload for workload in WORKLOADS if not names or workload.name in names]


def _heading(options: argparse.Namespace) -> str:
    model = "unknown CPU"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return (
        f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores ({model}), load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, rounds: {options.repeat}{', quick' if options.quick else ''}.\n"
        f"Runs at a time: Waystation {options.jobs} per worker, langgraph dev {options.reference_jobs}. "
        "CPU: total = server + Postgres (+ Redis).\n"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs of everything")
    parser.add_argument("--only", default="", help=f"workloads, of {','.join(w.name for w in WORKLOADS)}")
    parser.add_argument("--contenders", default="", help="of bare,stock,one,two,reference")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the table shows median, least and greatest")
    parser.add_argument("--jobs", type=int, default=300, help="runs at a time of a Waystation worker")
    parser.add_argument("--reference-jobs", type=int, default=10, help="of langgraph dev, whose default this is")
    parser.add_argument("--reference", type=Path, help="virtual environment with langgraph-cli[inmem]")
    parser.add_argument("--verbose", action="store_true", help="every figure as it comes")
    run(parser.parse_args())


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


if __name__ == "__main__":
    main()
