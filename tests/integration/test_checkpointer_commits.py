"""Group commit against a real server: who is in a batch is not hurt by its neighbours, nor by an outage."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, cast

import pytest
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from integration.checkpointer_world import (
    METADATA,
    checkpoint_of,
    config_of,
    count,
    opened,
    put,
    running_run,
    values_of,
)
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.errors import DatabaseUnavailable, Fenced
from waystation_db.migrate import migrate
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio


async def _tried_again(saver: PostgresCheckpointer, times: int) -> None:
    commits = saver._commits  # pyright: ignore[reportPrivateUsage]  # its count of tries is the sign of life
    async with asyncio.timeout(60):
        while commits.tries <= times:  # noqa: ASYNC110  # a counter cannot be awaited
            await asyncio.sleep(0.01)


async def test_stale_attempt_loses_only_its_own_rows(db: Database) -> None:
    async with opened(db) as saver:
        live, stale = await running_run(db), await running_run(db, attempt=3)
        free = str(uuid.uuid4())

        outcomes = await asyncio.gather(
            put(saver.for_run(live, 1), live.thread_id, n=1, things=[1]),
            put(saver.for_run(stale, 2), stale.thread_id, n=1, things=[2]),
            saver.for_run(stale, 2).aput_writes(config_of(stale.thread_id, "c"), [("n", 1)], "task"),
            saver.for_run(stale, 2).aput_writes(config_of(stale.thread_id, "c"), [(ERROR, "x")], "task"),
            put(saver.for_run(stale, 3), stale.thread_id, n=3),
            put(saver, free, n=1),
            return_exceptions=True,
        )

        assert [type(one) for one in outcomes] == [dict, Fenced, Fenced, Fenced, dict, dict]
        assert await values_of(saver, live.thread_id) == {"n": 1, "things": [1]}
        assert await values_of(saver, stale.thread_id) == {"n": 3}
        assert await count(db, "checkpoint_writes", stale.thread_id) == 0
        assert await count(db, "checkpoint_blobs", stale.thread_id) == 0


@pytest.mark.parametrize("change", ["status = 'success', ended_at = now(), lease_expires_at = null", "attempt = 2"])
async def test_run_that_ends_or_is_taken_over_is_refused_from_then_on(db: Database, change: str) -> None:
    async with opened(db) as saver:
        key = await running_run(db)
        view = saver.for_run(key, 1)
        await put(view, key.thread_id, n=1)
        async with db.connection() as conn:
            await conn.execute(f"update run set {change} where run_id = %s", (key.run_id,))  # pyright: ignore  # a constant above
        with pytest.raises(Fenced):
            await put(view, key.thread_id, n=2)
        assert await values_of(saver, key.thread_id) == {"n": 1}


async def test_write_waits_for_a_takeover_that_is_under_way_and_is_then_refused(db: Database) -> None:
    async with opened(db) as saver:
        key = await running_run(db)
        async with db.connection() as conn:
            async with conn.transaction():
                await conn.execute("update run set attempt = 2 where run_id = %s", (key.run_id,))
                writing = asyncio.ensure_future(put(saver.for_run(key, 1), key.thread_id, n=1))
                await _lock_waiters(db, 1)
                assert not writing.done()
            with pytest.raises(Fenced):
                await writing


async def _lock_waiters(db: Database, wanted: int) -> None:
    async with asyncio.timeout(60), db.connection() as conn:
        while True:
            cursor = await conn.execute(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            if (await cursor.fetchone()) == (wanted,):
                return


async def test_waiting_puts_share_transactions(db: Database) -> None:
    async with opened(db) as saver:
        threads = [str(uuid.uuid4()) for _ in range(50)]
        await asyncio.gather(*(put(saver, thread_id, n=1, many=[1, 2]) for thread_id in threads))
        async with db.connection() as conn:
            cursor = await conn.execute("select count(distinct xmin::text) from checkpoints")
            assert (await cursor.fetchone()) == (1,)
        assert all([await values_of(saver, one) == {"n": 1, "many": [1, 2]} for one in threads])


async def test_bad_value_fails_alone(db: Database) -> None:
    async with opened(db) as saver:
        good = [str(uuid.uuid4()) for _ in range(5)]
        outcomes = await asyncio.gather(
            put(saver, good[0], n=1),
            put(saver, "no\0thread", n=1),
            saver.aput_writes(config_of(good[1], "c"), [("chan\ud800nel", 1)], "task"),
            *(put(saver, one, n=1) for one in good[2:]),
            put(saver, str(uuid.uuid4()), unserialisable=[object()]),
            return_exceptions=True,
        )
        failed = [isinstance(one, Exception) for one in outcomes]
        assert failed == [False, True, True, False, False, False, True]
        assert not isinstance(outcomes[1], DatabaseUnavailable)
        assert await values_of(saver, good[4]) == {"n": 1}


async def test_two_puts_of_one_key_at_once_leave_the_later(db: Database) -> None:
    async with opened(db) as saver:
        thread_id, checkpoint = str(uuid.uuid4()), checkpoint_of(n=1)
        later: Any = {**METADATA, "step": 7}
        config = config_of(thread_id, checkpoint["id"])
        await asyncio.gather(
            saver.aput(config_of(thread_id), checkpoint, METADATA, {}),
            saver.aput_writes(config, [(INTERRUPT, "first")], "task"),
            saver.aput_writes(config, [("n", "kept")], "task"),
            saver.aput(config_of(thread_id), checkpoint, later, {}),
            saver.aput_writes(config, [(INTERRUPT, "second")], "task"),
            saver.aput_writes(config, [("n", "too late")], "task"),
        )
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.metadata.get("step") == 7
        assert sorted(found.pending_writes or []) == [("task", INTERRUPT, "second"), ("task", "n", "kept")]


async def test_strings_and_numbers_that_json_cannot_hold_are_stored(db: Database) -> None:
    async with opened(db) as saver:
        thread_id = str(uuid.uuid4())
        checkpoint = checkpoint_of(nul="a\0b", escaped="a\\u0000b", inf=float("inf"), long="x" * 5000, plain=1.5)
        metadata: Any = {**METADATA, "who": "x\0y", "nested": {"k\0": ["\ud800", float("nan")]}}
        await saver.aput(config_of(thread_id), checkpoint, metadata, checkpoint["channel_versions"])

        found = await saver.aget_tuple(config_of(thread_id))
        assert found is not None
        assert found.checkpoint["channel_values"] == checkpoint["channel_values"]
        assert found.metadata["nested"] == {"k\ufffd": ["\ufffd", None]}  # pyright: ignore  # beyond LangGraph's own keys


async def test_long_string_is_stored_once_for_many_checkpoints(db: Database) -> None:
    async with opened(db) as saver:
        thread_id, first = str(uuid.uuid4()), checkpoint_of(text="x" * 5000, n=1)
        parent = await saver.aput(config_of(thread_id), first, METADATA, first["channel_versions"])
        for n in range(2, 5):
            following = checkpoint_of(n=n)
            following["channel_values"]["text"] = "x" * 5000
            following["channel_versions"]["text"] = first["channel_versions"]["text"]
            parent = await saver.aput(parent, following, METADATA, {"n": following["channel_versions"]["n"]})
        assert await values_of(saver, thread_id) == {"text": "x" * 5000, "n": 4}
        assert await count(db, "checkpoint_blobs", thread_id) == 1
        assert (await saver.storage(thread_id))["total_bytes"] < 10_000


async def test_writes_outlive_a_crash_and_an_outage_of_postgres(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = make_postgres()
    await migrate(server.conninfo)
    async with Database(server.conninfo) as db, opened(db) as saver:
        cast("Any", db)._timeout_s = 0.2  # opening it may take longer
        thread_id = str(uuid.uuid4())
        await put(saver, thread_id, n=0)

        server.halt(immediate=True)
        writes = [asyncio.ensure_future(put(saver, str(uuid.uuid4()), n=n)) for n in range(20)]
        reading = asyncio.ensure_future(values_of(saver, thread_id))
        await _tried_again(saver, 3)
        assert not any(one.done() for one in [*writes, reading])
        await asyncio.to_thread(server.revive)

        async with asyncio.timeout(60):
            stored = await asyncio.gather(*writes)
            assert await reading == {"n": 0}
        for n, config in enumerate(stored):
            found = await saver.aget_tuple(config)
            assert found is not None
            assert found.checkpoint["channel_values"] == {"n": n}


async def test_outage_beyond_the_deadline_is_told(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = make_postgres()
    await migrate(server.conninfo)
    async with Database(server.conninfo) as db, opened(db) as patient, opened(db, retry_s=0.5) as saver:
        await put(patient, str(uuid.uuid4()), n=0)
        cast("Any", db)._timeout_s = 0.2  # opening it may take longer
        server.halt(immediate=True)
        async with asyncio.timeout(60):
            for work in (put(saver, "a", n=1), saver.aget_tuple(config_of("a")), saver.adelete_thread("a")):
                with pytest.raises(DatabaseUnavailable):
                    await work


async def test_closing_waits_for_what_was_put_and_refuses_more(db: Database) -> None:
    saver = PostgresCheckpointer(db)
    threads = [str(uuid.uuid4()) for _ in range(30)]
    puts = [asyncio.ensure_future(put(saver, one, n=1)) for one in threads]
    await asyncio.sleep(0)
    await saver.aclose()
    assert all(one.done() for one in puts)
    with pytest.raises(DatabaseUnavailable):
        await put(saver, threads[0], n=2)
