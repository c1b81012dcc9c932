"""What traces and the access log cost: CPU time of a server per run, with each of them on and with none.

    python -m bench.tracing [--rounds 5] [--runs 60]

All servers are up at the same time and are asked in turns, so that the machine's other work falls on all of them. The
collector lives in the process that measures, whose time does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bench.cpu import trees_cpu_s
from bench.servers import Running, one_process
from bench.services import Services
from otlp_collector import collecting

_MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "go on"}]}
WORKLOADS: Mapping[str, dict[str, Any]] = {
    "trivial graph, waited for": {"assistant_id": "trivial", "input": {}},
    "ten steps, waited for": {"assistant_id": "ten_steps", "input": {}},
    "a model's 200 tokens, streamed": {
        "assistant_id": "tokens",
        "input": {**_MESSAGES, "count": 200},
        "stream_mode": "messages-tuple",
    },
}


def measured(server: Running, body: Mapping[str, Any], *, runs: int) -> float:
    """Milliseconds of the server's CPU time per run, four at a time."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        path = "/runs/stream" if "stream_mode" in body else "/runs/wait"

        def one(_: int) -> None:
            client.post(path, json=body).raise_for_status()

        before = trees_cpu_s(server.groups["server"])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(runs)))
        return (trees_cpu_s(server.groups["server"]) - before) / runs * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=60)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        services = stack.enter_context(Services.running())
        collector = stack.enter_context(collecting())
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        kinds: dict[str, dict[str, str]] = {
            "none": {},
            "access log": {"WAYSTATION_ACCESS_LOG": "true"},
            "traces": otel,
            "traces of a tenth": otel
            | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
            "traces with contents": otel | {"WAYSTATION_TRACE_CONTENT": "true"},
        }
        servers = {name: stack.enter_context(one_process(services, jobs=8, more=more)) for name, more in kinds.items()}
        print(f"| {' | '.join(['ms of CPU per run', *servers])} |\n|{' --- |' * (len(servers) + 1)}")
        for name, body in WORKLOADS.items():
            found: dict[str, list[float]] = {kind: [] for kind in servers}
            for server in servers.values():
                measured(server, body, runs=10)
            for _ in range(options.rounds):
                for kind, server in servers.items():
                    found[kind].append(measured(server, body, runs=options.runs))
            middle = {kind: statistics.median(values) for kind, values in found.items()}
            ratios = [f"{value:.2f} ({value / middle['none']:.2f})" for value in middle.values()]
            print(f"| {' | '.join([name, *ratios])} |", flush=True)


if __name__ == "__main__":
    main()
