"""Puts of a run that does not wait for them: what has become of them is told at the end, and nothing follows a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from integration.checkpointer_world import config_of, count, opened, put, running_run, values_of
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.errors import Fenced
from waystation_db.pool import Database
from waystation_db.rows import RunKey

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _held_up(db: Database, key: RunKey) -> AsyncGenerator[None]:
    """Nothing can be written for this run within the block."""
    async with db.connection() as conn, conn.transaction():
        await conn.execute("select from run where run_id = %s for update", (key.run_id,))
        yield


async def test_put_returns_before_it_is_committed_and_settled_after(db: Database) -> None:
    async with opened(db) as saver:
        key = await running_run(db)
        view = saver.for_run(key, 1, in_background=True)
        async with _held_up(db, key):
            async with asyncio.timeout(60):
                for n in range(3):
                    await put(view, key.thread_id, n=n)
            settling = asyncio.ensure_future(view.settled())
            await asyncio.sleep(0)
            assert await count(db, "checkpoints", key.thread_id) == 0
            assert not settling.done()
        await settling
        assert await count(db, "checkpoints", key.thread_id) == 3


async def test_run_reads_what_it_put_in_the_background(db: Database) -> None:
    async with opened(db) as saver:
        key = await running_run(db)
        view = saver.for_run(key, 1, in_background=True)
        for n in range(3):
            await put(view, key.thread_id, n=n)
            assert await values_of(view, key.thread_id) == {"n": n}


async def test_stale_attempt_is_told_when_it_settles_and_at_its_next_put(db: Database) -> None:
    async with opened(db) as saver:
        key = await running_run(db, attempt=2)
        view = saver.for_run(key, 1, in_background=True)
        await put(view, key.thread_id, n=1)
        with pytest.raises(Fenced):
            await view.settled()
        with pytest.raises(Fenced):
            await put(view, key.thread_id, n=2)
        assert await count(db, "checkpoints", key.thread_id) == 0


async def test_nothing_is_committed_past_a_put_that_failed(db: Database) -> None:
    async with opened(db) as saver:
        key, neighbour = await running_run(db), await running_run(db)
        view, other = saver.for_run(key, 1, in_background=True), saver.for_run(neighbour, 1, in_background=True)

        async def several(bad: PostgresCheckpointer) -> None:
            await put(bad, key.thread_id, n=1)
            await bad.aput_writes(config_of(key.thread_id, "c"), [("chan\ud800nel", 1)], "task")
            await put(bad, key.thread_id, n=2)
            await put(other, neighbour.thread_id, n=3)
            await put(bad, key.thread_id, n=4)

        await several(view)
        await other.settled()
        with pytest.raises(UnicodeEncodeError):
            await view.settled()
        assert await values_of(saver, key.thread_id) == {"n": 1}
        assert await values_of(saver, neighbour.thread_id) == {"n": 3}


async def test_run_that_begins_its_thread_looks_for_no_state_once(db: Database) -> None:
    async with opened(db) as saver:
        key = await running_run(db)
        await put(saver, key.thread_id, n=1)
        view = saver.for_run(key, 1, begins_thread=True)
        assert await view.aget_tuple(config_of(key.thread_id)) is None
        assert await values_of(view, key.thread_id) == {"n": 1}
        other = saver.for_run(key, 1, begins_thread=True)
        await put(other, key.thread_id, n=2)
        assert await values_of(other, key.thread_id) == {"n": 2}
