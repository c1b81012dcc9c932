"""Every statement of a run, one after the other, is lost: before it is sent, and after it is committed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from chaos.fleet import PATIENT, fleet_of
from chaos.runs_api import body, client_of, joined, submit
from chaos.statements import Loss, Moment, losing_proxy
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

MOMENTS: tuple[Moment, ...] = ("before it is sent", "after it is committed")
STEPS = 3
# More than any of the two ways to create a run makes; the surplus loses nothing.
STATEMENTS = 40


async def test_a_run_survives_the_loss_of_any_one_of_its_statements(tmp_path: Path, database_uri: str) -> None:
    losses: list[Loss] = []
    async with losing_proxy(database_uri, losses=losses) as through_proxy:
        settings = {**PATIENT, "WAYSTATION_PREPARE": "false", "N_JOBS_PER_WORKER": "20"}
        with fleet_of(tmp_path, through_proxy, **settings) as fleet:
            witness = await Witness(database_uri, fleet.executions).install()
            node = await fleet.alone().ready()
            async with client_of(node.url) as client:
                turns = asyncio.Semaphore(8)
                await asyncio.gather(
                    *[
                        _one(script, client, losses, turns, Loss(str(uuid.uuid4()), nth, moment))
                        for script in (_idempotent, _waiting)
                        for moment in MOMENTS
                        for nth in range(1, STATEMENTS + 1)
                    ]
                )
            rows = await witness.ask("select run_id::text, thread_id::text from run")
            await witness.until_final([run for run, _ in rows], within_s=90)
            counted = await witness.check([run for run, _ in rows])
            values = await witness.outputs([run for run, _ in rows])
            assert node.is_alive, node.log()
    lost = [loss for loss in losses if loss.lost]
    kinds = {(loss.moment, loss.lost) for loss in lost}
    say(f"{len(lost)} statements lost, {len(kinds)} different: {counted}")
    assert len(lost) > STATEMENTS, "the proxy lost nearly nothing"
    assert all(value["done"] == list(range(1, STEPS + 1)) for value in values)
    assert len({thread for _, thread in rows}) == len(rows), "a run was created twice"


Script = Callable[[httpx.AsyncClient, str], Awaitable[None]]


async def _one(
    script: Script, client: httpx.AsyncClient, losses: list[Loss], turns: asyncio.Semaphore, loss: Loss
) -> None:
    async with turns:
        losses.append(loss)
        await script(client, loss.thread_id)


async def _idempotent(client: httpx.AsyncClient, thread_id: str) -> None:
    """A client that repeats what failed: there must be one run, whatever was lost."""
    given = {"steps": STEPS, "delay_s": 0.01}
    run = await submit(client, "steps", given, thread_id=thread_id, durability="sync")
    assert (await joined(client, run))["done"] == list(range(1, STEPS + 1))


async def _waiting(client: httpx.AsyncClient, thread_id: str) -> None:
    """A client that does not repeat: it gets the output, or an error and then perhaps no run."""
    sent = body("steps", {"steps": STEPS, "delay_s": 0.01}, stream_resumable=True)
    answer = await client.post(f"/threads/{thread_id}/runs/wait", json=sent)
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 200:
        assert answer.json()["done"] == list(range(1, STEPS + 1))
