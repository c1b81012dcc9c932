"""Metrics of several processes behind one address: each writes into files of one folder, and any of them reads all.

    waystation up ── PROMETHEUS_MULTIPROC_DIR=<folder> ──▶ api, worker-1 … worker-n ──▶ files ──▶ /metrics of the api

prometheus-client decides by the variable when it is first imported; without it each process shows its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def is_shared() -> bool:
    """Whether this process writes its figures where others do."""
    return ValueClass is not MutexValue


def registry() -> CollectorRegistry:
    """What `GET /metrics` shows: this process, or all that share its folder."""
    if not is_shared():
        return REGISTRY
    shown = CollectorRegistry()
    MultiProcessCollector(shown)  # pyright: ignore[reportUnknownMemberType]  # untyped there; it registers itself
    return shown


def emptied(folder: Path) -> Path:
    """A folder for processes that are about to start, without what those before them have left."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.db"):
        left.unlink(missing_ok=True)
    return folder


def forget(folder: Path, pid: int) -> None:
    """Take the gauges of a process that has ended out of the sums; what it counted stays counted."""
    with contextlib.suppress(OSError):
        for file in folder.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)
