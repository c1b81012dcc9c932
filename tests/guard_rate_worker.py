"""Processes that make as many model calls as their rate limit lets them.

Each reads tasks from its input, one line of JSON each, and prints the calls that went: `[[when, tokens], …]`. A task's
`uri` is Postgres, `redis` (may be empty) Redis, `rate` what a ModelRate takes, `callers` how many call at a time, `at`
when they begin, `seconds` for how long, `tokens` the sizes of the calls in turn.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import uvloop
from langchain_core.messages import HumanMessage

from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.budget.estimates import input_tokens
from waystation_guards.calls import CallSite
from waystation_guards.errors import RateLimited
from waystation_guards.ports import Ports
from waystation_guards.rates.guard import RateLimit
from waystation_guards.rates.rules import ModelRate
from waystation_guards.watching.watcher import ModelCall

Went = list[tuple[float, int]]


def model_call(ports: Ports, number: int, *, tokens: int = 0) -> ModelCall:
    """A call that nobody makes, with a prompt of so many tokens."""
    messages = [HumanMessage("x" * (4 * tokens - 16))] if tokens > 4 else []
    return ModelCall(f"{id(ports)}-{number}", CallSite(), ports, "model", "bench", messages, {})


async def spend(ports: Ports, task: dict[str, Any]) -> Went:
    """Make calls until the time is over."""
    limiter = RateLimit(ModelRate(**task["rate"]), wait_s=1.0, adapt=False)
    until = task["at"] + task["seconds"]
    numbers, went = itertools.count(), Went()

    async def caller() -> None:
        while time.time() < until:
            number = next(numbers)
            size = task["tokens"][number % len(task["tokens"])]
            call = model_call(ports, number, tokens=size)
            try:
                await limiter.before_model(call)
            except RateLimited:
                continue
            counted = input_tokens(call.messages, call.params)
            went.append((time.time(), counted))
            call.usage = {"input_tokens": counted, "output_tokens": 1}
            await limiter.after_model(call, "made")

    await asyncio.sleep(task["at"] - time.time())
    await asyncio.gather(*(caller() for _ in range(task["callers"])))
    return went


async def work(task: dict[str, Any]) -> Went:
    async with Database(task["uri"], max_size=8, name="rates") as db:
        stores = guard_stores(db, task["redis"] or None, answer_s=20)
        try:
            return await spend(stores.ports_for("default"), task)
        finally:
            await stores.close()


class Workers:
    """Some such processes, as long as the block lasts."""

    def __init__(self, processes: int) -> None:
        self.began_at = 0.0
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(processes)
        ]

    def __enter__(self) -> Self:
        for one in self._processes:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            one.communicate("")

    def spend(self, task: dict[str, Any]) -> list[Went]:
        """What each of them did, all from the same moment on."""
        self.began_at = time.time() + 0.3
        line = json.dumps({**task, "at": self.began_at}) + "\n"
        for one in self._processes:
            assert one.stdin is not None
            one.stdin.write(line)
            one.stdin.flush()
        return [json.loads(one.stdout.readline()) for one in self._processes if one.stdout is not None]


def effective_rate(went: Sequence[tuple[float, int]], since: float, *, bucket: int, weigh: bool = False) -> float:
    """Calls, or tokens, per second beyond what was in the bucket at the beginning. They are told of after they went: it
    is never more than what was let through, however slow the machine."""
    return (sum(tokens if weigh else 1 for _, tokens in went) - bucket) / (max(when for when, _ in went) - since)


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(uvloop.run(work(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
