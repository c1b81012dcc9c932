"""CPU time of processes with everything they have started, from /proc (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Stat:
    parent: int
    cpu_s: float


def trees_cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds so far of these processes and all their descendants, those that have ended included."""
    stats = dict(_stats())
    wanted, total = set(roots), 0.0
    for pid, stat in stats.items():
        if _is_below(pid, wanted, stats):
            total += stat.cpu_s
    return total


def _is_below(pid: int, roots: set[int], stats: Mapping[int, _Stat]) -> bool:
    while pid in stats:
        if pid in roots:
            return True
        pid = stats[pid].parent
    return False


def _stats() -> Iterable[tuple[int, _Stat]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        yield int(entry.name), _Stat(int(fields[1]), sum(map(int, fields[11:15])) * _TICK_S)


@dataclass(frozen=True)
class Meter:
    """Groups of processes, and how much they use of a core when nothing is asked of them."""

    groups: Mapping[str, tuple[int, ...]]
    idle: Mapping[str, float]

    @classmethod
    def calibrated(cls, groups: Mapping[str, tuple[int, ...]], *, seconds: float) -> Meter:
        """Look for `seconds` at what they do while idle."""
        meter = cls(groups, dict.fromkeys(groups, 0.0))
        before, began = meter.read(), time.perf_counter()
        time.sleep(seconds)
        span = time.perf_counter() - began
        return cls(groups, {name: (now - before[name]) / span for name, now in meter.read().items()})

    def read(self) -> dict[str, float]:
        return {name: trees_cpu_s(pids) for name, pids in self.groups.items()}
