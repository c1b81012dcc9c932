"""kill -9 of a server that is API and worker in one, at random moments, started again each time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.fleet import fleet_of
from chaos.runs_api import Accepted, client_of, submit, submit_many
from chaos.witness import Witness

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

STEPS = 6


@pytest.mark.timeout(240)
async def test_no_kill_loses_a_run_or_repeats_a_committed_step(
    tmp_path: Path, database_uri: str, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    kills, runs = 0, list[Accepted]()
    with fleet_of(tmp_path, database_uri) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        node = fleet.alone()
        port = node.port
        while kills < 20:
            await node.ready()
            async with client_of(node.url) as client:
                for durability in ("sync", "async"):
                    given = {"steps": STEPS, "delay_s": 0.08}
                    runs += await submit_many(client, 2, "steps", given, durability=durability)
            for _ in range(2):  # a run that is hit a third time would be poison
                await asyncio.sleep(dice.uniform(0, 0.7))
                node.kill()
                kills += 1
                node = fleet.alone(port=port)
                await node.ready()
            await witness.until_final([run.run_id for run in runs], within_s=30)
        counted = await witness.check([run.run_id for run in runs])
        outputs = await witness.outputs([run.run_id for run in runs])
    assert [output["done"] for output in outputs] == [list(range(1, STEPS + 1))] * len(runs)
    assert counted.repeated_steps <= 2 * counted.crashes
    print(f"{kills} kills, {counted}")
    record_property("counted", f"{kills} kills, {counted}")
