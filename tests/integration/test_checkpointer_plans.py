"""The statements of the hot path find their rows by index, however many rows there are, prepared or not."""

from __future__ import annotations

import uuid
from typing import LiteralString

import pytest

from integration.checkpointer_world import running_run
from waystation_db.checkpoint_rows import BlobRow, CheckpointRow, Fence, Put, WriteRow
from waystation_db.checkpoint_write import batch_statement
from waystation_db.pool import Database
from waystation_db.sql import load

pytestmark = pytest.mark.anyio

_FILL: list[LiteralString] = [
    """
    insert into checkpoints (thread_id, checkpoint_id, checkpoint)
    select 't' || t, 'c' || c, jsonb_build_object('channel_versions', jsonb_build_object('a', c, 'b', 1))
    from generate_series(1, 100) t, generate_series(1, 200) c
    """,
    """
    insert into checkpoint_blobs (thread_id, channel, version, type, blob)
    select 't' || t, 'a', c, 'msgpack', 'x'::bytea from generate_series(1, 100) t, generate_series(1, 200) c
    """,
    """
    insert into checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, type, blob)
    select 't' || t, 'c' || c, 'task', 0, 'a', 'msgpack', 'x'::bytea
    from generate_series(1, 100) t, generate_series(1, 200) c
    """,
    "insert into thread (thread_id) select gen_random_uuid() from generate_series(1, 5000)",
    """
    insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, ended_at)
    select thread_id, gen_random_uuid(), gen_random_uuid(), 'g', '{}', 'success', now()
    from thread, generate_series(1, 4)
    """,
    "analyze",
]


@pytest.fixture
async def full(db: Database) -> Database:
    async with db.connection() as conn:
        for statement in _FILL:
            await conn.execute(statement)
    return db


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_latest_checkpoint_is_read_by_keys_alone(full: Database, mode: str) -> None:
    where = " where thread_id = %s and checkpoint_ns = %s order by checkpoint_id desc limit 1"
    async with full.connection() as conn, conn.transaction():
        await conn.execute("select set_config('plan_cache_mode', %s, true)", (mode,))
        cursor = await conn.execute(
            "explain (analyze, costs off, timing off) " + load("checkpoints")["select_checkpoints"] + where, ("t7", "")
        )
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "Rows Removed" not in plan
    assert "using checkpoint_blobs_pkey" in plan


async def test_fence_finds_its_run_by_index(full: Database) -> None:
    key, other = await running_run(full), str(uuid.uuid4())
    puts = [
        Put(
            Fence(key, 1),
            blobs=[BlobRow(other, "", "a", "1", "msgpack", b"x")],
            checkpoint=CheckpointRow(other, "", "c", None, b"{}", b"{}"),
            writes=[WriteRow(other, "", "c", "task", "", 0, "a", "msgpack", b"x")],
            elsewhere=True,
        )
    ]
    statement, arguments, _ = batch_statement(puts)
    async with full.connection() as conn, conn.transaction():
        await conn.execute("set local plan_cache_mode = force_generic_plan")
        cursor = await conn.execute("explain " + statement, arguments)
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "Seq Scan on run" not in plan
    assert "Seq Scan on checkpoint_writes" not in plan
