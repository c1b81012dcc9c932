"""Processes that spend against one budget, some of which are killed, and what their bill and the ledger say then."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from chaos.guard_spender import LEAST, MOST, PRICES, TYPICAL_NANO_USD, Task, spend
from waystation.guarding.postgres_ledger import LedgerDesk, PostgresLedger
from waystation.guarding.recalculation import correct, exported, rebuild
from waystation_db import runs
from waystation_db.pool import Database
from waystation_db.rows import RunKey
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Account, Ledger

SPENDER = Path(__file__).parent / "chaos" / "guard_spender.py"
ACCOUNT = Account("default", "tenant", "default", "usd")
BUDGET_USD = 10 * TYPICAL_NANO_USD / 1e9
BUDGET = 10 * TYPICAL_NANO_USD
ONE_CALLS_ERROR = (MOST - LEAST) * 30_000
"""Nano-dollars between the cheapest and the dearest call."""

_RUNNING = """
with t as (insert into thread (thread_id, status, active_runs) values (%(thread)s, 'busy', 1))
insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, attempt, claimed_by, lease_expires_at)
values (%(thread)s, %(run)s, gen_random_uuid(), 'g', '{}', 'running', 1, %(worker)s, now() + interval '1 hour')
"""


@dataclass(frozen=True)
class Outcome:
    """What became of all calls. Amounts are nano-dollars."""

    paid_calls: int
    refused: int
    killed: int
    bill: int
    ledger: int
    spent: int
    held: int
    lost_calls: int
    """Calls on the bill whose process died before it could settle them."""
    lost: int
    """What the provider billed for those."""
    counted: int
    """What the ledger counts for calls of dead processes: what was expected of them, on the bill or not."""
    charged_calls: int
    """Calls that the ledger counts, or that are on the bill and were lost."""
    expected: int
    """What one more call is expected to cost."""

    @property
    def over(self) -> int:
        """How far the bill is above the budget."""
        return max(0, self.bill - BUDGET)

    @property
    def locked_out(self) -> int:
        """Calls that were refused although there was room for them."""
        return min(self.refused, max(0, BUDGET - self.spent) // self.expected)


async def spend_in_processes(db: Database, tasks: Sequence[Task]) -> list[dict[str, int] | None]:
    """Let all begin together, and wait until all are over; None for one that was killed. Its run is put back, as by
    the sweeper."""
    workers = [await _running(db) for _ in tasks]
    orders = [
        asdict(replace(task, thread=key.thread_id, run=key.run_id))
        for task, (key, _) in zip(tasks, workers, strict=True)
    ]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SPENDER), json.dumps(orders), stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    outcomes: list[dict[str, int] | None] = [None for _ in tasks]
    ready, over = 0, 0
    async with asyncio.timeout(100):
        while over < len(tasks):
            line = (await process.stdout.readline()).decode()
            assert line, "a spender failed"
            number, what, *told = line.split(maxsplit=2)
            match what:
                case "ready":
                    ready += 1
                    if ready == len(tasks):
                        process.stdin.close()  # the sign for all
                case "over":
                    over += 1
                    outcomes[int(number)] = json.loads(told[0])
                case _:
                    over += 1
                    await _put_back(db, workers[int(number)][1])
        await process.wait()
    return outcomes


async def _running(db: Database) -> tuple[RunKey, str]:
    """A run that a worker executes, and the worker."""
    key, worker = RunKey("default", str(uuid.uuid4()), str(uuid.uuid4())), str(uuid.uuid4())
    async with db.connection() as conn:
        await conn.execute(_RUNNING, {"thread": key.thread_id, "run": key.run_id, "worker": worker})
    return key, worker


async def _put_back(db: Database, worker: str) -> None:
    async with db.connection() as conn:
        await runs.disown(conn, worker_id=worker)
        await runs.sweep_expired(conn, max_crashes=3, lease_s=10)


async def spend_in_memory(task: Task) -> Outcome:
    """All calls in this process, with the ledger in its memory."""
    ports = memory_ports()
    outcome = await spend(task, ports)
    assert isinstance(ports.ledger, MemoryLedger)
    entries = sum(entry.cost_nano_usd or 0 for _, _, entry in ports.ledger.entries)
    return await _outcome(ports.ledger, bill_of(task.bill), [outcome], ledger_sum=entries, known=None)


async def spend_here(db: Database, task: Task) -> dict[str, int]:
    """All calls in this process, with the ledger in Postgres; how many were made and refused."""
    desk = LedgerDesk(db)
    outcome = await spend(task, replace(memory_ports(), ledger=PostgresLedger(desk)))
    await desk.close()
    return outcome


async def summed_up(db: Database, bill: str, outcomes: Sequence[dict[str, int] | None]) -> Outcome:
    """What the bill and the ledger say after all of it."""
    entries = await entries_of(db)
    known = {entry["call"].partition("/")[0] for entry in entries if entry["kind"] == "model"}
    dead = {entry["call"].partition("/")[0] for entry in entries if entry["detail"].get("outcome") == "lost"}
    total = sum(entry["cost_nano_usd"] or 0 for entry in entries)
    assert await rebuild(db, "default", dry_run=True) == [], "balances are not what the entries say"
    counted = sum(entry["cost_nano_usd"] or 0 for entry in entries if entry["detail"].get("outcome") == "lost")
    ledger = PostgresLedger(LedgerDesk(db))
    return await _outcome(ledger, bill_of(bill), outcomes, ledger_sum=total, known=known, dead=dead, counted=counted)


async def entries_of(db: Database) -> list[dict[str, Any]]:
    """The ledger, the oldest entry first."""
    return [json.loads(one) async for page in exported(db, "default") for one in page]


async def settle_lost(db: Database, bill: str) -> int:
    """Do as an operator with the provider's bill does: write what lost calls cost. How many those were."""
    entries = await entries_of(db)
    known = {entry["call"].partition("/")[0] for entry in entries if entry["kind"] == "model"}
    lost = {
        entry["call"].partition("/")[0]: entry["cost_nano_usd"] or 0
        for entry in entries
        if entry["detail"].get("outcome") == "lost"
    }
    paid = bill_of(bill)
    assert paid.keys() - known <= lost.keys(), "the ledger does not know of a call that was paid for"
    for call, counted in lost.items():
        cost = paid.get(call, 0)
        await correct(db, "default", call, nano_usd=cost - counted, reason="the provider's bill")
    return len(lost)


