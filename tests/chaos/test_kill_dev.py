"""`waystation dev`, killed with kill -9 at random moments and started again; its Postgres goes down with it."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from pathlib import Path

import pytest

from chaos.fleet import PROJECT, fleet_of
from chaos.runs_api import Accepted, client_of, submit_many
from chaos.witness import Witness, say
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

KILLS = 20
STEPS = 6


@pytest.mark.timeout(240)
async def test_twenty_kills_lose_no_run_and_repeat_no_committed_step(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    dice = random.Random(seed)
    runs: list[Accepted] = []
    recovered_s: list[float] = []
    project = Path(shutil.copytree(PROJECT, tmp_path / "project"))
    conninfo = await _prepared(project)
    # What a stalled machine counts as a crash comes on top of two kills.
    with fleet_of(tmp_path / "fleet", None, WAYSTATION_MAX_CRASHES="50") as fleet:
        witness = Witness(conninfo, fleet.executions)
        node = fleet.dev(project)
        for kills in range(KILLS):
            await node.ready()
            if kills % 2 == 0:  # two kills for each batch: a run that is hit a third time would be poison
                async with client_of(node.url) as client:
                    given = {"steps": STEPS, "delay_s": 0.08}
                    runs += await submit_many(client, 2, "steps", given, durability="sync")
                    runs += await submit_many(client, 2, "steps", given, durability="async")
                    runs += await submit_many(client, 1, "nested", given, durability="sync")
            await asyncio.sleep(dice.uniform(0, 0.7))
            node.kill()
            killed_at = time.monotonic()
            node = fleet.dev(project, port=node.port)
            if kills % 2:
                await witness.until_final([run.run_id for run in runs], within_s=60)
                recovered_s.append(time.monotonic() - killed_at)
        run_ids = [run.run_id for run in runs]
        counted = await witness.check(run_ids)
        outputs = await witness.outputs(run_ids)
        node.terminate()
        assert await node.ended(within_s=60) == 0, node.log()
    assert [output["done"] for output in outputs] == [list(range(1, STEPS + 1))] * len(runs)
    assert counted.crashes > 0
    assert counted.repeated_steps <= 2 * counted.crashes
    say(f"{KILLS} kills of dev: {counted}; killed to all runs final: at most {max(recovered_s):.1f} s")


async def _prepared(project: Path) -> str:
    """The project's own Postgres, with the witness in it, stopped again."""
    postgres = await asyncio.to_thread(EmbeddedPostgres.start, project / ".waystation" / "postgres")
    await migrate(postgres.conninfo)
    await Witness(postgres.conninfo, project).install()
    await asyncio.to_thread(postgres.stop)
    return postgres.conninfo
