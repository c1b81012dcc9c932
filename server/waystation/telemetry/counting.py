"""Counting that is more than one line: what is told under two names, labels with a bound, and what is looked at now and
then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol

from prometheus_client import Counter

from waystation.telemetry import metrics

OTHER: Final = "other"
LAG_INTERVAL_S: Final = 0.5


class Pool(Protocol):
    """A pool of connections."""

    name: str
    max_size: int

    @property
    def in_use(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class Names:
    """Values of a label that programs choose: so many have a series of their own, all later ones are `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __getitem__(self, name: str) -> str:
        if name in self._known:
            return name
        # Not printable is also half a surrogate pair, which no scrape could be encoded with.
        if not name or len(name) > 100 or not name.isprintable() or len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


TOOLS: Final = Names(100)
MODELS: Final = Names(100)


def runs_executing(count: int) -> None:
    """Tell how many runs this process executes now."""
    metrics.WORKER_ACTIVE.set(count)
    metrics.AGENT_ACTIVE_TASKS.set(count)


def run_executed(seconds: float, supersteps: int) -> None:
    """Tell of an attempt that is over, however it ended."""
    metrics.RUN_SECONDS.observe(seconds)
    metrics.AGENT_TASK_SECONDS.observe(seconds)
    metrics.RUN_SUPERSTEPS.observe(supersteps)


def run_ended(outcome: str) -> None:
    """Tell that the outcome of a run is written down."""
    metrics.RUNS_FINISHED.labels(outcome).inc()
    metrics.AGENT_REQUESTS.labels(outcome).inc()


def queue_counted(pending: int, running: int, oldest_wait_s: float | None) -> None:
    """Tell what the queue of all processes is."""
    metrics.QUEUE_PENDING.set(pending)
    metrics.AGENT_QUEUE_SIZE.set(pending)
    metrics.QUEUE_RUNNING.set(running)
    metrics.QUEUE_OLDEST_SECONDS.set(oldest_wait_s or 0)


@lru_cache(maxsize=4096)
def http_requests_of(method: str, route: str, status: int) -> Counter:
    """The counter of one method, route and status: looking it up by labels each time would cost more than counting."""
    return metrics.HTTP_REQUESTS.labels(method, route, str(status))


async def watch_loop_lag(name: str, *pools: Pool) -> None:
    """Measure, until cancelled, how late timers of this loop come, and how the pools that belong to it stand."""
    gauge = metrics.LOOP_LAG_SECONDS.labels(name)
    now = asyncio.get_running_loop().time
    looks = [_look_at(pool) for pool in pools]
    while True:
        for look in looks:
            look()
        due = now() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        gauge.set(max(0.0, now() - due))


def _look_at(pool: Pool) -> Callable[[], None]:
    name = pool.name.removeprefix("waystation-")
    in_use, waiting = metrics.POOL_IN_USE.labels(name), metrics.POOL_WAITING.labels(name)
    metrics.POOL_MAX.labels(name).set(pool.max_size)

    def look() -> None:
        in_use.set(pool.in_use)
        waiting.set(pool.waiting)

    return look
