"""A thread's numbered events, read over broken connections, dead workers and an empty Redis: no gap, no duplicate."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from chaos.fleet import PATIENT, QUICK, Fleet, Node, fleet_of
from chaos.mortal import kill_one_that_works
from chaos.runs_api import client_of
from chaos.witness import Witness, say
from e2e.event_streams import Seen, command, follow
from services import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

READERS, RUNS = 6, 2
STEPS, TOKENS = 4, 20


@dataclass(slots=True)
class Reader:
    """Starts runs on a thread, and follows it over as many connections as it takes."""

    client: httpx.AsyncClient
    dice: random.Random
    thread_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    events: list[Seen] = field(default_factory=list[Seen])
    run_ids: list[str] = field(default_factory=list[str])
    connections: int = 0

    async def follow(self) -> None:
        given: dict[str, Any] = {"steps": STEPS, "delay_s": 0.02, "tokens": TOKENS, "done": []}
        for run in range(1, RUNS + 1):
            started = await command(self.client, self.thread_id, "run.start", assistant_id="streaming", input=given)
            self.run_ids.append(started["run_id"])
            given = {**given, "steps": STEPS * (run + 1)}
            deadline = time.monotonic() + 90
            while len(self.ends) < run:
                assert time.monotonic() < deadline, f"no end after {len(self.events)} events"
                await self._read_some(self.dice.randint(1, 40))

    async def _read_some(self, count: int) -> None:
        self.connections += 1
        since = self.events[-1].seq if self.events else 0
        have = len(self.ends)
        try:
            async for event in follow(self.client, self.thread_id, since=since):
                self.events.append(event)
                count -= 1
                if count == 0 or len(self.ends) > have:
                    return
        except (httpx.TransportError, AssertionError):
            await asyncio.sleep(0.05)

    @property
    def ends(self) -> list[Seen]:
        return [event for event in self.events if event.end]

    def attempts(self) -> int:
        """Asserts that nothing is missing, doubled or out of order; how many attempts the runs took."""
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1))
        assert len({event.data["event_id"] for event in self.events}) == len(self.events)
        assert [event.end for event in self.ends] == ["completed"] * RUNS
        seen: dict[int, list[int]] = {}
        for event in self.events:
            if event.name == "custom":
                seen.setdefault(event.body["step"], []).append(event.body["token"])
        assert sorted(seen) == list(range(1, STEPS * RUNS + 1))
        for tokens in seen.values():  # what was begun again is told from its beginning
            last = tokens[len(tokens) - 1 - tokens[::-1].index(0) :]
            assert last == list(range(TOKENS))
        return sum(1 for e in self.events if e.name == "lifecycle" and e.body["event"] == "running")


@dataclass(frozen=True, slots=True)
class Load:
    fleet: Fleet
    api: Node
    workers: list[Node]
    witness: Witness
    client: httpx.AsyncClient
    readers: list[Reader]
    following: list[asyncio.Task[None]]

    async def all_whole(self) -> int:
        """Wait for the ends, compare with what one uninterrupted reader gets; the attempts of all runs."""
        await asyncio.gather(*self.following)
        attempts = 0
        for reader in self.readers:
            attempts += reader.attempts()
            assert await self._whole(reader) == reader.events
        connections, events = sum(r.connections for r in self.readers), sum(len(r.events) for r in self.readers)
        counted = await self.witness.check([run_id for reader in self.readers for run_id in reader.run_ids])
        say(f"{events} events over {connections} connections, {attempts} attempts, {counted}")
        return attempts

    async def _whole(self, reader: Reader) -> list[Seen]:
        found: list[Seen] = []
        async with asyncio.timeout(60):
            async for event in follow(self.client, reader.thread_id):
                found.append(event)
                if len(found) == len(reader.events):
                    break
        return found


@asynccontextmanager
async def reading(directory: Path, database_uri: str, redis: Valkey | None, **settings: str) -> AsyncGenerator[Load]:
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
            following: list[Any] = [tasks.create_task(reader.follow()) for reader in readers]
            await witness.until_started(READERS)
            yield Load(fleet, api, workers, witness, client, readers, following)


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "postgres"])
async def test_disconnects_lose_nothing(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey], with_redis: bool
) -> None:
    async with reading(tmp_path, database_uri, make_redis() if with_redis else None) as load:
        assert await load.all_whole() == READERS * RUNS


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "postgres"])
async def test_a_killed_worker_leaves_the_numbers_going_on(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey], with_redis: bool
) -> None:
    async with reading(tmp_path, database_uri, make_redis() if with_redis else None, **QUICK) as load:
        await load.witness.until_started(2 * READERS)
        await kill_one_that_works(load.workers, load.witness)
        assert await load.all_whole() > READERS * RUNS


async def test_an_emptied_redis_leaves_no_gap(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    redis = make_redis()
    async with reading(tmp_path, database_uri, redis) as load:
        for started in range(READERS + 4, READERS * STEPS, 8):
            redis.flush()
            await load.witness.until_started(started)
        redis.kill()
        await load.witness.until_started(READERS * STEPS + 4)
        redis.resume()
        assert await load.all_whole() == READERS * RUNS


async def test_an_api_process_that_dies_costs_its_readers_a_reconnect(
    tmp_path: Path, database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    async with reading(tmp_path, database_uri, make_redis()) as load:
        await load.witness.until_started(3 * READERS)
        load.api.kill()
        await load.fleet.api("api-again", port=load.api.port).ready()
        assert await load.all_whole() == READERS * RUNS


async def test_a_poison_run_has_an_end_and_the_next_run_follows_it(tmp_path: Path, database_uri: str) -> None:
    with fleet_of(tmp_path, database_uri) as fleet:
        await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        async with client_of(api.url) as client, asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(_keep_alive(fleet.workers(1)))
            thread_id = str(uuid.uuid4())
            await command(client, thread_id, "run.start", assistant_id="hostile", input={"how": "os-exit"})
            told = await _until_ends(client, thread_id, 1)
            assert told[-1].body["event"] == "failed"
            assert "died each time" in told[-1].body["error"]
            assert (await client.get(f"/threads/{thread_id}")).json()["status"] == "error"
            given: dict[str, Any] = {"steps": 1, "delay_s": 0, "done": []}
            await command(client, thread_id, "run.start", assistant_id="steps", input=given)
            whole = await _until_ends(client, thread_id, 2)
            keeping.cancel()
    assert whole[: len(told)] == told
    numbers = [event.seq for event in whole]
    assert numbers == sorted(set(numbers))
    assert whole[-1].end == "completed"


@pytest.mark.parametrize("how", ["unserialisable", "circular", "deep", "odd-text", "raise-odd", "exit", "swallow"])
async def test_a_hostile_graph_ends_like_any_other(tmp_path: Path, database_uri: str, how: str) -> None:
    with fleet_of(tmp_path, database_uri) as fleet:
        await Witness(database_uri, fleet.executions).install()
        api = await fleet.api().ready()
        fleet.workers(1)
        async with client_of(api.url) as client:
            thread_id = str(uuid.uuid4())
            started = await command(client, thread_id, "run.start", assistant_id="hostile", input={"how": how})
            if how == "swallow":
                await _first(client, thread_id)
                await client.post(f"/threads/{thread_id}/runs/{started['run_id']}/cancel")
            told = await _until_ends(client, thread_id, 1)
            assert [event.seq for event in told] == list(range(1, len(told) + 1))
            thread = (await client.get(f"/threads/{thread_id}")).json()
            assert thread["status"] == {"completed": "idle", "failed": "error"}.get(str(told[-1].end), thread["status"])
            assert thread["status"] != "busy"


async def _until_ends(client: httpx.AsyncClient, thread_id: str, ends: int) -> list[Seen]:
    found: list[Seen] = []
    async with asyncio.timeout(120):
        async for event in follow(client, thread_id):
            found.append(event)
            ends -= event.end is not None
            if not ends:
                break
    return found


async def _first(client: httpx.AsyncClient, thread_id: str) -> None:
    async with asyncio.timeout(60):
        async for _ in follow(client, thread_id):
            return


async def _keep_alive(workers: list[Node]) -> None:
    """As an orchestrator does: whoever dies is started again."""
    while True:
        for number, worker in enumerate(workers):
            if not worker.is_alive:
                workers[number] = worker.again()
        await asyncio.sleep(0.05)
