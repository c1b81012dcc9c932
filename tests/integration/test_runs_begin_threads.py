"""Whether a run is the first thing that happens on its thread is told with the claim."""

from __future__ import annotations

import asyncio

import pytest

from integration import test_runs_transitions as transitions
from waystation_db.pool import Database
from waystation_db.runs import Conn

pytestmark = pytest.mark.anyio

_CHECKPOINT = """
insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint) values (%s, '', '1', '{}')
"""


async def _put(conn: Conn, thread_id: str) -> None:
    await conn.execute(_CHECKPOINT, (thread_id,))


async def test_run_created_as_claimed_knows_whether_its_thread_has_a_state(db: Database) -> None:
    async with db.connection() as conn:
        await transitions.assistant(conn)
        new, old = await transitions.thread(conn), await transitions.thread(conn)
        await _put(conn, old)
        for thread_id, begins in ((new, True), (old, False)):
            row = await transitions.create(conn, transitions.new_run(thread_id), claim_for="w")
            assert row is not None
            assert row.begins_thread is begins


async def test_claimed_run_knows_whether_its_thread_has_a_state(db: Database) -> None:
    async with db.connection() as conn:
        await transitions.assistant(conn)
        new, old = await transitions.thread(conn), await transitions.thread(conn)
        await _put(conn, old)
        for thread_id in (new, old):
            await transitions.create(conn, transitions.new_run(thread_id))
        claimed = await transitions.claim(conn)
        assert {run.key.thread_id: run.begins_thread for run in claimed} == {new: True, old: False}


async def test_state_that_is_committed_while_the_creation_waits_for_the_thread_is_seen(db: Database) -> None:
    async with db.connection() as conn, db.connection() as other, db.connection() as watching:
        await transitions.assistant(conn)
        thread_id = await transitions.thread(conn)
        async with other.transaction():
            await other.execute("select from thread where thread_id = %s for no key update", (thread_id,))
            creating = asyncio.ensure_future(transitions.create(conn, transitions.new_run(thread_id), claim_for="w"))
            await _until_blocked(watching)
            await _put(other, thread_id)
        row = await creating
        assert row is not None
        assert row.begins_thread is False


async def _until_blocked(conn: Conn) -> None:
    async with asyncio.timeout(60):
        while True:
            cursor = await conn.execute(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            if await cursor.fetchone():
                return
