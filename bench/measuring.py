"""Drives a load process through its workloads, and reads the CPU that the contender's processes use meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from bench.cpu import Meter
from bench.workloads import Workload

Measured = dict[str, float]


def measure_server(workloads: Sequence[Workload], port: int, meter: Meter) -> Iterator[Measured]:
    """The workloads against a server, one after the other.

    Raises:
        RuntimeError: a run failed; the load process says how on stderr.
    """
    with _Load("bench.load", {"port": port, "workloads": [one.as_json() for one in workloads]}) as load:
        for _ in workloads:
            yield load.measured(meter)


def measure_in_process(workloads: Sequence[Workload], conninfo: str | None, postmaster: int) -> Iterator[Measured]:
    """The workloads in a process that calls the graph. Raises as `measure_server`."""
    with _Load("bench.in_process", {"conninfo": conninfo, "workloads": [one.as_json() for one in workloads]}) as load:
        groups = {"server": (load.pid,), **({} if conninfo is None else {"Postgres": (postmaster,)})}
        for _ in workloads:
            yield load.measured(Meter(groups, dict.fromkeys(groups, 0.0)))


class _Load:
    """The load process."""

    def __init__(self, module: str, order: Mapping[str, Any]) -> None:
        command = [sys.executable, "-m", module, orjson.dumps(order).decode()]
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self) -> _Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def measured(self, meter: Meter) -> Measured:
        """The next workload, from the moment it is ready to its end."""
        self._expect("ready")
        before = meter.read()
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._expect("done")
        after = meter.read()
        figures: dict[str, float] = orjson.loads(self._line())
        idle = {name: share * figures["seconds"] for name, share in meter.idle.items()}
        return _derived(figures, {name: max(0.0, after[name] - before[name] - idle[name]) for name in meter.groups})

    def _expect(self, word: str) -> None:
        if self._line() != word:
            raise RuntimeError("the load broke off")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _derived(figures: Measured, used: Mapping[str, float]) -> Measured:
    """Rates, and CPU for each run and event. `used`: CPU seconds by kind of process."""
    runs, marks = max(1.0, figures["runs"]), max(1.0, figures["marks"])
    total = sum(used.values())
    return {
        **figures,
        "per_s": figures["runs"] / figures["seconds"],
        "marks_per_s": figures["marks"] / figures["seconds"],
        "cpu_ms": total / runs * 1e3,
        "cpu_us_per_mark": total / marks * 1e6 if figures["marks"] else 0.0,
        **{f"cpu_ms {name}": seconds / runs * 1e3 for name, seconds in used.items()},
    }
