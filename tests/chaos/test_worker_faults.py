"""One API process, two workers, Redis and Postgres, fifty runs at once, and one thing after the other taken away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chaos.fleet import PATIENT, QUICK, Fleet, Node, fleet_of
from chaos.runs_api import Accepted, body, client_of, joined, submit, submit_many
from chaos.witness import Counted, Witness, say
from services import Valkey
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

RUNS = 50
STEPS = 8
OUTPUT = list(range(1, STEPS + 1))


@dataclass(frozen=True, slots=True)
class Load:
    """A deployment with fifty runs under way: half of them in the background, half with a client that waits."""

    fleet: Fleet
    api: Node
    workers: list[Node]
    witness: Witness
    client: httpx.AsyncClient
    submitted: list[Accepted]
    waiting: list[asyncio.Task[httpx.Response]]

    async def all_right(self, *, status: str = "success") -> Counted:
        """Wait until everything is answered and final, then check what no fault may break."""
        outputs = await asyncio.gather(*[joined(self.client, run) for run in self.submitted])
        for answer in await asyncio.gather(*self.waiting):
            assert answer.status_code == 200, answer.text
            outputs.append(answer.json())
        assert [output["done"] for output in outputs] == [OUTPUT] * RUNS
        rows = await self.witness.ask("select run_id::text from run")
        run_ids = [row[0] for row in rows]
        assert len(run_ids) == RUNS
        await self.witness.until_final(run_ids, within_s=90)
        counted = await self.witness.check(run_ids, status=status)
        values = await self.witness.outputs(run_ids)
        assert [value["done"] for value in values] == [OUTPUT] * RUNS
        assert self.api.is_alive, self.api.log()
        return counted


@asynccontextmanager
async def under_load(
    directory: Path, database_uri: str, redis: Valkey | None, *, delay_s: float = 0.4, patient: bool = False
) -> AsyncGenerator[Load]:
    """The deployment, from the moment in which both workers have runs. `patient`: nobody is going to die."""
    redis_url = redis.url if redis else None
    settings = {**(PATIENT if patient else QUICK), "N_JOBS_PER_WORKER": "30"}
    with fleet_of(directory, database_uri, redis_url=redis_url, **settings) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api, workers = fleet.api(), fleet.workers(2)
        for node in (api, *workers):
            await node.ready()
        async with client_of(api.url) as client, asyncio.TaskGroup() as tasks:
            given = {"steps": STEPS, "delay_s": delay_s}
            waiting = [tasks.create_task(_wait(client, given, n)) for n in range(RUNS // 2)]
            submitted = await submit_many(client, RUNS // 2, "steps", given, durability="sync")
            await witness.until_claimed_by([worker.pid for worker in workers])
            await witness.until_started(RUNS)
            yield Load(fleet, api, workers, witness, client, submitted, waiting)


async def _wait(client: httpx.AsyncClient, given: dict[str, float], number: int) -> httpx.Response:
    durability = "sync" if number % 2 else "async"
    return await client.post("/runs/wait", json=body("steps", given, durability=durability, on_completion="keep"))


async def test_a_killed_workers_runs_go_on_elsewhere(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    async with under_load(tmp_path, database_uri, make_redis(), delay_s=0.8) as load:
        load.workers[0].kill()
        load.fleet.worker("replacement")
        counted = await load.all_right()
    say(f"kill -9: {counted}")
    assert counted.crashes > 0
    assert counted.repeated_steps <= 2 * counted.crashes


async def test_a_worker_that_wakes_after_its_lease_writes_nothing(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    async with under_load(tmp_path, database_uri, make_redis(), delay_s=0.8) as load:
        frozen = load.workers[0]
        frozen.freeze()
        held = await load.witness.held_by(frozen.pid)
        assert held
        await load.witness.until_taken_over(held, within_s=60)
        frozen.thaw()
        counted = await load.all_right()
        assert frozen.is_alive, frozen.log()
    say(f"SIGSTOP: {counted}")
    assert counted.crashes >= len(held)


async def test_a_rolling_restart_fails_nothing_and_repeats_nothing(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    async with under_load(tmp_path, database_uri, make_redis(), patient=True) as load:
        for number, worker in enumerate(load.workers):
            load.fleet.worker(f"successor-{number}")
            worker.terminate()
            assert await worker.ended(within_s=60) == 0, worker.log()
        counted = await load.all_right()
    say(f"SIGTERM: {counted}")
    assert counted.attempts > RUNS
    assert counted.crashes == 0
    assert counted.repeated_steps == 0


async def test_a_step_longer_than_the_grace_period_is_handed_over_without_counting_a_crash(
    tmp_path: Path, database_uri: str
) -> None:
    with fleet_of(tmp_path, database_uri, **PATIENT, BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="2") as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api, worker = await fleet.api().ready(), await fleet.worker("worker-0").ready()
        async with client_of(api.url) as client:
            runs = await submit_many(client, 5, "steps", {"steps": 2, "delay_s": 8}, durability="sync")
            await witness.until_started(5)
            fleet.worker("successor")
            worker.terminate()
            assert await worker.ended(within_s=60) == 0, worker.log()
            await witness.until_final([run.run_id for run in runs], within_s=90)
            counted = await witness.check([run.run_id for run in runs])
    say(f"SIGTERM within a step of 8 s: {counted}")
    assert (counted.crashes, counted.attempts, counted.repeated_steps) == (0, 10, 5)


async def test_a_worker_that_is_stopped_while_it_starts_hands_over_what_it_has_claimed(
    tmp_path: Path, database_uri: str
) -> None:
    with fleet_of(tmp_path, database_uri, **PATIENT) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with client_of(api.url) as client:
            runs = await submit_many(client, 5, "steps", {"steps": 2, "delay_s": 1}, durability="sync")
            worker = fleet.worker("worker-0")
            await witness.until_started(1)
            worker.terminate()
            assert await worker.ended(within_s=60) == 0, worker.log()
            fleet.worker("successor")
            await witness.until_final([run.run_id for run in runs], within_s=90)
            counted = await witness.check([run.run_id for run in runs])
    assert counted.crashes == 0


async def test_with_the_default_leases_a_killed_workers_run_goes_on_by_itself(
    tmp_path: Path, database_uri: str
) -> None:
    defaults = dict.fromkeys(QUICK, "")
    with fleet_of(tmp_path, database_uri, **defaults) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api, worker = await fleet.api().ready(), fleet.worker("worker-0")
        async with client_of(api.url) as client:
            run = await submit(client, "steps", {"steps": 4, "delay_s": 0.5}, durability="sync")
            await witness.until_started(2)
            fleet.worker("successor")
            worker.kill()
            killed_at = time.monotonic()
            assert (await joined(client, run))["done"] == [1, 2, 3, 4]
            recovered_s = time.monotonic() - killed_at
            counted = await witness.check([run.run_id])
    say(f"killed with default leases: finished {recovered_s:.1f} s later; {counted}")
    assert counted.repeated_steps <= 1


async def test_flushing_redis_costs_nothing(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    redis = make_redis()
    async with under_load(tmp_path, database_uri, redis, patient=True) as load:
        for started in range(2 * RUNS, RUNS * STEPS, 2 * RUNS):
            redis.flush()
            await load.witness.until_started(started)
        counted = await load.all_right()
    say(f"flushall: {counted}")
    assert (counted.crashes, counted.repeated_steps, counted.attempts) == (0, 0, RUNS)


async def test_runs_and_waiters_go_on_while_redis_is_down_for_20_s(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    redis = make_redis()
    async with under_load(tmp_path, database_uri, redis, patient=True) as load:
        redis.kill()
        down_at = time.monotonic()
        counted = await load.all_right()
        run = await submit(load.client, "steps", {"steps": 2, "delay_s": 0.1})
        assert (await joined(load.client, run))["done"] == [1, 2]
        await asyncio.sleep(max(0.0, down_at + 20 - time.monotonic()))
        redis.resume()
        run = await submit(load.client, "steps", {"steps": 2, "delay_s": 0.1})
        assert (await joined(load.client, run))["done"] == [1, 2]
        assert all(node.is_alive for node in load.fleet.nodes)
    say(f"Redis down: {counted}")
    assert (counted.crashes, counted.repeated_steps, counted.attempts) == (0, 0, RUNS)


async def test_runs_go_on_while_redis_hangs(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    redis = make_redis()
    async with under_load(tmp_path, database_uri, redis, patient=True) as load:
        redis.pause()
        try:
            counted = await load.all_right()
        finally:
            redis.unpause()
    say(f"Redis hangs: {counted}")
    assert (counted.crashes, counted.repeated_steps) == (0, 0)


async def test_an_immediate_restart_of_postgres_ends_no_run(
    tmp_path: Path, make_postgres: Callable[[], EmbeddedPostgres], make_redis: Callable[[], Valkey]
) -> None:
    postgres = await _migrated(make_postgres)
    async with under_load(tmp_path / "fleet", postgres.conninfo, make_redis()) as load:
        for _ in range(2):
            await asyncio.to_thread(postgres.restart_immediate)
            await asyncio.sleep(0.5)
        counted = await load.all_right()
        assert all(node.is_alive for node in load.fleet.nodes)
        # How far the others run ahead of their checkpoints is a matter of how long Postgres takes.
        durable = [run.run_id for run in load.submitted]
        rows = await load.witness.ask("select sum(attempt - 1)::int from run where run_id = any(%s::uuid[])", durable)
        begun = sum(len(load.witness.starts(run)) for run in durable)
    say(f"Postgres restarted twice: {counted}")
    assert begun - len(durable) * STEPS <= rows[0][0]


async def test_postgres_may_be_away_for_8_s(
    tmp_path: Path, make_postgres: Callable[[], EmbeddedPostgres], make_redis: Callable[[], Valkey]
) -> None:
    postgres = await _migrated(make_postgres)
    async with under_load(tmp_path / "fleet", postgres.conninfo, make_redis()) as load:
        await asyncio.to_thread(postgres.halt, immediate=True)
        await asyncio.sleep(8)
        await asyncio.to_thread(postgres.revive)
        back_at = time.monotonic()
        run = await submit(load.client, "steps", {"steps": 1, "delay_s": 0})
        assert (await joined(load.client, run))["done"] == [1]
        new_run_s = time.monotonic() - back_at
        await load.witness.until_final([run.run_id], within_s=60)
        await load.witness.ask("delete from run where run_id = %s::uuid returning 1", run.run_id)
        counted = await load.all_right()
        assert all(node.is_alive for node in load.fleet.nodes)
    say(f"Postgres down 8 s: {counted}; a new run after its return: {new_run_s:.2f} s")


async def _migrated(make_postgres: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
    postgres = await asyncio.to_thread(make_postgres)
    await migrate(postgres.conninfo)
    return postgres
