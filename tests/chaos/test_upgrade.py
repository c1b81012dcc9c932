"""Two neighbouring versions on one database: processes of the one before, beside and replaced by those of this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.fleet import PATIENT, fleet_of
from chaos.previous_version import Elder, package_before
from chaos.runs_api import body, client_of, joined, submit_many
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

RUNS = 12
STEPS = 6
OUTPUT = list(range(1, STEPS + 1))


@asynccontextmanager
async def started(elder: Elder) -> AsyncGenerator[Elder]:
    try:
        yield await elder.ready()
    finally:
        elder.end()


async def test_workers_of_two_versions_share_the_queue_and_the_old_one_hands_over(
    tmp_path: Path, database_uri: str
) -> None:
    root = package_before(tmp_path / "before")
    with fleet_of(tmp_path / "fleet", database_uri, **PATIENT, N_JOBS_PER_WORKER="8") as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        elder, api = Elder(fleet, root, "worker"), fleet.api()
        async with started(elder), client_of((await api.ready()).url) as client:
            young = await fleet.worker("young").ready()
            runs = await submit_many(client, RUNS, "steps", {"steps": STEPS, "delay_s": 0.6}, durability="sync")
            await witness.until_claimed_by([elder.process.pid, young.pid])
            assert await elder.stop() == 0, elder.log()
            outputs = [await joined(client, run) for run in runs]
        assert [output["done"] for output in outputs] == [OUTPUT] * RUNS
        counted = await witness.check([run.run_id for run in runs])
    say(f"an old worker handed over to a new one: {counted}")
    assert (counted.crashes, counted.repeated_steps) == (0, 0)


async def test_requests_to_an_api_of_the_version_before_are_executed_by_this_one(
    tmp_path: Path, database_uri: str
) -> None:
    root = package_before(tmp_path / "before")
    with fleet_of(tmp_path / "fleet", database_uri, **PATIENT, N_JOBS_PER_WORKER="8") as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        young, elder, worker = fleet.api(), Elder(fleet, root, "serve"), fleet.worker("worker")
        async with started(elder), client_of(elder.url) as old, client_of((await young.ready()).url) as new:
            given = {"steps": STEPS, "delay_s": 0.05}
            runs = await submit_many(old, RUNS, "steps", given) + await submit_many(new, RUNS, "steps", given)
            # Each answers for what the other took.
            outputs = await asyncio.gather(
                *[joined(new, run) for run in runs[:RUNS]], *[joined(old, run) for run in runs[RUNS:]]
            )
            for client, thread in ((old, runs[RUNS].thread_id), (new, runs[0].thread_id)):
                answer = await client.post(f"/threads/{thread}/runs/wait", json=body("steps", given))
                assert answer.status_code == 200, answer.text
            assert (await old.post("/threads/search", json={"limit": 5})).status_code == 200
        assert [output["done"] for output in outputs] == [OUTPUT] * len(runs)
        assert worker.is_alive, worker.log()
        counted = await witness.check([run.run_id for run in runs])
    assert (counted.crashes, counted.repeated_steps) == (0, 0)
