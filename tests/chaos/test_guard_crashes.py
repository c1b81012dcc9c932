"""Workers die in the middle of paid model calls under a policy: nothing stays held, and every call is accounted for."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from chaos.runs_api import Accepted, joined, submit
from chaos.spending import (
    BUDGET,
    CUT_OFF,
    DEAREST,
    DIES,
    HALF,
    NOTHING,
    ONE_CALLS_ERROR,
    Booked,
    Spending,
    spending,
)
from chaos.witness import say
from eventually import eventually
from services import Valkey
from waystation_db.pool import Database

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

REST = 20
SLOTS = 9
# Neighbours die with their worker, more often than an innocent run should. A stall is no death. The dead keep no more
# places than there are.
SETTINGS = {"WAYSTATION_MAX_CRASHES": "50", "WAYSTATION_LEASE_S": "3", "N_JOBS_PER_WORKER": "3"}


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "postgres"])
async def test_workers_that_die_within_model_calls_lose_no_money_and_keep_no_place(
    tmp_path: Path, db: Database, database_uri: str, make_redis: Callable[[], Valkey], with_redis: bool
) -> None:
    redis = make_redis() if with_redis else None
    async with spending(tmp_path, db, database_uri, redis, workers=3, **SETTINGS) as load:
        async with orchestrated(load) as dead:
            runs: list[Accepted] = []
            for fate in (NOTHING, HALF, DIES):
                runs += await asyncio.gather(*[asked(load, f"word {n}") for n in range(3)])
                runs.append(await asked(load, fate))
                deaths = len(dead) + 1
                await eventually(lambda deaths=deaths: is_reached(dead, deaths), within_s=60)
            runs += await asyncio.gather(*[asked(load, f"word {n}") for n in range(REST)])
            ends = [await how_it_ended(load, run) for run in runs]
        assert len(dead) == 3
        assert set(ends) == {"success", "budget_exceeded"}, "the budget is for some of the runs"
        await load.witness.check([run.run_id for run in runs], status=None)
        await nothing_is_held(load)
        bill, booked = load.bill(), await load.booked()
        lost = keeps_its_promise(load, bill, booked, dead)
        say(f"{len(bill)} calls paid, {len(lost)} lost, {len(dead)} deaths; {dict(Counter(ends))}")
        assert (await load.account())[0] == booked.total
        # No living process kept a place; what the dead had is free when their time is over.
        assert await load.places() <= lost | by_the_dead(load, dead)
        await load.a_minute_later()
        await corrected(load, bill, booked)
        await room_is_used(load)
        assert await load.places() == set()


@asynccontextmanager
async def orchestrated(load: Spending) -> AsyncGenerator[set[int]]:
    """Kill whoever waits for a provider that will not answer, and start again whoever dies. The pids of the dead."""
    dead: set[int] = set()

    async def watch() -> None:
        while True:
            waiting = {int(seen.body["metadata"]["pid"]) for seen in load.open_calls() if seen.plan.fault in CUT_OFF}
            for number, worker in enumerate(load.workers):
                if worker.pid in waiting:
                    worker.kill()
                if not worker.is_alive:
                    dead.add(worker.pid)
                    load.workers[number] = worker.again()
            await asyncio.sleep(0.03)

    watching = asyncio.create_task(watch())
    try:
        yield dead
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def is_reached(dead: set[int], count: int) -> bool:
    return len(dead) >= count


async def asked(load: Spending, text: str) -> Accepted:
    """A run; half of them stream their tokens."""
    given: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    mode = "messages-tuple" if text in (HALF, DIES) or text.endswith(("1", "3", "5", "7", "9")) else "values"
    return await submit(load.client, "twice", given, thread_id=str(uuid.uuid4()), stream_mode=[mode])


async def how_it_ended(load: Spending, run: Accepted) -> str:
    output = await joined(load.client, run)
    status = (await load.client.get(run.path)).json()["status"]
    assert status == ("error" if "__error__" in output else "success")
    return output["__error__"].get("code", str(output["__error__"])) if status == "error" else status


async def nothing_is_held(load: Spending) -> None:
    """Once somebody has looked: housekeeping begins with the process."""
    load.fleet.worker("housekeeper")

    async def is_free() -> bool:
        return (await load.account())[1:] == (0, 0)

    await eventually(is_free, within_s=60)


def keeps_its_promise(load: Spending, bill: dict[str, int], booked: Booked, dead: set[int]) -> set[str]:
    """The calls that were lost with their process."""
    lost = booked.that_are("lost")
    assert lost, "nobody died within a call"
    assert bill.keys() <= booked.costs.keys(), "a call was paid for, and the ledger does not know of it"
    differing = {call for call in booked.costs if booked.costs[call] != bill.get(call, 0)}
    # A worker that was stalled beyond its lease cancels its calls: it is not told what those cost either.
    unknown = lost | booked.that_are("cancelled")
    assert differing <= unknown, "what the provider told is not what was written"
    assert sum(bill.values()) <= BUDGET + ONE_CALLS_ERROR * (1 + len(unknown))
    given_back = ONE_CALLS_ERROR * len(booked.that_are("found"))  # perhaps after somebody was refused
    assert BUDGET - booked.total < DEAREST + given_back, "a call was refused though there was room for any"
    return lost


def by_the_dead(load: Spending, dead: set[int]) -> set[str]:
    """All calls that processes made which are dead now."""
    return {seen.body["user"] for seen in load.provider.requests if int(seen.body["metadata"]["pid"]) in dead}


async def corrected(load: Spending, bill: dict[str, int], booked: Booked) -> None:
    """Do as an operator with the provider's bill does; then the ledger says what it says."""
    wrong = {call: bill.get(call, 0) - cost for call, cost in booked.costs.items() if cost != bill.get(call, 0)}
    for call, nano_usd in wrong.items():
        told = await load.fleet.command("ledger correct", "--reason", "the bill", call, f"{nano_usd / 1e9:.9f}")
        assert "accounts that follow: 1" in told
    booked = await load.booked()
    assert {call: cost for call, cost in booked.costs.items() if cost} == bill
    assert booked.total == sum(bill.values()) == (await load.account())[0]


async def room_is_used(load: Spending) -> None:
    """Given more, as many runs go on at once as there are slots."""
    grant = {"scope": "tenant", "owner": "default", "amount": 1, "reason": "a test"}
    assert (await load.client.post("/guards/grants", json=grant)).status_code == 200
    runs = await asyncio.gather(*[asked(load, f"word {n}") for n in range(SLOTS)])
    assert {await how_it_ended(load, run) for run in runs} == {"success"}
    await nothing_is_held(load)
