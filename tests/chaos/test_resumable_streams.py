"""A resumable stream that is read over broken connections, dead workers, dead API processes and an empty Redis."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chaos.fleet import PATIENT, QUICK, Fleet, Node, fleet_of
from chaos.mortal import kill_one_that_works
from chaos.runs_api import client_of
from chaos.streams import Reader, assert_whole, whole_stream
from chaos.witness import Witness, say
from services import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

READERS = 10
STEPS, TOKENS = 5, 25


@dataclass(frozen=True, slots=True)
class Readers:
    """A deployment with readers who keep losing their connections."""

    fleet: Fleet
    api: Node
    workers: list[Node]
    witness: Witness
    client: httpx.AsyncClient
    readers: list[Reader]
    following: list[asyncio.Task[object]]

    async def all_whole(self) -> list[int]:
        """Wait for the ends, compare with what one uninterrupted reader gets; the attempts of each run."""
        await asyncio.gather(*self.following)
        attempts: list[int] = []
        for reader in self.readers:
            assert reader.run is not None
            attempts.append(assert_whole(reader.events, steps=STEPS, tokens=TOKENS))
            assert reader.events == await whole_stream(self.client, reader.run)
        run_ids = [reader.run.run_id for reader in self.readers if reader.run]
        counted = await self.witness.check(run_ids)
        events, connections = sum(len(r.events) for r in self.readers), sum(r.connections for r in self.readers)
        say(f"{events} events over {connections} connections, {sum(attempts)} attempts, {counted}")
        assert connections > 3 * READERS
        return attempts


@asynccontextmanager
async def reading(
    directory: Path, database_uri: str, redis: Valkey | None, *, delay_s: float = 0.02, **settings: str
) -> AsyncGenerator[Readers]:
    """From the moment in which all runs are under way."""
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    redis_url = redis.url if redis else None
    settings = {**PATIENT, "RESUMABLE_STREAM_TTL_SECONDS": "600", **settings}
    with fleet_of(directory, database_uri, redis_url=redis_url, **settings) as fleet:
        witness = await Witness(database_uri, fleet.executions).install()
        api, workers = fleet.api(), fleet.workers(2)
        await api.ready()
        async with client_of(api.url) as client, asyncio.TaskGroup() as tasks:
            readers = [Reader(client, random.Random(seed + n)) for n in range(READERS)]
            given = {"steps": STEPS, "delay_s": delay_s, "tokens": TOKENS}
            following: list[asyncio.Task[object]] = [
                tasks.create_task(reader.follow(str(uuid.uuid4()), "tokens", given, patience=30)) for reader in readers
            ]
            await witness.until_started(READERS)
            yield Readers(fleet, api, workers, witness, client, readers, following)


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "postgres"])
async def test_disconnects_lose_nothing(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey], with_redis: bool
) -> None:
    async with reading(tmp_path, database_uri, make_redis() if with_redis else None) as load:
        assert set(await load.all_whole()) == {1}


async def test_a_killed_worker_leaves_no_gap_and_its_step_is_marked(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    async with reading(tmp_path, database_uri, make_redis(), delay_s=0.06, **QUICK) as load:
        await load.witness.until_started(2 * READERS)
        await kill_one_that_works(load.workers, load.witness)
        attempts = await load.all_whole()
        assert sum(attempts) > READERS


async def test_an_emptied_redis_leaves_no_gap(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    redis = make_redis()
    async with reading(tmp_path, database_uri, redis) as load:
        for started in range(READERS + 5, READERS * STEPS, 8):
            redis.flush()
            await load.witness.until_started(started)
        assert set(await load.all_whole()) == {1}


async def test_a_lost_redis_leaves_no_gap(tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]) -> None:
    redis = make_redis()
    async with reading(tmp_path, database_uri, redis) as load:
        await load.witness.until_started(2 * READERS)
        redis.kill()
        await load.witness.until_started(3 * READERS)
        redis.resume()
        assert set(await load.all_whole()) == {1}


@pytest.mark.parametrize("gently", [True, False], ids=["SIGTERM", "SIGKILL"])
async def test_an_api_process_that_goes_costs_its_readers_a_reconnect(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey], gently: bool
) -> None:
    async with reading(tmp_path, database_uri, make_redis()) as load:
        await load.witness.until_started(2 * READERS)
        if gently:
            load.api.terminate()
            assert await load.api.ended(within_s=60) == 0, load.api.log()
        else:
            load.api.kill()
        await load.fleet.api("api-again", port=load.api.port).ready()
        assert set(await load.all_whole()) == {1}
