"""Workers whose clocks disagree by minutes take turns on one thread."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from chaos.fleet import Fleet, fleet_of
from chaos.runs_api import client_of, joined, submit
from chaos.witness import Witness

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(120)]


async def _turn(fleet: Fleet, name: str, offset_s: int) -> None:
    """Let a worker with this clock be the only one."""
    for node in fleet.nodes:
        if node.name.startswith("worker") and node.is_alive:
            node.terminate()
            assert await node.ended(within_s=60) == 0, node.log()
    fleet.worker(name, CHAOS_CLOCK_OFFSET_S=str(offset_s))


async def test_what_a_worker_with_a_fast_clock_committed_stays_the_past(tmp_path: Path, database_uri: str) -> None:
    thread_id = str(uuid.uuid4())
    with fleet_of(tmp_path, database_uri) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with client_of(api.url) as client:
            run_ids: list[str] = []
            for number, offset_s in enumerate([600, -600, 0], start=1):
                await _turn(fleet, f"worker-{number}", offset_s)
                given = {"steps": number, "delay_s": 0}  # one step more than the runs before it
                run = await submit(client, "steps", given, thread_id=thread_id)
                assert (await joined(client, run))["done"] == list(range(1, number + 1))
                state = (await client.get(f"/threads/{thread_id}/state")).json()
                assert state["values"]["done"] == list(range(1, number + 1)), f"what worker {number} wrote is not seen"
                run_ids.append(run.run_id)
            await client.post(f"/threads/{thread_id}/state", json={"values": {"done": [99]}, "as_node": "step"})
            state = (await client.get(f"/threads/{thread_id}/state")).json()
            assert state["values"]["done"] == [1, 2, 3, 99]
        await witness.check(run_ids)


async def test_a_run_is_handed_from_a_fast_clock_to_a_slow_one(tmp_path: Path, database_uri: str) -> None:
    with fleet_of(tmp_path, database_uri) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with client_of(api.url) as client:
            fleet.worker("worker-1", CHAOS_CLOCK_OFFSET_S="600")
            run = await submit(client, "steps", {"steps": 12, "delay_s": 0.4}, durability="sync")
            await witness.until_started(3)
            await _turn(fleet, "worker-2", -600)
            await witness.until_started(6)
            fleet.nodes[-1].kill()
            fleet.worker("worker-3")
            assert (await joined(client, run))["done"] == list(range(1, 13))
            counted = await witness.check([run.run_id])
            assert counted.repeated_steps <= counted.crashes
            state = (await client.get(f"/threads/{run.thread_id}/state")).json()
            assert state["values"]["done"] == list(range(1, 13))
            assert state["next"] == []
