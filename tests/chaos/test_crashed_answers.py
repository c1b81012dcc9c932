"""A worker dies while it executes the answer to an interrupt: the answer counts once, and for its own question."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from chaos.fleet import fleet_of
from chaos.mortal import MOMENTS, MORTAL, mortal_worker
from chaos.runs_api import Accepted, client_of, joined, submit
from chaos.statements import Loss
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

STATEMENTS = 8


async def test_an_answer_is_given_to_its_own_question_only(tmp_path: Path, database_uri: str) -> None:
    losses: list[Loss] = []
    with fleet_of(tmp_path, database_uri, **MORTAL) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(client_of(api.url))
            for number in range(3):
                await mortal_worker(stack, fleet, f"worker-{number}", database_uri, losses)
            turns = asyncio.Semaphore(5)
            runs = await asyncio.gather(
                *[
                    _conversation(client, turns, losses, Loss(str(uuid.uuid4()), nth, moment))
                    for moment in MOMENTS
                    for nth in range(1, STATEMENTS + 1)
                ]
            )
        counted = await witness.check([run.run_id for three in runs for run in three])
        acted = [e.run_id for e in witness.executions() if e.what == "start"]
    say(f"{sum(loss.lost is not None for loss in losses)} deaths: {counted}")
    assert set(acted) == {last.run_id for _, _, last in runs}, "somebody acted without both answers"


async def _conversation(
    client: httpx.AsyncClient, turns: asyncio.Semaphore, losses: list[Loss], loss: Loss
) -> tuple[Accepted, Accepted, Accepted]:
    async with turns:
        first = await _say(client, loss.thread_id, {})
        assert await _asked(client, first) == "one"
        losses.append(loss)
        second = await _say(client, loss.thread_id, None, command={"resume": "A"})
        assert await _asked(client, second) == "two", "the answer to the first question was taken for the second"
        third = await _say(client, loss.thread_id, None, command={"resume": "B"})
        assert (await joined(client, third))["answers"] == ["A", "B"]
        return first, second, third


async def _say(client: httpx.AsyncClient, thread_id: str, given: dict[str, Any] | None, **more: Any) -> Accepted:
    return await submit(client, "asking", given, thread_id=thread_id, durability="sync", **more)


async def _asked(client: httpx.AsyncClient, run: Accepted) -> str:
    await joined(client, run)
    state = (await client.get(f"/threads/{run.thread_id}/state")).json()
    (question,) = [interrupt["value"] for task in state["tasks"] for interrupt in task["interrupts"]]
    return question
