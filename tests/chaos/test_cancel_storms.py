"""Cancels at every moment of a run's life, by the hundred, and threads on which everybody interrupts everybody."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chaos.fleet import PATIENT, QUICK, Fleet, fleet_of
from chaos.runs_api import Accepted, body, client_of, submit
from chaos.witness import Witness, say

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True)
class Place:
    """An API process and its workers, and dice whose seed is told."""

    fleet: Fleet
    witness: Witness
    client: httpx.AsyncClient
    dice: random.Random

    async def all_right(self) -> None:
        await self.witness.check_statuses()
        await self.witness.check_fence()
        await self.witness.check_committed_steps()
        await self.witness.check_nothing_begins_after_the_end()
        assert self.fleet.nodes[0].is_alive

    async def thread_is_usable(self, thread_id: str) -> None:
        given = {"steps": 1, "delay_s": 0}
        answer = await self.client.post(f"/threads/{thread_id}/runs/wait", json=body("steps", given))
        assert answer.status_code == 200, answer.text
        assert "__error__" not in answer.json(), answer.text


@asynccontextmanager
async def place(directory: Path, database_uri: str, *, workers: int, **settings: str) -> AsyncGenerator[Place]:
    """`workers` 0: one process does everything."""
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    with fleet_of(directory, database_uri, **{**PATIENT, "N_JOBS_PER_WORKER": "25", **settings}) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        node = fleet.api() if workers else fleet.alone()
        fleet.workers(workers)
        await node.ready()
        async with client_of(node.url) as client:
            yield Place(fleet, witness, client, random.Random(seed))


@pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "two-workers"])
async def test_a_hundred_runs_cancelled_at_random_moments(tmp_path: Path, database_uri: str, workers: int) -> None:
    answers: Counter[int] = Counter()
    waits_s: list[float] = []

    async def one(at: Place, after_s: float, action: str, wait: bool, again: bool) -> Accepted:
        run = await submit(at.client, "steps", {"steps": 25, "delay_s": 0.06})
        await asyncio.sleep(after_s)
        for _ in range(1 + again):
            asked_at = time.monotonic()
            params = {"action": action, "wait": str(wait).lower()}
            answer = await at.client.post(f"{run.path}/cancel", params=params)
            answers[answer.status_code] += 1
            assert answer.status_code in (200, 202, 404), answer.text
            if wait and answer.status_code == 200:
                waits_s.append(time.monotonic() - asked_at)
                status = (await at.client.get(run.path)).json().get("status")
                assert status not in ("pending", "running"), "the answer came before the end"
        return run

    async with place(tmp_path, database_uri, workers=workers) as at:
        dice = at.dice
        first = await submit(at.client, "steps", {"steps": 1, "delay_s": 0.01})
        await at.witness.until_ended([first.run_id], within_s=60)  # somebody executes runs by now
        runs = await asyncio.gather(
            *[
                one(at, dice.uniform(0, 3), dice.choice(["interrupt", "rollback"]), dice.random() < 0.5, n % 5 == 0)
                for n in range(100)
            ]
        )
        ended = await at.witness.until_ended([run.run_id for run in runs], within_s=90)
        await at.all_right()
        await asyncio.gather(*[at.thread_is_usable(run.thread_id) for run in runs[:30]])
    waits_s.sort()
    p95_s = waits_s[int(len(waits_s) * 0.95)]
    say(f"{Counter(ended.values())}, answers {answers}, cancel?wait in the storm: p95 {p95_s * 1000:.0f} ms")


@pytest.mark.parametrize("workers", [0, 1], ids=["one-process", "a-worker"])
async def test_a_cancel_reaches_a_run_and_its_subgraph_at_once(tmp_path: Path, database_uri: str, workers: int) -> None:
    took_s: list[float] = []
    # Whoever does not hear of it looks after a minute, and a step is never over.
    async with place(tmp_path, database_uri, workers=workers, WAYSTATION_POLL_S="60") as at:
        for number in range(20):
            graph, action = ("steps", "nested")[number % 2], ("interrupt", "rollback")[number // 10]
            run = await submit(at.client, graph, {"steps": 2, "delay_s": 1000})
            while not at.witness.starts(run.run_id):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            asked_at = time.monotonic()
            async with asyncio.timeout(30):
                answer = await at.client.post(f"{run.path}/cancel", params={"wait": "true", "action": action})
            took_s.append(time.monotonic() - asked_at)
            assert answer.status_code == 200, answer.text
        await at.all_right()
    took_s.sort()
    say(f"cancel?wait on an idle server: p50 {took_s[9] * 1000:.0f} ms, p95 {took_s[18] * 1000:.0f} ms")


async def test_a_bulk_cancel_ends_everything_once(tmp_path: Path, database_uri: str) -> None:
    async with place(tmp_path, database_uri, workers=1) as at:
        given = {"steps": 1000, "delay_s": 0.05}
        runs = await asyncio.gather(*[submit(at.client, "steps", given) for _ in range(60)])
        await at.witness.until_started(25)
        both = await asyncio.gather(*[at.client.post("/runs/cancel", json={"status": "all"}) for _ in range(2)])
        assert {answer.status_code for answer in both} <= {204, 404}
        ended = await at.witness.until_ended([run.run_id for run in runs], within_s=60)
        assert set(ended.values()) == {"interrupted"}
        await at.all_right()


async def test_a_wish_to_stop_survives_the_death_of_the_worker(tmp_path: Path, database_uri: str) -> None:
    async with place(tmp_path, database_uri, workers=1, **QUICK) as at:
        run = await submit(at.client, "steps", {"steps": 1000, "delay_s": 0.05})
        await at.witness.until_started(3)
        worker = at.fleet.nodes[-1]
        worker.freeze()
        answer = await at.client.post(f"{run.path}/cancel")
        assert answer.status_code == 202
        worker.kill()
        at.fleet.worker("replacement")
        ended = await at.witness.until_ended([run.run_id], within_s=60)
        assert ended == {run.run_id: "interrupted"}
        await at.all_right()
        await at.thread_is_usable(run.thread_id)


@pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "two-workers"])
async def test_fifty_runs_of_one_thread_that_interrupt_each_other(
    tmp_path: Path, database_uri: str, workers: int
) -> None:
    thread_id = str(uuid.uuid4())
    refused = 0
    accepted: list[str] = []
    async with place(tmp_path, database_uri, workers=workers) as at:

        async def one(after_s: float, strategy: str) -> None:
            nonlocal refused
            await asyncio.sleep(after_s)
            given = {"steps": 10_000, "delay_s": 0.03}
            sent = body("steps", given, multitask_strategy=strategy, config={"recursion_limit": 4})
            answer = await at.client.post(f"/threads/{thread_id}/runs", json=sent)
            assert answer.status_code in (200, 409), answer.text
            if answer.status_code == 409:
                assert strategy == "reject"
                refused += 1
            else:
                accepted.append(answer.json()["run_id"])

        strategies = [at.dice.choice(["enqueue", "interrupt", "rollback", "reject"]) for _ in range(50)]
        await asyncio.gather(*[one(at.dice.uniform(0, 2), strategy) for strategy in strategies])
        ended = await at.witness.until_ended(accepted, within_s=90)
        await at.all_right()
        assert (await at.client.get(f"/threads/{thread_id}")).json()["status"] != "busy"
        state: dict[str, dict[str, list[int]]] = (await at.client.get(f"/threads/{thread_id}/state")).json()
        done = state["values"].get("done", []) if state["values"] else []
        assert done == list(range(1, len(done) + 1)), "a step is missing or there twice"
    say(f"{Counter(ended.values())}, {refused} refused, {len(done)} steps in the state")


async def test_two_hundred_runs_of_one_thread_are_executed_in_order(tmp_path: Path, database_uri: str) -> None:
    thread_id = str(uuid.uuid4())
    async with place(tmp_path, database_uri, workers=2) as at:
        began = time.monotonic()
        runs = [
            # Each run adds the one step that its predecessors have left, so that only their order gives this state.
            await submit(at.client, "steps", {"steps": number, "delay_s": 0}, thread_id=thread_id)
            for number in range(1, 201)
        ]
        run_ids = [run.run_id for run in runs]
        await at.witness.until_final(run_ids, within_s=90)
        took_s = time.monotonic() - began
        counted = await at.witness.check(run_ids)
        (values,) = {str(output["done"]) for output in await at.witness.outputs(run_ids)}
        assert values == str(list(range(1, 201)))
        assert [e.run_id for e in at.witness.executions() if e.what == "start"] == run_ids
        rows = await at.witness.ask("select count(distinct claimed_by) from run")
    say(f"200 runs on one thread over {rows[0][0]} workers in {took_s:.1f} s: {counted}")
