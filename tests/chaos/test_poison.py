"""Runs that take their process down with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.fleet import Node, fleet_of
from chaos.runs_api import client_of, joined, submit, submit_many
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]


@pytest.mark.parametrize("how", ["os-exit", "out-of-memory"])
async def test_poison_is_executed_three_times_and_its_neighbours_succeed(
    tmp_path: Path, database_uri: str, how: str
) -> None:
    with fleet_of(tmp_path, database_uri) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with client_of(api.url) as client, asyncio.TaskGroup() as tasks:
            # As an orchestrator does: whoever dies is started again.
            keeping = tasks.create_task(_keep_alive([fleet.worker("worker-0"), fleet.worker("worker-1")]))
            neighbours = await submit_many(client, 8, "steps", {"steps": 4, "delay_s": 0.3}, durability="sync")
            await witness.until_started(8)
            poison = await submit(client, "hostile", {"how": how})
            await witness.until_final([poison.run_id, *[run.run_id for run in neighbours]], within_s=120)
            keeping.cancel()
            assert (await client.get(poison.path)).json()["status"] == "error"
            output = await joined(client, poison)
            assert output["__error__"]["error"] == "WorkerLost"
            (died,) = await witness.ask("select crashes from run where run_id = %s::uuid", poison.run_id)
            # A machine that stalls between a claim and the graph may cost it one of its three.
            assert (died[0], 1 <= len(witness.starts(poison.run_id)) <= 3) == (3, True)
            thread = (await client.get(f"/threads/{poison.thread_id}")).json()
            assert thread["status"] == "error"
            retried = await submit(client, "steps", {"steps": 1, "delay_s": 0}, thread_id=poison.thread_id)
            fleet.worker("afterwards")
            assert (await joined(client, retried))["done"] == [1]
        counted = await witness.check([run.run_id for run in neighbours], status=None)
        say(f"{how}: {len(fleet.nodes) - 4} deaths; neighbours: {counted}")


async def test_a_node_that_never_gives_the_loop_back_ends_and_its_neighbours_succeed(
    tmp_path: Path, database_uri: str
) -> None:
    with fleet_of(tmp_path, database_uri, BG_JOB_TIMEOUT_SECS="4", WAYSTATION_ABANDON_S="0.5") as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with client_of(api.url) as client, asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(_keep_alive([fleet.worker("worker-0"), fleet.worker("worker-1")]))
            neighbours = await submit_many(client, 8, "steps", {"steps": 4, "delay_s": 0.3}, durability="sync")
            await witness.until_started(8)
            hanging = await submit(client, "hostile", {"how": "hang"})
            await witness.until_final([hanging.run_id, *[run.run_id for run in neighbours]], within_s=120)
            keeping.cancel()
            assert (await client.get(hanging.path)).json()["status"] in ("error", "timeout")
            assert len(witness.starts(hanging.run_id)) <= 3
        counted = await witness.check([run.run_id for run in neighbours])
    say(f"hanging loop: {len(fleet.nodes) - 3} deaths; neighbours: {counted}")


async def _keep_alive(workers: list[Node]) -> None:
    while True:
        for number, worker in enumerate(workers):
            if not worker.is_alive:
                workers[number] = worker.again()
        await asyncio.sleep(0.05)
