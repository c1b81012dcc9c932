"""How threads end: deleted by a client, expired, left by a stateless run. Runs, checkpoints and events go with them.

```
 lock the threads ─▶ tell workers of their runs to stop ─▶ delete threads (runs cascade) ─▶ delete what only names them
```

Deleting the runs waits for checkpoint writes under way and refuses later ones, so nothing is written behind our back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from waystation_db.rows import RunKey
from waystation_db.sql import load
from waystation_db.tenants import checkpoint_thread

_q = load("threads")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class DeletedThread:
    """A thread that was deleted, and those of its runs that somebody may still execute or read."""

    thread_id: str
    active_runs: tuple[RunKey, ...]
    ended_runs: tuple[RunKey, ...]


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """What names a thread."""

    tenant_id: str
    thread_id: str


async def delete(
    conn: Conn, tenant_id: str, thread_ids: Sequence[str], *, visible: str | None = None
) -> list[DeletedThread]:
    """Delete threads with runs, checkpoints and events, and tell the workers of running runs to stop.

    Threads that are not there are left out of the answer. Needs a transaction: the workers are told at its commit.
    """
    params = {"tenant_id": tenant_id, "thread_ids": list(thread_ids), "visible": visible}
    found = [row[0] for row in await (await conn.execute(_q["lock_for_deletion"], params)).fetchall()]
    if not found:
        return []
    runs = await _runs_with_readers(conn, tenant_id, found)
    await _delete_locked(conn, tenant_id, found)
    return [
        DeletedThread(
            thread_id,
            active_runs=tuple(key for key, active in runs if active and key.thread_id == thread_id),
            ended_runs=tuple(key for key, active in runs if not active and key.thread_id == thread_id),
        )
        for thread_id in found
    ]


async def idle_among(conn: Conn, tenant_id: str, thread_ids: Sequence[str], *, visible: str | None = None) -> list[str]:
    """Which of these threads exist and have no pending or running run."""
    params = {"tenant_id": tenant_id, "thread_ids": list(thread_ids), "visible": visible}
    return [row[0] for row in await (await conn.execute(_q["idle_among"], params)).fetchall()]


async def sweep_expired(conn: Conn, limit: int) -> list[ThreadKey]:
    """Delete up to `limit` idle threads whose time is over and whose strategy is `delete`. Commits."""
    async with conn.transaction():
        return await _delete_swept(conn, await conn.execute(_q["lock_expired"], {"limit": limit}))


async def delete_hidden(conn: Conn, limit: int, *, older_than_s: float = 60.0) -> list[ThreadKey]:
    """Delete up to `limit` threads that stateless runs left behind at least `older_than_s` ago. Commits."""
    async with conn.transaction():
        params = {"limit": limit, "older_than_s": older_than_s}
        return await _delete_swept(conn, await conn.execute(_q["lock_hidden"], params))


async def expired_keeping_latest(conn: Conn, limit: int) -> list[ThreadKey]:
    """Idle threads whose time is over and whose strategy is `keep_latest`; `mark_trimmed` when that is done."""
    cur = await conn.execute(_q["expired_keeping_latest"], {"limit": limit})
    return [ThreadKey(row[0], row[1]) for row in await cur.fetchall()]


async def mark_trimmed(conn: Conn, tenant_id: str, thread_ids: Sequence[str]) -> None:
    """Stop the clock of threads whose older checkpoints are gone, until their state changes again."""
    await conn.execute(_q["mark_trimmed"], {"tenant_id": tenant_id, "thread_ids": list(thread_ids)})


async def _delete_swept(conn: Conn, locked: AsyncCursor[TupleRow]) -> list[ThreadKey]:
    keys = [ThreadKey(row[0], row[1]) for row in await locked.fetchall()]
    for tenant_id in sorted({key.tenant_id for key in keys}):
        await _delete_locked(conn, tenant_id, [key.thread_id for key in keys if key.tenant_id == tenant_id])
    return keys


async def _delete_locked(conn: Conn, tenant_id: str, thread_ids: list[str]) -> None:
    stored = [checkpoint_thread(tenant_id, thread_id) for thread_id in thread_ids]
    params = {"tenant_id": tenant_id, "thread_ids": thread_ids, "checkpoint_threads": stored}
    await conn.execute(_q["delete_threads"], params)
    await conn.execute(_q["delete_traces"], params)


async def _runs_with_readers(conn: Conn, tenant_id: str, thread_ids: list[str]) -> list[tuple[RunKey, bool]]:
    cur = await conn.execute(_q["runs_with_readers"], {"tenant_id": tenant_id, "thread_ids": thread_ids})
    return [(RunKey(tenant_id, row[0], row[1]), row[2]) for row in await cur.fetchall()]
