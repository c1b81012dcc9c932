"""For the checkpointer's tests: runs that are running, checkpoints made by hand, and what is in the tables."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.pool import Database
from waystation_db.rows import RunKey

METADATA: CheckpointMetadata = {"source": "loop", "step": 1, "parents": {}}

_RUNNING = """
with t as (insert into thread (thread_id, status, active_runs) values (%(thread)s, 'busy', 1))
insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, attempt, lease_expires_at)
values (%(thread)s, %(run)s, gen_random_uuid(), 'g', '{}', 'running', %(attempt)s, now() + interval '1 hour')
"""

_NEXT = """
insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, attempt, lease_expires_at)
values (%(thread)s, %(run)s, gen_random_uuid(), 'g', '{}', 'running', 1, now() + interval '1 hour')
"""


@asynccontextmanager
async def opened(db: Database, **options: Any) -> AsyncGenerator[PostgresCheckpointer]:
    """A saver that is closed at the end, so that no test leaves a write behind."""
    saver = PostgresCheckpointer(db, **options)
    try:
        yield saver
    finally:
        await saver.aclose()


async def running_run(db: Database, *, attempt: int = 1) -> RunKey:
    """A run that is running in `attempt`, on a thread of its own."""
    key = RunKey("default", str(uuid.uuid4()), str(uuid.uuid4()))
    async with db.connection() as conn:
        await conn.execute(_RUNNING, {"thread": key.thread_id, "run": key.run_id, "attempt": attempt})
    return key


async def next_run(db: Database, thread_id: str) -> RunKey:
    """The run that follows on a thread of `running_run`; the one before has ended."""
    key = RunKey("default", thread_id, str(uuid.uuid4()))
    async with db.connection() as conn, conn.transaction():
        await conn.execute(
            "update run set status = 'success', ended_at = now(), lease_expires_at = null where thread_id = %s",
            (thread_id,),
        )
        await conn.execute(_NEXT, {"thread": thread_id, "run": key.run_id})
    return key


def config_of(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}


def checkpoint_of(**values: Any) -> Checkpoint:
    """A checkpoint in which each channel has a value at a version of its own."""
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6())
    checkpoint["channel_values"] = values
    checkpoint["channel_versions"] = {channel: f"1.{uuid.uuid4().hex}" for channel in values}
    return checkpoint


async def put(saver: PostgresCheckpointer, thread_id: str, **values: Any) -> RunnableConfig:
    """Put a checkpoint all of whose values are new."""
    checkpoint = checkpoint_of(**values)
    return await saver.aput(config_of(thread_id), checkpoint, METADATA, checkpoint["channel_versions"])


async def values_of(saver: PostgresCheckpointer, thread_id: str) -> dict[str, Any]:
    found = await saver.aget_tuple(config_of(thread_id))
    assert found is not None
    return found.checkpoint["channel_values"]


async def count(db: Database, table: str, thread_id: str) -> int:
    statements: dict[str, LiteralString] = {
        "checkpoints": "select count(*) from checkpoints where thread_id = %s",
        "checkpoint_blobs": "select count(*) from checkpoint_blobs where thread_id = %s",
        "checkpoint_writes": "select count(*) from checkpoint_writes where thread_id = %s",
    }
    async with db.connection() as conn:
        row = await (await conn.execute(statements[table], (thread_id,))).fetchone()
    assert row is not None
    return row[0]