def bill_of(path: str) -> dict[str, int]:
    """Calls and what each cost, as the provider has it."""
    if not Path(path).exists():
        return {}
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    assert len({call for call, _ in lines}) == len(lines), "a call was paid twice"
    return {call: int(cost) for call, cost in lines}


async def _outcome(
    ledger: Ledger,
    bill: dict[str, int],
    outcomes: Sequence[dict[str, int] | None],
    *,
    ledger_sum: int,
    known: set[str] | None,
    dead: Set[str] = frozenset(),
    counted: int = 0,
) -> Outcome:
    (balance,) = await ledger.balances([ACCOUNT])
    lost = {} if known is None else {call: cost for call, cost in bill.items() if call not in known}
    ratio = await ledger.ratio("default", "paid")
    usage = {"input_tokens": 12, "output_tokens": MOST, "total_tokens": 12 + MOST}
    plain = PRICES.cost("paid", usage)
    assert plain is not None
    return Outcome(
        paid_calls=len(bill),
        refused=sum(outcome["refused"] for outcome in outcomes if outcome),
        killed=sum(outcome is None for outcome in outcomes),
        bill=sum(bill.values()),
        ledger=ledger_sum,
        spent=balance.spent,
        held=balance.held + balance.at_risk,
        lost_calls=len(lost),
        lost=sum(lost.values()),
        counted=counted,
        charged_calls=len(bill.keys() | dead),
        expected=max(1, round(plain.nano_usd * ratio)),
    )
