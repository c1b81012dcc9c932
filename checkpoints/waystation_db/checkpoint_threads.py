"""What is done with all checkpoints of a thread or of a run at once: delete, copy, count. One function per statement
(copying and deleting for runs are transactions of three); all may be repeated after a lost connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypedDict

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.cipher import Cipher
from waystation_db.pool import cipher_of
from waystation_db.resealing import rebind_thread
from waystation_db.sql import load

_sql = load("checkpoints")
_DELETE_THREAD, _THREADS_OF_RUNS = _sql["delete_thread"], _sql["threads_of_runs"]
_ROLLBACK = (_sql["restore_writes"], _sql["remove_writes"], _sql["delete_for_runs"])
_COPIES = (_sql["copy_blobs"], _sql["copy_writes"], _sql["copy_checkpoints"])
_STORAGE = _sql["storage"]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

Conn = AsyncConnection[TupleRow]


class Counted(TypedDict):
    """Rows, and the bytes of what they hold."""

    count: int
    bytes: int


class ChannelBytes(TypedDict):
    """How many versions of a channel's value are kept, and their bytes."""

    versions: int
    bytes: int


class ChannelValues(Counted):
    """The values of all channels, and of each."""

    by_channel: dict[str, ChannelBytes]


class Storage(TypedDict):
    """What a thread holds, in the words of the HTTP API."""

    total_bytes: int
    checkpoints: Counted
    channel_values: ChannelValues
    pending_writes: Counted


async def delete_thread(conn: Conn, thread_id: str) -> None:
    """Delete every checkpoint, value and pending write of a thread."""
    await conn.execute(_DELETE_THREAD, {"thread_id": str(thread_id)})


async def delete_for_runs(conn: Conn, run_ids: Sequence[str], *, thread_id: str | None = None) -> None:
    """Delete the checkpoints of runs, with their writes and the values that no other checkpoint of the thread has, and
    undo what they wrote on checkpoints of others, in one transaction. Commits.

    Without `thread_id` the threads are searched for, by reading all checkpoints there are.
    """
    if not run_ids:
        return
    thread_ids = [thread_id] if thread_id else await _threads_of_runs(conn, run_ids)
    arguments = {
        "thread_ids": thread_ids,
        "thread_uuids": _uuids(thread_ids),
        "run_ids": [str(one) for one in run_ids],
        "run_uuids": _uuids(run_ids),
    }
    async with conn.transaction():
        for statement in _ROLLBACK:
            await conn.execute(statement, arguments)


async def copy_thread(conn: Conn, source: str, target: str, *, cipher: Cipher | None = None) -> None:
    """Copy all checkpoints of a thread in one transaction and commit it; what the target has already stays.

    What is sealed is bound to its thread: the copies are sealed anew for theirs, by `cipher` or the one that belongs to
    `conn`. Raises Undecipherable.
    """
    async with conn.transaction():
        for statement in _COPIES:
            await conn.execute(statement, {"source": str(source), "target": str(target)})
        if cipher := cipher or cipher_of(conn):
            await rebind_thread(conn, cipher, str(source), str(target))


async def storage(conn: Conn, thread_id: str) -> Storage:
    """Return what a thread holds; the bytes are those of the data, without the overhead of rows and indexes."""
    cursor = await conn.execute(_STORAGE, {"thread_id": str(thread_id)})
    row: tuple[Any, ...] = await cursor.fetchone() or (0, 0, 0, 0, {})
    checkpoints, checkpoint_bytes, writes, write_bytes, by_channel = row
    channels: dict[str, ChannelBytes] = by_channel
    value_bytes = sum(one["bytes"] for one in channels.values())
    return {
        "total_bytes": checkpoint_bytes + value_bytes + write_bytes,
        "checkpoints": {"count": checkpoints, "bytes": checkpoint_bytes},
        "channel_values": {
            "count": sum(one["versions"] for one in channels.values()),
            "bytes": value_bytes,
            "by_channel": channels,
        },
        "pending_writes": {"count": writes, "bytes": write_bytes},
    }


def _uuids(texts: Sequence[str]) -> list[str]:
    """Those that can be threads and runs of ours: LangGraph takes any text as the id of a thread."""
    without_tenant = [str(text).rsplit("/", 1)[-1] for text in texts]
    return [text for text in without_tenant if _UUID.fullmatch(text)]


async def _threads_of_runs(conn: Conn, run_ids: Sequence[str]) -> list[str]:
    cursor = await conn.execute(_THREADS_OF_RUNS, {"run_ids": [str(one) for one in run_ids]})
    return [thread_id for (thread_id,) in await cursor.fetchall()]
