"""Workers that die at chosen statements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from chaos.fleet import Fleet, Node
from chaos.statements import Loss, Moment, losing_proxy
from chaos.witness import Witness

MOMENTS: tuple[Moment, ...] = ("before it is sent", "after it is committed")

# Innocent runs die with their worker too. Short leases: each death costs one.
MORTAL = {
    "WAYSTATION_PREPARE": "false",
    "WAYSTATION_MAX_CRASHES": "50",
    "WAYSTATION_LEASE_S": "1",
    "WAYSTATION_RENEW_S": "0.3",
    "WAYSTATION_SWEEP_S": "0.25",
}


async def mortal_worker(stack: AsyncExitStack, fleet: Fleet, name: str, database_uri: str, losses: list[Loss]) -> None:
    """A worker that is killed at each loss, and started again."""
    current: list[Node] = []

    def die() -> None:
        current[-1].kill()
        current.append(current[-1].again())

    uri = await stack.enter_async_context(losing_proxy(database_uri, losses=losses, on_loss=die))
    current.append(fleet.worker(name, DATABASE_URI=uri))


async def kill_one_that_works(workers: Sequence[Node], witness: Witness) -> None:
    """Kill a worker that certainly holds runs at that moment: it is frozen when one looks."""
    deadline = time.monotonic() + 60
    while True:
        for worker in workers:
            worker.freeze()
            if await witness.held_by(worker.pid):
                worker.kill()
                return
            worker.thaw()
        assert time.monotonic() < deadline, "no worker held a run for 60 s"
        await asyncio.sleep(0.02)
