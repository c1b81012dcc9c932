"""A thread's events over all of its runs: which runs took which numbers, and what nobody has numbered yet.

    thread.event_seq ──▶ run.event_base at the claim ──▶ + 1, + 2, ... ──▶ run.event_last = thread.event_seq at the end

Functions with `conn` are one committed statement each, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db import runs
from waystation_db.pg_arrays import text_array
from waystation_db.pool import cipher_of
from waystation_db.rows import FINAL_STATUSES, RunKey, RunStatus
from waystation_db.run_sealing import opened_asked, opened_error
from waystation_db.sql import load

_q = load("thread_events")

STRIDE: Final = 16_777_216
"""How far apart the numbers of two attempts lie where nobody can know how many the first one took. The same number as
`waystation_event_stride()`."""

_PAGE: Final = 200

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class RunSpan:
    """A run and the numbers that its events took: base + 1 to `last`, or on and on while that is None.

    `attempt` is 0 for a run that ended before it began. `asked` lists what the run asked when it stopped.
    """

    key: RunKey
    graph_id: str
    status: RunStatus
    attempt: int
    epoch_ms: int
    resumable: bool
    base: int
    last: int | None
    asked: list[dict[str, Any]] | None
    error: dict[str, Any] | None
    ended_ms: int
    is_native: bool

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES


class Place(NamedTuple):
    """Where a thread's numbers stand: the last settled one, and how often its state was changed by hand."""

    seq: int
    updates: int


class ThreadPosition(NamedTuple):
    """Where a reader of a thread stands."""

    tenant_id: str
    thread_id: str
    place: Place


async def spans(conn: Conn, tenant_id: str, thread_id: str, *, after: int, visible: str, ttl_s: float) -> list[RunSpan]:
    """The runs that took numbers after `after` and go on or ended less than `ttl_s` ago, in the order of their numbers;
    the first few hundred. `visible` is what the thread's metadata must contain."""
    params = {
        "tenant_id": tenant_id,
        "thread_id": thread_id,
        "after": after,
        "visible": visible,
        "ttl_s": ttl_s,
        "limit": _PAGE,
    }
    rows = await (await conn.execute(_q["runs_with_events"], params)).fetchall()
    return [await _span(conn, RunKey(tenant_id, thread_id, row[0]), row) for row in rows]


async def _span(conn: Conn, key: RunKey, row: TupleRow) -> RunSpan:
    span = RunSpan(key, *row[1:])
    cipher = cipher_of(conn)
    if cipher is None:
        return span
    asked, error = await opened_asked(conn, key, span.asked), await opened_error(cipher, key, span.error)
    return replace(span, asked=asked, error=error)


async def span_of(conn: Conn, key: RunKey) -> RunSpan | None:
    """One run's numbers; None when it took none, or is deleted."""
    params = {"tenant_id": key.tenant_id, "thread_id": key.thread_id, "run_id": key.run_id}
    row = await (await conn.execute(_q["run_with_events"], params)).fetchone()
    return None if row is None else await _span(conn, RunKey(key.tenant_id, key.thread_id, row[0]), row)


async def executing_run(conn: Conn, tenant_id: str, thread_id: str) -> str | None:
    """The id of the run that executes on a thread."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id}
    row = await (await conn.execute(_q["executing_run"], params)).fetchone()
    return None if row is None else cast("str", row[0])


async def newest_span(
    conn: Conn, tenant_id: str, thread_id: str, *, run_id: str | None, visible: str
) -> RunSpan | None:
    """The thread's newest run that took numbers, or the run of an id; None if there is none. Two statements."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "run_id": run_id, "visible": visible}
    row = await (await conn.execute(_q["newest_run"], params)).fetchone()
    return None if row is None else await span_of(conn, RunKey(tenant_id, thread_id, row[0]))


async def place(conn: Conn, tenant_id: str, thread_id: str, *, visible: str) -> Place | None:
    """Where the thread stands; None when the caller sees no such thread."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "visible": visible}
    row = await (await conn.execute(_q["thread_place"], params)).fetchone()
    return None if row is None else Place(*row)


async def moved(conn: Conn, positions: Sequence[ThreadPosition]) -> list[ThreadPosition]:
    """Those of the threads on which a run executes, or that moved on from the position."""
    params = {
        "tenant_ids": text_array([p.tenant_id for p in positions]),
        "thread_ids": text_array([p.thread_id for p in positions]),
        "seqs": [p.place.seq for p in positions],
        "updates": [p.place.updates for p in positions],
    }
    rows = await (await conn.execute(_q["threads_moved"], params)).fetchall()
    return [positions[cast("int", row[0]) - 1] for row in rows]


async def settle_owed(conn: Conn, tenant_id: str, thread_id: str) -> None:
    """Number the last events of runs that ended before they began, unless a run of the thread goes on: then its end
    does it. In a transaction of its own, or in the caller's, which holds the thread's row."""
    async with conn.transaction():
        # Locked first: the statement must see a run that was claimed while it waited.
        if await runs.lock_thread(conn, tenant_id, thread_id) is not None:
            await conn.execute(_q["settle_owed"], {"tenant_id": tenant_id, "thread_id": thread_id})


async def delete_old_traces(conn: Conn, *, ttl_s: float) -> int:
    """Drop traces of runs that ended `ttl_s` ago; returns how many."""
    return (await conn.execute(_q["delete_old_traces"], {"ttl_s": ttl_s})).rowcount
