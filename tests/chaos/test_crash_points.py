"""kill -9 of a worker at every statement that it makes for a run: before it is sent, and after it is committed.

That is every point between claim and final status that the database can tell from another.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from chaos.fleet import fleet_of
from chaos.mortal import MOMENTS, MORTAL, mortal_worker
from chaos.runs_api import Accepted, client_of, joined, submit
from chaos.statements import Loss
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

STEPS = 3
STATEMENTS = 10
WORKERS = 3


async def test_a_worker_may_die_at_any_of_its_statements(tmp_path: Path, database_uri: str) -> None:
    losses: list[Loss] = []
    # Neighbours die with their worker, more often than an innocent run should.
    with fleet_of(tmp_path, database_uri, **MORTAL) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(client_of(api.url))
            for number in range(WORKERS):
                await mortal_worker(stack, fleet, f"worker-{number}", database_uri, losses)
            turns = asyncio.Semaphore(5)
            runs = await asyncio.gather(
                *[
                    _one(client, turns, losses, Loss(str(uuid.uuid4()), nth, moment))
                    for moment in MOMENTS
                    for nth in range(1, STATEMENTS + 1)
                ]
            )
            await witness.until_final([run.run_id for run in runs], within_s=90)
        counted = await witness.check([run.run_id for run in runs])
        values = await witness.outputs([run.run_id for run in runs])
    deaths = [loss for loss in losses if loss.lost]
    points = {(loss.moment, loss.lost) for loss in deaths}
    say(f"{len(deaths)} deaths at {len(points)} different points: {counted}")
    assert len(deaths) > STATEMENTS
    assert all(value["done"] == list(range(1, STEPS + 1)) for value in values)


async def _one(client: httpx.AsyncClient, turns: asyncio.Semaphore, losses: list[Loss], loss: Loss) -> Accepted:
    async with turns:
        losses.append(loss)
        given = {"steps": STEPS, "delay_s": 0.02}
        run = await submit(client, "steps", given, thread_id=loss.thread_id, durability="sync", stream_resumable=True)
        assert (await joined(client, run))["done"] == list(range(1, STEPS + 1))
        return run
