"""A batch of puts as one statement: unnest over arrays of all their rows, guarded row by row by the fences.

One statement is one round trip and one transaction without saying so, which costs the least and suits PgBouncer. Each
row carries the number of its fence, 0 when it has none, and the statement answers with the fences that held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.checkpoint_rows import Fence, Put, WriteRow
from waystation_db.errors import DatabaseError, Fenced
from waystation_db.pg_arrays import bytea_array, int_array, jsonb_array, text_array
from waystation_db.sql import load

_sql = load("checkpoints")
_FENCE, _NO_FENCE = _sql["fence"], _sql["no_fence"]
_LIVE_FENCES, _NO_FENCES = _sql["live_fences"], _sql["no_fences"]
# By the letter that their arguments begin with, in the order in which they are written.
_SECTIONS: dict[str, LiteralString] = {
    "b": _sql["put_blobs"],
    "c": _sql["put_checkpoints"],
    "u": _sql["remember_writes"],
    "w": _sql["put_writes"],
    "r": _sql["replace_writes"],
}

Rows = Iterable[tuple[Any, ...]]


async def put_batch(conn: AsyncConnection[TupleRow], batch: Sequence[Put]) -> list[DatabaseError | None]:
    """Write the batch in one transaction and commit it; return for each put None, or Fenced when it was refused.

    Raises psycopg.Error when nothing was written, or when that is not known.
    """
    statement, arguments, numbers = batch_statement(batch)
    cursor = await conn.execute(statement, arguments, binary=True)
    live = {0, *(n for (n,) in await cursor.fetchall())}
    return [None if n in live else _refusal(put.fence) for n, put in zip(numbers, batch, strict=True)]


def batch_statement(batch: Sequence[Put]) -> tuple[LiteralString, dict[str, Any], list[int]]:
    """Return the statement that writes the batch, its arguments, and for each put the number of its fence."""
    fences = {fence: n for n, fence in enumerate(dict.fromkeys(put.fence for put in batch if put.fence), start=1)}
    numbers = [fences[put.fence] if put.fence else 0 for put in batch]
    arguments = {**_fence_arguments(fences), **_row_arguments(batch, numbers)}
    sections = tuple(letter for letter in _SECTIONS if f"{letter}_fence" in arguments)
    return _statement(bool(fences), sections), arguments, numbers


@cache
def _statement(fenced: bool, sections: tuple[str, ...]) -> LiteralString:
    parts: list[LiteralString] = [_FENCE if fenced else _NO_FENCE, *(_SECTIONS[letter] for letter in sections)]
    return "with " + ",\n".join(parts) + "\n" + (_LIVE_FENCES if fenced else _NO_FENCES)


def _refusal(fence: Fence | None) -> Fenced:
    return Fenced(f"attempt {fence.attempt} of run {fence.key.run_id} does not hold the run" if fence else "")


def _fence_arguments(fences: Iterable[Fence]) -> dict[str, Any]:
    ordered = list(fences)
    if not ordered:
        return {}
    return {
        "f_tenant": text_array([fence.key.tenant_id for fence in ordered]),
        "f_thread": text_array([fence.key.thread_id for fence in ordered]),
        "f_run": text_array([fence.key.run_id for fence in ordered]),
        "f_attempt": int_array([fence.attempt for fence in ordered]),
    }


def _row_arguments(batch: Sequence[Put], numbers: Sequence[int]) -> dict[str, Any]:
    blobs = [(n, *row) for n, put in zip(numbers, batch, strict=True) for row in put.blobs]
    writes = [(n, *row) for n, put in zip(numbers, batch, strict=True) if not put.replaces for row in put.writes]
    # A statement cannot write a row twice: of several for one key the last one counts.
    checkpoints = {
        (n, *put.checkpoint[:3]): (n, *put.checkpoint) for n, put in zip(numbers, batch, strict=True) if put.checkpoint
    }
    replaced = {
        (n, *row[:4], row.idx): (n, *row)
        for n, put in zip(numbers, batch, strict=True)
        if put.replaces
        for row in put.writes
    }
    elsewhere = [
        (n, *_names(put.fence), row)
        for n, put in zip(numbers, batch, strict=True)
        if put.fence and put.elsewhere
        for row in put.writes
    ]
    return {
        **_blob_arguments(blobs),
        **_checkpoint_arguments(checkpoints.values()),
        **_memory_arguments(elsewhere),
        **_write_arguments("w", writes),
        **_write_arguments("r", replaced.values()),
    }


def _blob_arguments(rows: Rows) -> dict[str, Any]:
    if not rows:
        return {}
    fence, thread, namespace, channel, version, kind, blob = zip(*rows, strict=True)
    return {
        "b_fence": int_array(fence),
        "b_thread": text_array(thread),
        "b_ns": text_array(namespace),
        "b_channel": text_array(channel),
        "b_version": text_array(version),
        "b_type": text_array(kind),
        "b_blob": bytea_array(blob),
    }


def _checkpoint_arguments(rows: Rows) -> dict[str, Any]:
    if not rows:
        return {}
    fence, thread, namespace, checkpoint_id, parent, checkpoint, metadata = zip(*rows, strict=True)
    return {
        "c_fence": int_array(fence),
        "c_thread": text_array(thread),
        "c_ns": text_array(namespace),
        "c_id": text_array(checkpoint_id),
        "c_parent": text_array(parent),
        "c_checkpoint": jsonb_array(checkpoint),
        "c_metadata": jsonb_array(metadata),
    }


def _names(fence: Fence) -> tuple[str, str, str]:
    return fence.key.tenant_id, fence.key.thread_id, fence.key.run_id


def _memory_arguments(rows: Sequence[tuple[int, str, str, str, WriteRow]]) -> dict[str, Any]:
    if not rows:
        return {}
    fence, tenant, thread, run, row = zip(*rows, strict=True)
    return {
        "u_fence": int_array(fence),
        "u_tenant": text_array(tenant),
        "u_thread": text_array(thread),
        "u_run": text_array(run),
        "u_ns": text_array([one.checkpoint_ns for one in row]),
        "u_checkpoint": text_array([one.checkpoint_id for one in row]),
        "u_task": text_array([one.task_id for one in row]),
        "u_idx": int_array([one.idx for one in row]),
    }


def _write_arguments(letter: str, rows: Rows) -> dict[str, Any]:
    if not rows:
        return {}
    fence, thread, namespace, checkpoint_id, task, path, index, channel, kind, blob = zip(*rows, strict=True)
    return {
        f"{letter}_fence": int_array(fence),
        f"{letter}_thread": text_array(thread),
        f"{letter}_ns": text_array(namespace),
        f"{letter}_checkpoint": text_array(checkpoint_id),
        f"{letter}_task": text_array(task),
        f"{letter}_path": text_array(path),
        f"{letter}_idx": int_array(index),
        f"{letter}_channel": text_array(channel),
        f"{letter}_type": text_array(kind),
        f"{letter}_blob": bytea_array(blob),
    }
