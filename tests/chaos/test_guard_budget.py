"""Fifty parallel calls against a budget for ten, over processes that are killed at the worst moments."""

from __future__ import annotations

from pathlib import Path

import pytest

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
from waystation_db.pool import Database

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]


def a_task(folder: Path, *, uri: str = "", calls: int = 50, seed: int = 1, crash: str = "") -> Task:
    return Task(uri, "", "", calls, BUDGET_USD, str(folder / "bill"), seed=seed, crash=crash, crash_at=1)


def kept_its_promise(outcome: Outcome) -> None:
    # What is not known of calls that were lost is their own error.
    assert outcome.over <= ONE_CALLS_ERROR * (1 + outcome.lost_calls)
    assert outcome.locked_out == 0
    assert outcome.held == 0
    assert outcome.ledger == outcome.spent == outcome.bill - outcome.lost + outcome.counted
    # One that was killed may have held all of the budget; it is then charged for its calls, though nobody was paid.
    assert 5 <= outcome.charged_calls <= 15


async def test_in_one_process_with_the_ledger_in_memory(tmp_path: Path) -> None:
    outcome = await spend_in_memory(a_task(tmp_path))
    kept_its_promise(outcome)
    assert outcome.paid_calls + outcome.refused == 50


async def test_in_one_process_with_the_ledger_in_postgres(tmp_path: Path, db: Database) -> None:
    task = a_task(tmp_path)
    outcome = await summed_up(db, task.bill, [await spend_here(db, task)])
    kept_its_promise(outcome)
    assert outcome.paid_calls + outcome.refused == 50


async def test_over_four_processes_two_of_which_are_killed_with_calls_open(
    tmp_path: Path, db: Database, database_uri: str
) -> None:
    crashes = ("", "before the provider", "", "after the provider")
    tasks = [
        a_task(tmp_path, uri=database_uri, calls=13, seed=number, crash=crash) for number, crash in enumerate(crashes)
    ]
    outcomes = await spend_in_processes(db, tasks)
    # Whoever is locked out by what the dead held is refused here.
    outcomes.append(await spend_here(db, a_task(tmp_path, seed=9)))
    outcome = await summed_up(db, tasks[0].bill, outcomes)
    kept_its_promise(outcome)
    assert await settle_lost(db, tasks[0].bill) >= outcome.lost_calls
    settled = await summed_up(db, tasks[0].bill, outcomes)
    assert settled.ledger == settled.bill == settled.spent
