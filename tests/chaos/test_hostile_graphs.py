"""Graphs that do what no graph should, beside healthy ones in the same process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from chaos.fleet import PATIENT, Fleet, Node, fleet_of
from chaos.runs_api import Accepted, body, client_of, joined, submit, submit_many
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

HEALTHY = {"steps": 5, "delay_s": 0.1}


@dataclass(frozen=True, slots=True)
class House:
    """One process with healthy runs under way."""

    fleet: Fleet
    node: Node
    witness: Witness
    client: httpx.AsyncClient
    healthy: list[Accepted]

    async def healthy_ones_succeed(self) -> None:
        for output in await asyncio.gather(*[joined(self.client, run) for run in self.healthy]):
            assert output["done"] == [1, 2, 3, 4, 5]
        assert self.node.is_alive, self.node.log()
        await self.witness.check([run.run_id for run in self.healthy])

    async def thread_is_usable(self, run: Accepted) -> None:
        answer = await self.client.post(
            f"/threads/{run.thread_id}/runs/wait", json=body("steps", {"steps": 1, "delay_s": 0, "done": []})
        )
        assert answer.status_code == 200, answer.text
        assert "__error__" not in answer.json(), answer.text

    async def status(self, run: Accepted) -> str:
        answer = await self.client.get(run.path)
        assert answer.status_code == 200, answer.text
        return answer.json()["status"]


@asynccontextmanager
async def house(directory: Path, database_uri: str, **settings: str) -> AsyncGenerator[House]:
    with fleet_of(directory, database_uri, **{**PATIENT, "N_JOBS_PER_WORKER": "20", **settings}) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        node = await fleet.alone().ready()
        async with client_of(node.url) as client:
            healthy = await submit_many(client, 4, "steps", HEALTHY)
            await witness.until_started(4)
            yield House(fleet, node, witness, client, healthy)


# None: an error, unless the environment can represent it after all.
KINDS = {
    "exit": "error",
    "exit-in-thread": "error",
    "keyboard": "error",
    "cancel-itself": "error",
    "memory-error": "error",
    "recurse": "error",
    "raise-odd": "error",
    "raise-wordless": "error",
    "unserialisable": "error",
    "circular": "error",
    "deep": None,
    "odd-text": None,
    "giant": "success",
    "fan-out": "success",
    "spin-in-thread": "success",
}


async def test_a_hostile_node_hurts_only_its_own_run(tmp_path: Path, database_uri: str) -> None:
    async with house(tmp_path, database_uri) as home:
        runs = {how: await submit(home.client, "hostile", {"how": how}) for how in KINDS}
        assert (await home.client.get("/ok")).status_code == 200
        await home.witness.until_final([run.run_id for run in runs.values()], within_s=90)
        ended = {how: await home.status(run) for how, run in runs.items()}
        assert ended == {how: expected or ended[how] for how, expected in KINDS.items()}
        counted = await home.witness.check([run.run_id for run in runs.values()], status=None)
        assert (counted.attempts, counted.crashes) == (len(KINDS), 0), "a run was tried again"
        assert (await home.client.post("/threads/search", json={"limit": 100})).status_code == 200
        await home.healthy_ones_succeed()
        for how, run in runs.items():
            for path in ("", "/state", "/history"):
                answer = await home.client.get(f"/threads/{run.thread_id}{path}")
                assert answer.status_code == 200, (how, path, answer.text)
            await home.thread_is_usable(run)


async def test_a_node_that_blocks_the_loop_past_its_lease_is_not_executed_twice(
    tmp_path: Path, database_uri: str
) -> None:
    async with house(tmp_path, database_uri, WAYSTATION_LEASE_S="5") as home:
        blocking = await submit(home.client, "hostile", {"how": "block", "s": 10.0})
        await _started(home, blocking)
        answers = 0
        while await home.status(blocking) not in ("success", "error"):
            assert (await home.client.get("/ok")).status_code == 200
            answers += 1
            await asyncio.sleep(0.05)
        assert await home.status(blocking) == "success"
        assert [e.attempt for e in home.witness.starts(blocking.run_id) if e.step == "block"] == [1]
        await home.healthy_ones_succeed()
        await home.thread_is_usable(blocking)
    assert answers > 10, "the API waited for a graph"


async def test_cancel_ends_a_node_that_never_yields_for_long(tmp_path: Path, database_uri: str) -> None:
    async with house(tmp_path, database_uri) as home:
        spinning = await submit(home.client, "hostile", {"how": "spin"})
        await _started(home, spinning)
        answer = await home.client.post(f"{spinning.path}/cancel", params={"wait": "true"})
        assert answer.status_code == 200, answer.text
        assert await home.status(spinning) == "interrupted"
        await home.healthy_ones_succeed()
        await home.thread_is_usable(spinning)


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_node_that_swallows_cancellation_is_left_behind_the_fence(
    tmp_path: Path, database_uri: str, action: str
) -> None:
    async with house(tmp_path, database_uri) as home:
        run = await submit(home.client, "hostile", {"how": "swallow", "s": 9.0})
        await _started(home, run)
        answer = await home.client.post(f"{run.path}/cancel", params={"wait": "true", "action": action})
        assert not _has_noted(home, run, "went on"), "the node was waited for"
        assert answer.status_code == 200, answer.text
        await home.thread_is_usable(run)
        before = await home.client.get(f"/threads/{run.thread_id}/state")
        await _noted(home, run, "went on")
        await home.healthy_ones_succeed()
        after = await home.client.get(f"/threads/{run.thread_id}/state")
        assert after.json()["checkpoint"] == before.json()["checkpoint"], "the abandoned node wrote"
        assert not [e for e in home.witness.starts(run.run_id) if e.step == "after"], "a step began after the cancel"
        if action == "interrupt":
            assert await home.status(run) == "interrupted"


async def test_blocking_runs_do_not_keep_others_from_being_cancelled_or_created(
    tmp_path: Path, database_uri: str
) -> None:
    async with house(tmp_path, database_uri) as home:
        given = {"how": "block", "s": 0.4}
        blocking = await submit_many(home.client, 5, "hostile", given)
        waiting = await submit(home.client, "steps", {"steps": 1000, "delay_s": 0.1})
        answer = await home.client.post(f"{waiting.path}/cancel", params={"wait": "true"})
        assert answer.status_code == 200, answer.text
        await home.witness.until_final([run.run_id for run in [*blocking, waiting]], within_s=90)
        assert await home.status(waiting) == "interrupted"
        assert {await home.status(run) for run in blocking} == {"success"}
        await home.healthy_ones_succeed()


async def test_a_hundred_hostile_runs_at_once(tmp_path: Path, database_uri: str) -> None:
    kinds = ["exit", "keyboard", "unserialisable", "cancel-itself", "raise-odd", "recurse", "raise-wordless"]
    async with house(tmp_path, database_uri) as home:
        given: list[dict[str, Any]] = [{"how": kinds[n % len(kinds)]} for n in range(100)]
        runs = await asyncio.gather(*[submit(home.client, "hostile", g, thread_id=str(uuid.uuid4())) for g in given])
        await home.witness.until_final([run.run_id for run in runs], within_s=90)
        counted = await home.witness.check([run.run_id for run in runs], status="error")
        await home.healthy_ones_succeed()
    say(f"hostile: {counted}")
    assert counted.crashes == 0


async def _started(home: House, run: Accepted) -> None:
    await _noted(home, run, "start")


async def _noted(home: House, run: Accepted, what: str) -> None:
    async with asyncio.timeout(60):
        while not _has_noted(home, run, what):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _has_noted(home: House, run: Accepted, what: str) -> bool:
    return any(e.run_id == run.run_id and e.what == what for e in home.witness.executions())
