"""Rows of the event log: chunks of a run's events, written under the fence of its attempt, read after an id.

What a payload means is the writer's business. The caller owns the transaction; with an autocommit connection each
function is one committed statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.pg_arrays import bytea_array, int_array, text_array
from waystation_db.rows import RunKey, RunState
from waystation_db.sql import load

CHANNEL: LiteralString = "ws_event"

_q = load("events")
_APPEND = _q["append_chunks"]
_READ = _q["read_chunks"]
_CHANGED = _q["changed_runs"]
_LAST = _q["last_chunk"]
_ANNOUNCE = _q["announce"]
_DELETE = _q["delete_chunks"]
_EXPIRE = _q["delete_expired_chunks"]

Conn = AsyncConnection[TupleRow]


class Chunk(NamedTuple):
    """Events `first_counter` to `last_counter` of an epoch, as one payload."""

    epoch_ms: int
    first_counter: int
    last_counter: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RunChunks:
    """What one attempt of a run appends."""

    key: RunKey
    attempt: int
    chunks: Sequence[Chunk]


class Position(NamedTuple):
    """Where a reader of a run stands: it has everything up to (epoch_ms, counter)."""

    key: RunKey
    epoch_ms: int
    counter: int


@dataclass(frozen=True, slots=True)
class ReadChunks:
    """A run's state, None if the run is not there, and chunks after a position. `more`: there are others behind
    them."""

    state: RunState | None
    chunks: Sequence[Chunk]
    more: bool


async def append_chunks(conn: Conn, runs: Sequence[RunChunks], *, notify: bool) -> list[bool]:
    """Write the chunks of several runs; for each run whether its attempt may write. Nothing is doubled by repeating
    it."""
    owned = [(place, chunk) for place, run in enumerate(runs, 1) for chunk in run.chunks]
    params = _keys([run.key for run in runs]) | {
        "attempts": int_array([run.attempt for run in runs]),
        "places": int_array([place for place, _ in owned]),
        "epochs": [chunk.epoch_ms for _, chunk in owned],
        "firsts": int_array([chunk.first_counter for _, chunk in owned]),
        "lasts": int_array([chunk.last_counter for _, chunk in owned]),
        "payloads": bytea_array([chunk.payload for _, chunk in owned]),
        "notify": notify,
    }
    rows = await (await conn.execute(_APPEND, params)).fetchall()
    alive = {row[0] for row in rows}
    return [place in alive for place in range(1, len(runs) + 1)]


async def read_chunks(
    conn: Conn, positions: Sequence[Position], *, max_chunks: int, max_bytes: int
) -> list[ReadChunks]:
    """For each position the run's state and the chunks after it, as one snapshot.

    At most `max_chunks` for each run, and no more once `max_bytes` are reached. The first chunk may begin before the
    position.
    """
    params = _positions(positions) | {"chunks": max_chunks, "bytes": max_bytes}
    cursor = await conn.execute(_READ, params, binary=True)
    found: list[list[TupleRow]] = [[] for _ in positions]
    for row in await cursor.fetchall():
        found[cast("int", row[0]) - 1].append(row)
    return [_read(position.key, rows, max_chunks, max_bytes) for position, rows in zip(positions, found, strict=True)]


def _read(key: RunKey, rows: list[TupleRow], max_chunks: int, max_bytes: int) -> ReadChunks:
    status, attempt, epoch_ms, resumable, error = rows[0][1:6]
    state = None if status is None else RunState(key, status, attempt, epoch_ms, resumable, error)
    chunks = [Chunk(*row[6:10]) for row in rows if row[6] is not None]
    more = len(chunks) >= max_chunks or sum([len(chunk.payload) for chunk in chunks]) >= max_bytes
    return ReadChunks(state, chunks, more)


async def changed_runs(conn: Conn, positions: Sequence[Position]) -> list[RunKey]:
    """Those of the runs that are final, or gone, or have chunks after the position."""
    rows = await (await conn.execute(_CHANGED, _positions(positions), binary=True)).fetchall()
    return [positions[cast("int", row[0]) - 1].key for row in rows]


async def last_chunk(conn: Conn, key: RunKey) -> Chunk | None:
    """The newest chunk of a run."""
    row = await (await conn.execute(_LAST, _key(key), binary=True)).fetchone()
    return None if row is None else Chunk(*row)


async def announce(conn: Conn, key: RunKey) -> None:
    """Wake the readers of a run everywhere, to look at its row."""
    await conn.execute(_ANNOUNCE, {"payload": hint_of(key)})


async def delete_chunks(conn: Conn, key: RunKey) -> None:
    """Drop the events of a run, and wake its readers to look at its row."""
    await conn.execute(_DELETE, _key(key) | {"payload": hint_of(key)})


async def delete_expired(conn: Conn, *, ttl_s: float, limit: int = 5000) -> int:
    """Drop up to `limit` chunks of runs that ended `ttl_s` seconds ago or are gone; returns how many."""
    return (await conn.execute(_EXPIRE, {"ttl_s": ttl_s, "limit": limit})).rowcount


def hint_of(key: RunKey) -> str:
    """The payload of a notification about a run."""
    return f"{key.tenant_id}/{key.thread_id}/{key.run_id}"


def run_of_hint(payload: str) -> RunKey | None:
    """The run a notification is about; None for a payload that is not ours."""
    parts = payload.rsplit("/", 2)
    return RunKey(*parts) if len(parts) == 3 else None


def _key(key: RunKey) -> dict[str, Any]:
    return {"tenant_id": key.tenant_id, "thread_id": key.thread_id, "run_id": key.run_id}


def _keys(keys: Sequence[RunKey]) -> dict[str, Any]:
    return {
        "tenant_ids": text_array([key.tenant_id for key in keys]),
        "thread_ids": text_array([key.thread_id for key in keys]),
        "run_ids": text_array([key.run_id for key in keys]),
    }


def _positions(positions: Sequence[Position]) -> dict[str, Any]:
    return _keys([position.key for position in positions]) | {
        "epochs": [position.epoch_ms for position in positions],
        "counters": int_array([position.counter for position in positions]),
    }
