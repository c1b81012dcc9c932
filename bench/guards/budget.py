"""Fifty parallel calls against a budget for ten, in one process and over four, some of which are killed with -9.

    python -m bench.guards.budget [--rounds 5]

Prints a table in Markdown, the worst of all rounds: how far the budget was passed, by what error of one call it may be,
who was locked out, what is still held when the dust has settled, and the ledger's sum next to the provider's own bill.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from bench.services import Services
from chaos.guard_spender import Task
from guard_spending import (
    BUDGET_USD,
    ONE_CALLS_ERROR,
    Outcome,
    settle_lost,
    spend_here,
    spend_in_memory,
    spend_in_processes,
    summed_up,
)
from waystation_db import guard_ledger
from waystation_db.pool import Database

CALLS = (13, 13, 12, 12)


def a_task(folder: Path, *, uri: str = "", calls: int = 50, seed: int = 0, crash: str = "", crash_at: int = 0) -> Task:
    bill = str(folder / "bill")
    return Task(uri, "", "", calls, BUDGET_USD, bill, seed=seed, crash=crash, crash_at=crash_at)


async def in_memory(services: Services, seed: int) -> Outcome:
    return await spend_in_memory(a_task(services.folder(), seed=seed))


async def in_one_process(services: Services, seed: int) -> Outcome:
    async with Database(await _database(services)) as db:
        task = a_task(services.folder(), seed=seed)
        return await summed_up(db, task.bill, [await spend_here(db, task)])


async def over_four(services: Services, seed: int, crash: str = "") -> Outcome:
    """Four processes; two of them are killed in their first call, where `crash` says when. Then fifty calls
    more, so that whoever is locked out by what the dead held would show."""
    uri, folder = await _database(services), services.folder()
    async with Database(uri) as db:
        crashes = (("", 0), (crash, 1), ("", 0), (crash, 1))
        tasks = [
            a_task(folder, uri=uri, calls=calls, seed=seed * 10 + number, crash=when, crash_at=at)
            for number, (calls, (when, at)) in enumerate(zip(CALLS, crashes, strict=True))
        ]
        outcomes = await spend_in_processes(db, tasks)
        if crash:
            outcomes.append(await spend_here(db, a_task(folder, seed=seed * 10 + 9)))
        async with db.connection() as conn:
            await guard_ledger.sweep(conn, limit=1000)
        found = await summed_up(db, tasks[0].bill, outcomes)
        await settle_lost(db, tasks[0].bill)
        reconciled = await summed_up(db, tasks[0].bill, outcomes)
        assert reconciled.ledger == reconciled.bill
        return found


async def _database(services: Services) -> str:
    return await asyncio.to_thread(services.database, migrated=True)


def line(title: str, outcomes: Sequence[Outcome]) -> str:
    def span(values: Sequence[float], form: str = "g") -> str:
        least, most = min(values), max(values)
        return f"{least:{form}}" if least == most else f"{least:{form}} to {most:{form}}"

    cells = [
        title,
        span([one.killed for one in outcomes]),
        span([one.paid_calls for one in outcomes]),
        span([one.bill / (BUDGET_USD * 1e9) * 100 for one in outcomes], ".1f") + " %",
        f"{max(one.over / ONE_CALLS_ERROR for one in outcomes):.2f}",
        span([one.locked_out for one in outcomes]),
        span([one.held for one in outcomes]),
        span([one.lost_calls for one in outcomes]),
        span([(one.bill - one.lost + one.counted - one.ledger) / 1e9 for one in outcomes], ".9f"),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| | killed | calls paid | bill, of the budget | passed by, of one call's error | locked out | held afterwards "
    "| lost calls on the bill | bill less ledger, without the lost calls, $ |\n|---|---|---|---|---|---|---|---|---|"
)


async def measure(services: Services, rounds: int) -> None:
    ways: dict[str, Callable[[Services, int], Awaitable[Outcome]]] = {
        "one process, memory": in_memory,
        "one process, Postgres": in_one_process,
        "four processes": over_four,
        "four, two killed before the provider was asked": lambda s, n: over_four(s, n, "before the provider"),
        "four, two killed after it was paid": lambda s, n: over_four(s, n, "after the provider"),
    }
    print(HEAD)
    for title, way in ways.items():
        outcomes = [await way(services, seed) for seed in range(1, rounds + 1)]
        print(line(title, outcomes), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.guards.budget", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # every refusal is told by LangChain
    with Services.running() as services:
        asyncio.run(measure(services, options.rounds))


if __name__ == "__main__":
    main()
