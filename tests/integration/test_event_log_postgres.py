"""The event log where Postgres has the last word: lost ends, lost acknowledgements, restarts, retention."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest

from event_logs import NEEDS, Mode, Run, Stage, open_stage, read_all, take, within
from waystation.events import BEGINNING, End, Event, EventId
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.errors import Fenced
from waystation_db.events import Chunk, Position, RunChunks, append_chunks, delete_expired, read_chunks
from waystation_db.migrate import migrate
from waystation_db.pool import Database
from waystation_db.rows import RunKey
from waystation_db.sql import load

pytestmark = pytest.mark.anyio

ERROR = {"error": "WorkerLost", "message": "gone"}


@pytest.fixture(params=["process", "redis", "postgres"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param


@pytest.fixture
def addresses(mode: Mode, request: pytest.FixtureRequest) -> dict[str, str]:
    return {name: request.getfixturevalue(name) for name in NEEDS[mode]}


@pytest.fixture
async def stage(mode: Mode, addresses: dict[str, str]) -> AsyncIterator[Stage]:
    async with open_stage(mode, **addresses) as stage:
        yield stage


@pytest.fixture
async def run(db: Database) -> Run:
    return await Run(db, True).insert()


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_reader_ends_although_the_end_was_lost(stage: Stage, resumable: bool) -> None:
    run = await stage.run(resumable=resumable)
    reading = stage.read(run)
    written = run.events(2)
    await stage.append(run, written)
    assert await take(reading, 2) == written
    await run.finish()

    assert await read_all(reading) == ([], End("success"))


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_reader_ends_when_the_row_is_gone(stage: Stage, resumable: bool) -> None:
    run = await stage.run(resumable=resumable)
    reading = stage.read(run)
    await stage.append(run, run.events(1))
    await take(reading, 1)
    await run.delete()

    assert await read_all(reading) == ([], End(None))


@pytest.mark.parametrize("resumable", [False, True])
async def test_an_error_that_died_with_its_worker_is_made_up_for(stage: Stage, resumable: bool) -> None:
    run = await stage.run(resumable=resumable)
    reading = stage.read(run)
    await stage.append(run, run.events(2))
    await take(reading, 2)
    await run.finish("error", ERROR)

    (error,), end = await read_all(reading)
    assert (error.name, error.data) == ("error", b'{"error":"WorkerLost","message":"gone"}')
    assert end == End("error", None, ERROR)
    # A client that had it does not get it again, and one that did not gets the same.
    assert (await read_all(stage.read(run, after=error.id)))[0] == []
    if resumable:
        assert (await read_all(stage.read(run, after=EventId(run.epoch_ms, 0))))[0][1:] == [error]


async def test_a_resumable_stream_survives_the_whole_process(database_uri: str, mode: Mode, addresses: dict[str, str]):
    async with Database(database_uri) as db:
        run = await Run(db, True).insert()
        written: list[Event] = []
        for _ in range(3):
            async with open_stage(mode, **addresses) as stage:
                batch = run.events(4)
                await stage.append(run, batch)
                written += batch
        async with open_stage(mode, **addresses) as stage:
            reading = stage.read(run, after=written[1].id)
            assert await take(reading, 10) == written[2:]
            await stage.append(run, last := run.events(1))
            assert await take(reading, 1) == last


async def test_an_append_whose_answer_was_lost_is_not_doubled(db: Database, run: Run) -> None:
    item = RunChunks(run.key, 1, [Chunk(run.epoch_ms, 0, 1, b"x")])
    async with db.connection() as conn:
        assert await append_chunks(conn, [item], notify=False) == [True]
        assert await append_chunks(conn, [item], notify=False) == [True]
        (found,) = await read_chunks(conn, [Position(run.key, 0, -1)], max_chunks=10, max_bytes=1000)

    assert found.chunks == item.chunks


@pytest.mark.parametrize("status", ["pending", "success"])
async def test_an_attempt_writes_only_while_it_runs(stage: Stage, status: str) -> None:
    run = await stage.run(resumable=True)
    if status == "pending":
        await run.sweep()
    else:
        await run.finish(status)

    with pytest.raises(Fenced):
        await stage.append(run, run.events(1))


async def test_a_run_that_may_not_write_does_not_hinder_its_neighbours(stage: Stage) -> None:
    good, over = await stage.run(resumable=True), await stage.run(resumable=True)
    await over.finish()
    written = good.events(1)
    outcomes = await asyncio.gather(
        stage.append(over, over.events(1)), stage.append(good, written), return_exceptions=True
    )

    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1] is None
    assert await take(stage.read(good), 1) == written


async def test_a_reader_with_an_impossible_id_does_not_hinder_its_neighbours(stage: Stage) -> None:
    good = await stage.run(resumable=True)
    written = good.events(1)
    await stage.append(good, written)
    bad = stage.reader.read(RunKey("default", "no uuid", "nor this"), after=BEGINNING, resumable=True)
    outcomes = await asyncio.gather(take(bad, 1), take(stage.read(good), 1), return_exceptions=True)

    assert isinstance(outcomes[0], Exception)
    assert outcomes[1] == written


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_crash_of_postgres_neither_loses_nor_doubles_an_event(
    make_postgres: Callable[[], EmbeddedPostgres], redis_url: str, mode: Mode, resumable: bool
) -> None:
    server = make_postgres()
    await migrate(server.conninfo)
    addresses = {"database_uri": server.conninfo, "redis_url": redis_url}
    async with open_stage(mode, **{name: addresses[name] for name in NEEDS[mode]}) as stage:
        run = await stage.run(resumable=resumable)
        reading = asyncio.ensure_future(read_all(stage.read(run)))
        written: list[Event] = []
        crash: asyncio.Future[None] | None = None
        for number in range(40):
            batch = run.events(random.randint(1, 4))
            written += batch
            await within(stage.append(run, batch))
            if number == 10:
                crash = asyncio.ensure_future(asyncio.to_thread(server.restart_immediate))
        assert crash is not None
        await crash
        await stage.end(run)

        assert (await reading)[0] == written


@pytest.mark.parametrize("mode", ["redis", "postgres"])
async def test_expired_events_are_gone_and_the_end_is_not(stage: Stage) -> None:
    ended, live = await stage.run(resumable=True), await stage.run(resumable=True)
    for run in (ended, live):
        await stage.append(run, run.events(1))
    await ended.finish()
    assert stage.db is not None
    async with stage.db.connection() as conn:
        assert await delete_expired(conn, ttl_s=3600) == 0
        assert await delete_expired(conn, ttl_s=0) == 1

    assert await read_all(stage.read(ended)) == ([], End("success"))
    assert len(await take(stage.read(live), 1)) == 1


async def test_events_of_deleted_runs_expire(db: Database, run: Run) -> None:
    async with db.connection() as conn:
        await append_chunks(conn, [RunChunks(run.key, 1, [Chunk(run.epoch_ms, 0, 0, b"x")])], notify=False)
        await run.delete()
        assert await delete_expired(conn, ttl_s=0) == 1


async def test_reading_and_polling_use_the_key_of_the_chunks(db: Database, run: Run) -> None:
    async with db.connection() as conn:
        await conn.execute(
            "insert into event_chunk select 'default', gen_random_uuid(), gen_random_uuid(), 1, n % 10, n % 10, 1, 'x' "
            "from generate_series(1, 30000) n"
        )
        await conn.execute("analyze event_chunk")
        params = {
            "tenant_ids": ["default"],
            "thread_ids": [run.key.thread_id],
            "run_ids": [run.key.run_id],
            "epochs": [1],
            "counters": [5],
            "chunks": 64,
            "bytes": 1000,
        }
        for name in ("read_chunks", "changed_runs"):
            rows = await (await conn.execute(f"explain {load('events')[name]}", params)).fetchall()
            plan = "\n".join(row[0] for row in rows)
            assert "event_chunk_pkey" in plan, plan
            assert "Seq Scan on event_chunk" not in plan, plan


async def test_an_idle_reader_takes_little_memory(stage: Stage) -> None:
    run = await stage.run(resumable=False)
    first = stage.read(run)
    await stage.append(run, run.events(1))
    await take(first, 1)
    keys = [RunKey("default", run.key.thread_id, run.key.run_id[:-4] + f"{n:04x}") for n in range(1000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        readings = [stage.reader.read(key, after=BEGINNING, resumable=False) for key in keys]
        waiting = [asyncio.ensure_future(anext(reading)) for reading in readings]
        async with asyncio.timeout(60):
            while stage.reader.readers < 1001:  # noqa: ASYNC110  # a reader does not announce itself
                await asyncio.sleep(0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    await stage.reader.close()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert taken / 1000 < 16 * 1024
