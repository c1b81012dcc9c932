"""How threads end: by a client's wish, by their TTL, or because a stateless run is done with them."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import psycopg
import pytest

from waystation_db import thread_removal, threads
from waystation_db.pool import Database
from waystation_db.threads import Conn, Ttl

pytestmark = pytest.mark.anyio

T = "default"
TRACES = ("run", "event_chunk", "checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def make(conn: Conn, *, ttl: Ttl | None = None, metadata: str = "{}") -> str:
    thread_id = str(uuid.uuid4())
    assert await threads.create(conn, T, thread_id, metadata=metadata, ttl=ttl)
    return thread_id


async def add_run(conn: Conn, thread_id: str, status: str) -> str:
    run_id = str(uuid.uuid4())
    await conn.execute(
        "insert into run (thread_id, run_id, assistant_id, graph_id, status, kwargs, lease_expires_at, ended_at)"
        " values (%(t)s, %(r)s, gen_random_uuid(), 'g', %(s)s, '{}',"
        " case when %(s)s = 'running' then now() end, case when %(s)s = 'success' then now() end)",
        {"t": thread_id, "r": run_id, "s": status},
    )
    if status != "success":
        await conn.execute(
            "update thread set status = 'busy', active_runs = active_runs + 1 where thread_id = %s", [thread_id]
        )
    return run_id


async def leave_traces(conn: Conn, thread_id: str, run_id: str) -> None:
    ids = {"t": thread_id, "r": run_id}
    await conn.execute(
        "insert into event_chunk (thread_id, run_id, epoch_ms, first_counter, last_counter, attempt, payload)"
        " values (%(t)s, %(r)s, 1, 0, 0, 1, '')",
        ids,
    )
    await conn.execute("insert into checkpoints (thread_id, checkpoint_id, checkpoint) values (%(t)s, 'c', '{}')", ids)
    await conn.execute(
        "insert into checkpoint_blobs (thread_id, channel, version, type) values (%(t)s, 'ch', '1', 'x')", ids
    )
    await conn.execute(
        "insert into checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)"
        " values (%(t)s, 'c', 'task', 0, 'ch', '')",
        ids,
    )


async def traces(conn: Conn) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table in TRACES:
        cur = await conn.execute(f"select distinct thread_id::text from {table}")  # type: ignore[arg-type]: our own names
        found[table] = [row[0] for row in await cur.fetchall()]
    return found


async def exists(conn: Conn, thread_id: str) -> bool:
    return await threads.get(conn, T, thread_id) is not None


async def age(conn: Conn, thread_id: str) -> None:
    await conn.execute("update thread set expires_at = now() - interval '1 s' where thread_id = %s", [thread_id])


async def test_delete_takes_every_trace_and_spares_the_neighbour(db: Database) -> None:
    async with db.connection() as conn:
        gone, stays = await make(conn), await make(conn)
        for thread_id in (gone, stays):
            await leave_traces(conn, thread_id, await add_run(conn, thread_id, "success"))
        async with conn.transaction():
            deleted = await thread_removal.delete(conn, T, [gone, str(uuid.uuid4())])
        assert [d.thread_id for d in deleted] == [gone]
        assert await traces(conn) == {table: [stays] for table in TRACES}
        assert not await exists(conn, gone)
        assert await exists(conn, stays)


async def test_delete_of_a_busy_thread_names_its_runs_and_tells_the_worker(db: Database) -> None:
    # Not one of the pool's connections: those let notifications go.
    direct = await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True)
    async with db.connection() as conn, direct as listening:
        await listening.execute("listen ws_cancel")
        thread_id = await make(conn)
        ended, running, pending = [await add_run(conn, thread_id, s) for s in ("success", "running", "pending")]
        async with conn.transaction():
            (deleted,) = await thread_removal.delete(conn, T, [thread_id])
        assert {key.run_id for key in deleted.active_runs} == {running, pending}
        assert [key.run_id for key in deleted.ended_runs] == [ended]
        told = [json.loads(n.payload) async for n in listening.notifies(timeout=60, stop_after=1)]
    assert [(n["tenant_id"], n["thread_id"], n["run_id"]) for n in told] == [(T, thread_id, running)]


async def test_delete_leaves_what_the_caller_cannot_see(db: Database) -> None:
    async with db.connection() as conn:
        mine = await make(conn, metadata='{"owner": "me"}')
        async with conn.transaction():
            assert await thread_removal.delete(conn, "other", [mine]) == []
            assert await thread_removal.delete(conn, T, [mine], visible='{"owner": "you"}') == []
        assert await exists(conn, mine)


async def test_delete_waits_for_a_checkpoint_being_written_and_takes_it_too(db: Database) -> None:
    """A worker's write holds its run's row; what it commits while the deletion waits must not stay behind."""
    async with db.connection() as conn, db.connection() as worker, db.connection() as watcher:
        thread_id = await make(conn)
        run_id = await add_run(conn, thread_id, "running")

        async def delete() -> None:
            async with conn.transaction():
                await thread_removal.delete(conn, T, [thread_id])

        async with worker.transaction():
            await worker.execute("select 1 from run where run_id = %s for share", [run_id])
            deletion = asyncio.create_task(delete())
            await blocked(watcher)
            await leave_traces(worker, thread_id, run_id)
        async with asyncio.timeout(60):
            await deletion
        assert await traces(conn) == {table: [] for table in TRACES}


async def blocked(watcher: Conn) -> None:
    """Until some session waits for a lock."""
    async with asyncio.timeout(60):
        while True:
            cur = await watcher.execute(
                "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            if await cur.fetchone():
                return


async def test_sweep_deletes_expired_idle_threads_only(db: Database) -> None:
    async with db.connection() as conn:
        expired, fresh = [await make(conn, ttl=Ttl("delete", 5)) for _ in range(2)]
        busy, keeping, forever = await make(conn, ttl=Ttl("delete", 5)), await make(conn, ttl=Ttl("keep_latest", 5)), ""
        forever = await make(conn)
        await add_run(conn, busy, "running")
        for thread_id in (expired, busy, keeping):
            await age(conn, thread_id)
        swept = await thread_removal.sweep_expired(conn, 100)
        assert [key.thread_id for key in swept] == [expired]
        assert [await exists(conn, t) for t in (expired, fresh, busy, keeping, forever)] == [False, *[True] * 4]
        assert [key.thread_id for key in await thread_removal.expired_keeping_latest(conn, 100)] == [keeping]


async def test_sweep_takes_no_more_than_its_limit(db: Database) -> None:
    async with db.connection() as conn:
        made = [await make(conn, ttl=Ttl("delete", 5)) for _ in range(3)]
        for thread_id in made:
            await age(conn, thread_id)
        assert [len(await thread_removal.sweep_expired(conn, 2)) for _ in range(3)] == [2, 1, 0]


async def test_a_state_update_restarts_the_clock(db: Database) -> None:
    async with db.connection() as conn:
        thread_id = await make(conn, ttl=Ttl("delete", 5))
        await age(conn, thread_id)
        assert await threads.save_face(conn, T, thread_id, values=b"{}", interrupts=b"{}", resting_status="idle")
        assert await thread_removal.sweep_expired(conn, 100) == []


async def test_a_trimmed_thread_waits_for_its_next_change(db: Database) -> None:
    async with db.connection() as conn:
        thread_id = await make(conn, ttl=Ttl("keep_latest", 5))
        await age(conn, thread_id)
        await thread_removal.mark_trimmed(conn, T, [thread_id])
        assert await thread_removal.expired_keeping_latest(conn, 100) == []
        assert await threads.save_face(conn, T, thread_id, values=b"{}", interrupts=b"{}", resting_status="idle")
        await age(conn, thread_id)
        assert await thread_removal.expired_keeping_latest(conn, 100) != []


async def test_hidden_threads_go_after_their_minute(db: Database) -> None:
    async with db.connection() as conn:
        late, early, plain = [await make(conn) for _ in range(3)]
        await leave_traces(conn, late, str(uuid.uuid4()))
        await hide(conn, late, "61 s")
        await hide(conn, early, "59 s")
        deleted = await thread_removal.delete_hidden(conn, 100)
        assert [key.thread_id for key in deleted] == [late]
        cur = await conn.execute("select thread_id::text from thread")
        assert {row[0] for row in await cur.fetchall()} == {early, plain}
        assert await traces(conn) == {table: [] for table in TRACES}


async def hide(conn: Conn, thread_id: str, ago: str) -> None:
    params: list[Any] = [ago, thread_id]
    await conn.execute("update thread set hidden_at = now() - %s::interval where thread_id = %s", params)
