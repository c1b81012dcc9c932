"""Runs as tasks: one function per statement of queries/tasks.sql. The caller owns the transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.cipher import open_text
from waystation_db.places import thread_place
from waystation_db.pool import cipher_of
from waystation_db.rows import RunKey, RunStatus
from waystation_db.run_sealing import opened_error, opened_interrupts
from waystation_db.sql import load

_q = load("tasks")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as its latest run left it. `values` is the thread's, as JSON text; `is_last`: no run came after."""

    run_id: str
    assistant_id: str
    status: RunStatus
    error: dict[str, Any] | None
    resumable: bool
    updated_at: datetime
    is_last: bool
    values: str | None
    interrupts: dict[str, list[dict[str, Any]]] | None


async def get(conn: Conn, key: RunKey, *, visible: str) -> TaskRow | None:
    """The task that began with a run; None if there is none for this caller."""
    params = {"tenant_id": key.tenant_id, "thread_id": key.thread_id, "run_id": key.run_id, "visible": visible}
    row = await (await conn.execute(_q["task"], params)).fetchone()
    if row is None:
        return None
    task, cipher = TaskRow(*row), cipher_of(conn)
    if cipher is None:
        return task
    return replace(
        task,
        error=await opened_error(cipher, key, task.error),
        values=await open_text(cipher, thread_place(key.tenant_id, key.thread_id, "values"), task.values),
        interrupts=await opened_interrupts(conn, key, task.interrupts),
    )


async def message_tasks(conn: Conn, tenant_id: str, thread_id: str) -> dict[str, str]:
    """Id of a client's message → the run that its task began with. A message that was sent again counts for the later
    task."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id}
    return {row[0]: row[1] for row in await (await conn.execute(_q["task_messages"], params)).fetchall()}
