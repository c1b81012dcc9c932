"""The run state machine: one function per transition, over one SQL file.

```
 create ──▶ pending ──claim──▶ running ──finish──▶ success | error | timeout | interrupted ──delete──▶ (gone)
               ▲                  │
               └── release, sweep ┘        attempt + 1 at each claim; crashes + 1 at each sweep
```

Nothing else writes `run.status` or `thread.active_runs`. Each statement names the state and the attempt that it leaves;
an empty answer means that somebody else was first. The caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString, cast

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow

from waystation_db import faces
from waystation_db.cipher import open_text
from waystation_db.places import thread_place
from waystation_db.pool import cipher_of
from waystation_db.rows import (
    CancelAction,
    CancelWish,
    ClaimedRun,
    FinalStatus,
    MultitaskStrategy,
    RestingStatus,
    RunKey,
    RunState,
    RunStatus,
)
from waystation_db.run_sealing import opened_error, opened_interrupts, opened_metadata, sealed
from waystation_db.sql import load

_q = load("runs")
_CLAIM_ORDINARY: LiteralString = "\n".join([_q["claim_due"], _q["claim_ordinary"], _q["claim_them"]])
_CLAIM_LAST_CHANCE: LiteralString = "\n".join([_q["claim_due"], _q["claim_last_chances"], _q["claim_them"]])

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to create. The `*_json` members are JSON text, ready for Postgres (no U+0000 in strings).

    `config_json` is what the thread's face shows of the config. `thread_metadata_json` and the TTL are used only
    where the
    thread is made together with the run, and so is `thread_priority`. `priority`: higher is claimed sooner.
    """

    key: RunKey
    assistant_id: str
    kwargs_json: str
    metadata_json: str = "{}"
    config_json: str = "{}"
    thread_metadata_json: str = "{}"
    multitask_strategy: MultitaskStrategy = "enqueue"
    resumable: bool = False
    native: bool = False
    temporary: bool = False
    webhook: str | None = None
    after_s: float = 0.0
    priority: int = 0
    thread_priority: int | None = None
    ttl_strategy: str | None = None
    ttl_minutes: float | None = None
    visible: str | None = None
    assistant_visible: str | None = None
    """JSON that the metadata of a thread, or of an assistant, must contain to be there for the caller; None: none."""
    caller: str | None = None
    caller_key: str | None = None
    """Who asked for it, and with which API key: what the kill switch finds runs by."""


@dataclass(frozen=True, slots=True)
class CreatedRun:
    """What a create statement returns."""

    run_id: str
    thread_id: str
    assistant_id: str
    graph_id: str
    status: RunStatus
    attempt: int
    epoch_ms: int
    metadata: dict[str, Any]
    assistant_config: dict[str, Any]
    assistant_context: dict[str, Any]
    created_at: str
    updated_at: str
    begins_thread: bool = False
    """See `ClaimedRun`; false where the run was not claimed."""
    event_base: int = 0


@dataclass(frozen=True, slots=True)
class ThreadLock:
    """A thread's row, held for a decision about its runs."""

    status: str
    active_runs: int
    resting_status: RestingStatus


@dataclass(frozen=True, slots=True)
class Ended:
    """What a thread has left when one of its runs ended: active runs, and runs whose last event has no number yet."""

    active_runs: int
    owed: int


@dataclass(frozen=True, slots=True)
class Buried:
    """A run that crashed once too often and was ended by the sweeper."""

    key: RunKey
    attempt: int
    status: FinalStatus
    resumable: bool


@dataclass(frozen=True, slots=True)
class RunOutput:
    """What `wait` and `join` answer from when the log no longer has it. `values` is JSON text."""

    status: RunStatus
    error: dict[str, Any] | None
    values: str | None
    interrupts: dict[str, list[dict[str, Any]]] | None


def _key_params(key: RunKey) -> dict[str, Any]:
    return {"tenant_id": key.tenant_id, "thread_id": key.thread_id, "run_id": key.run_id}


def _new_run_params(run: NewRun) -> dict[str, Any]:
    return _key_params(run.key) | {
        "assistant_id": run.assistant_id,
        "kwargs": run.kwargs_json,
        "metadata": run.metadata_json,
        "config": run.config_json,
        "multitask_strategy": run.multitask_strategy,
        "resumable": run.resumable,
        "native": run.native,
        "temporary": run.temporary,
        "webhook": run.webhook,
        "caller": run.caller,
        "caller_key": run.caller_key,
        "priority": run.priority,
        "visible": run.visible,
        "assistant_visible": run.assistant_visible,
    }


async def create_on_idle_thread(
    conn: Conn, run: NewRun, *, claim_for: str | None, lease_s: float, notify: bool
) -> CreatedRun | None:
    """Create a run on a thread that has no active one, claimed by `claim_for` or pending. Commits.

    None: the thread or the assistant does not exist, or the thread is busy; the queued path tells which.
    """
    params = _new_run_params(run) | {
        "claim": claim_for is not None,
        "worker_id": claim_for,
        "lease_s": lease_s,
        "notify": notify,
    }
    cur = await conn.execute(_q["create_on_idle_thread"], await sealed(conn, run.key, params))
    return await _created(conn, run.key, await cur.fetchone())


async def create_with_thread(
    conn: Conn, run: NewRun, *, claim_for: str | None, lease_s: float, notify: bool
) -> CreatedRun | None:
    """Create a thread and its first run in one statement. Commits.

    None: no such assistant, or the thread exists already.
    """
    params = _new_run_params(run) | {
        "claim": claim_for is not None,
        "worker_id": claim_for,
        "lease_s": lease_s,
        "notify": notify,
        "after_s": run.after_s,
        "thread_metadata": run.thread_metadata_json,
        "ttl_strategy": run.ttl_strategy,
        "thread_priority": run.thread_priority,
        "ttl_minutes": run.ttl_minutes,
    }
    cur = await conn.execute(_q["create_with_thread"], await sealed(conn, run.key, params))
    return await _created(conn, run.key, await cur.fetchone())


async def create_queued(conn: Conn, run: NewRun) -> CreatedRun | None:
    """Add a pending run to a thread that this transaction has locked. None: no such assistant."""
    params = await sealed(conn, run.key, _new_run_params(run) | {"after_s": run.after_s})
    cur = await conn.execute(_q["create_queued"], params)
    return await _created(conn, run.key, await cur.fetchone())


async def _created(conn: Conn, key: RunKey, row: TupleRow | None) -> CreatedRun | None:
    if row is None:
        return None
    created = CreatedRun(*row[:14])
    if cipher_of(conn) is None:
        return created
    return replace(created, metadata=await opened_metadata(conn, key, created.metadata))


async def lock_thread(conn: Conn, tenant_id: str, thread_id: str, *, visible: str | None = None) -> ThreadLock | None:
    """Hold the thread's row until the transaction ends. None: no such thread."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "visible": visible}
    cur = await conn.execute(_q["lock_thread"], params)
    row = await cur.fetchone()
    return None if row is None else ThreadLock(*row)


async def active_runs(conn: Conn, tenant_id: str, thread_id: str) -> list[tuple[str, RunStatus]]:
    """The pending and running runs of a locked thread, oldest first."""
    cur = await conn.execute(_q["active_runs"], {"tenant_id": tenant_id, "thread_id": thread_id})
    return cast("list[tuple[str, RunStatus]]", await cur.fetchall())


async def remember_idempotency(conn: Conn, key: RunKey, *, idempotency_key: str, request_hash: bytes) -> bool:
    """Take an Idempotency-Key for the run about to be created; False when it is taken."""
    params = _key_params(key) | {"key": idempotency_key, "request_hash": request_hash}
    cur = await conn.execute(_q["remember_idempotency"], params)
    return await cur.fetchone() is not None


async def recall_idempotency(conn: Conn, tenant_id: str, *, idempotency_key: str) -> tuple[RunKey, bytes] | None:
    """The run an Idempotency-Key made, and the hash of the request that made it."""
    cur = await conn.execute(_q["recall_idempotency"], {"tenant_id": tenant_id, "key": idempotency_key})
    row = await cur.fetchone()
    return None if row is None else (RunKey(tenant_id, row[0], row[1]), bytes(row[2]))


async def forget_idempotency(conn: Conn) -> int:
    """Drop keys older than a day; returns how many."""
    return (await conn.execute(_q["forget_idempotency"])).rowcount


async def claim_next(conn: Conn, worker_id: str, *, limit: int, lease_s: float, max_crashes: int) -> list[ClaimedRun]:
    """Claim up to `limit` runs that are due, at most one per thread, and no last chances. Commits."""
    return await _claim(conn, _CLAIM_ORDINARY, worker_id, limit, lease_s, max_crashes)


async def claim_last_chance(conn: Conn, worker_id: str, *, lease_s: float, max_crashes: int) -> list[ClaimedRun]:
    """Claim a run that ends in an error if its process dies once more; never two of them for one process. Commits."""
    return await _claim(conn, _CLAIM_LAST_CHANCE, worker_id, 1, lease_s, max_crashes)


async def _claim(
    conn: Conn, statement: LiteralString, worker_id: str, limit: int, lease_s: float, max_crashes: int
) -> list[ClaimedRun]:
    params = {"worker_id": worker_id, "limit": limit, "lease_s": lease_s, "max_crashes": max_crashes}
    cur = await conn.execute(statement, params)
    return [ClaimedRun(RunKey(*row[:3]), *row[3:]) for row in await cur.fetchall()]


def renew_leases(conn: Connection[TupleRow], held: Sequence[tuple[RunKey, int]], *, lease_s: float) -> RenewedLeases:
    """Extend the leases of the given (run, attempt) pairs. Synchronous: it runs on the lease thread. Commits."""
    params = {
        "tenant_ids": [key.tenant_id for key, _ in held],
        "thread_ids": [key.thread_id for key, _ in held],
        "run_ids": [key.run_id for key, _ in held],
        "attempts": [attempt for _, attempt in held],
        "lease_s": lease_s,
    }
    rows = conn.execute(_q["renew_leases"], params).fetchall()
    renewed = {(RunKey(*row[:3]), cast("int", row[3])) for row in rows}
    wishes = [CancelWish(RunKey(*row[:3]), row[3], row[4], row[5]) for row in rows if row[4] is not None]
    return RenewedLeases(lost=[pair for pair in held if pair not in renewed], wishes=wishes)


@dataclass(frozen=True, slots=True)
class RenewedLeases:
    """Which attempts no longer hold a lease, and which of the others are wished to stop."""

    lost: list[tuple[RunKey, int]]
    wishes: list[CancelWish]


async def finish(
    conn: Conn,
    key: RunKey,
    attempt: int,
    *,
    status: FinalStatus,
    cancelled: bool,
    resting_status: RestingStatus,
    values: str | None,
    interrupts: str | None,
    error: str | None,
    events: int = 0,
    asked: str | None = None,
) -> Ended | None:
    """Write the outcome of an attempt and its thread's new face. Commits.

    `values`, `interrupts`, `error` are JSON text; None leaves the thread's values or interrupts as they are. `events`
    is how many numbers of the thread's events the run took, the last one included, `asked` JSON of what it asked. None
    when the attempt is over or, unless `cancelled`, when a cancel wish came first: nothing was written then.
    """
    params = _key_params(key) | {
        "attempt": attempt,
        "status": status,
        "cancelled": cancelled,
        "resting_status": resting_status,
        "has_values": values is not None,
        "values": values,
        "has_interrupts": interrupts is not None,
        "interrupts": interrupts,
        "error": error,
        "events": events,
        "asked": asked,
    }
    cur = await conn.execute(_q["finish"], await sealed(conn, key, params))
    row = await cur.fetchone()
    return None if row is None else Ended(*row)


async def finish_rolled_back(
    conn: Conn,
    key: RunKey,
    attempt: int,
    *,
    values: str | None,
    interrupts: str,
    error: str | None,
    events: int = 0,
) -> Ended | None:
    """Delete a rolled-back run whose checkpoints are gone, and restore its thread's face. Commits. Returns as
    `finish`."""
    params = _key_params(key) | {
        "attempt": attempt,
        "values": values,
        "interrupts": interrupts,
        "error": error,
        "events": events,
    }
    cur = await conn.execute(_q["finish_rolled_back"], await sealed(conn, key, params))
    row = await cur.fetchone()
    return None if row is None else Ended(*row)


async def release(conn: Conn, key: RunKey, attempt: int) -> bool:
    """Hand a running run back to the queue; no crash is counted. Commits. False: the attempt is over already."""
    cur = await conn.execute(_q["release"], _key_params(key) | {"attempt": attempt})
    return await cur.fetchone() is not None


async def disown(conn: Conn, *, worker_id: str) -> int:
    """Let the leases of a worker that is known to be dead run out at once; returns how many. Commits."""
    return len(await (await conn.execute(_q["disown"], {"worker_id": worker_id})).fetchall())


async def sweep_expired(conn: Conn, *, max_crashes: int, lease_s: float, limit: int = 100) -> list[tuple[RunKey, int]]:
    """Put runs with an expired lease back in the queue, one crash more each. Commits. Returns (run, dead attempt).

    Sweeps nothing during the first `lease_s` seconds of the Postgres server: nobody could renew before it was up.
    """
    cur = await conn.execute(_q["sweep_expired"], {"max_crashes": max_crashes, "lease_s": lease_s, "limit": limit})
    return [(RunKey(*row[:3]), row[3]) for row in await cur.fetchall()]


async def bury_poisoned(conn: Conn, *, max_crashes: int, lease_s: float, error: str, limit: int = 100) -> list[Buried]:
    """End runs whose lease expired for the `max_crashes`-th time. Commits. `error` is JSON text."""
    params = {"max_crashes": max_crashes, "lease_s": lease_s, "error": error, "limit": limit}
    cur = await conn.execute(_q["bury_poisoned"], params)
    return [Buried(RunKey(*row[:3]), *row[3:]) for row in await cur.fetchall()]


async def wish_cancel(
    conn: Conn, tenant_id: str, thread_id: str, *, run_ids: Iterable[str], action: CancelAction, reason: str | None
) -> list[str]:
    """Write a durable wish to stop on the running ones of these runs of a locked thread; returns their ids."""
    params = {
        "tenant_id": tenant_id,
        "thread_id": thread_id,
        "run_ids": list(run_ids),
        "action": action,
        "reason": reason,
    }
    return [row[0] for row in await (await conn.execute(_q["wish_cancel"], params)).fetchall()]


async def cancel_pending(
    conn: Conn, tenant_id: str, thread_id: str, *, run_ids: Iterable[str], error: str | None
) -> list[str]:
    """End the pending ones of these runs of a locked thread as interrupted; returns their ids."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "run_ids": list(run_ids), "error": error}
    return [row[0] for row in await (await conn.execute(_q["cancel_pending"], params)).fetchall()]


async def delete_pending(conn: Conn, tenant_id: str, thread_id: str, *, run_ids: Iterable[str]) -> list[str]:
    """Remove the pending ones of these runs of a locked thread (rollback); returns their ids."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "run_ids": list(run_ids)}
    return [row[0] for row in await (await conn.execute(_q["delete_pending"], params)).fetchall()]


async def delete_final(conn: Conn, key: RunKey) -> bool:
    """Remove a final run's row. False: no such run, or it is not final."""
    return await (await conn.execute(_q["delete_final"], _key_params(key))).fetchone() is not None


async def run_state(conn: Conn, key: RunKey, *, visible: str | None = None) -> RunState | None:
    """Status, attempt and error of a run; None when there is no such run (any more)."""
    row = await (await conn.execute(_q["run_state"], _key_params(key) | {"visible": visible})).fetchone()
    if row is None:
        return None
    status, attempt, epoch_ms, resumable, error = row[:5]
    return RunState(key, status, attempt, epoch_ms, resumable, await opened_error(cipher_of(conn), key, error))


async def cancel_wish(conn: Conn, key: RunKey) -> CancelWish | None:
    """The cancel wish on a run, if there is one."""
    row = await (await conn.execute(_q["run_state"], _key_params(key) | {"visible": None})).fetchone()
    return None if row is None or row[6] is None else CancelWish(key, row[1], row[6], row[7])


async def run_output(conn: Conn, key: RunKey) -> RunOutput | None:
    """Status, error and the thread's current values; sees hidden threads too, for a waiter that comes late."""
    row = await (await conn.execute(_q["run_output"], _key_params(key))).fetchone()
    if row is None:
        return None
    status, error, values, interrupts = row
    return RunOutput(
        status,
        await opened_error(cipher_of(conn), key, error),
        await open_text(cipher_of(conn), thread_place(key.tenant_id, key.thread_id, "values"), values),
        await opened_interrupts(conn, key, interrupts),
    )


async def run_face(conn: Conn, key: RunKey, *, visible: str | None = None) -> str | None:
    """A run as clients see it, as JSON text."""
    row = await (await conn.execute(_q["run_face"], _key_params(key) | {"visible": visible})).fetchone()
    return None if row is None else await faces.open_run(cipher_of(conn), key.tenant_id, cast("str", row[0]))


async def list_faces(
    conn: Conn,
    tenant_id: str,
    thread_id: str,
    *,
    status: str | None = None,
    limit: int = 10,
    offset: int = 0,
    fields: Sequence[str] | None = None,
) -> str:
    """A thread's runs, newest first, as a JSON array."""
    cipher, wanted = cipher_of(conn), fields
    if cipher is not None and fields is not None:
        fields = [*fields, "run_id"]  # what is sealed is bound to it
    params = {
        "tenant_id": tenant_id,
        "thread_id": thread_id,
        "status": status,
        "limit": limit,
        "offset": offset,
        "fields": None if fields is None else list(fields),
    }
    row = await (await conn.execute(_q["list_faces"], params)).fetchone()
    return "[]" if row is None else await faces.open_runs(cipher, tenant_id, cast("str", row[0]), fields=wanted)


async def thread_exists(conn: Conn, tenant_id: str, thread_id: str, *, visible: str | None = None) -> bool:
    """Whether clients can see this thread."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "visible": visible}
    return await (await conn.execute(_q["thread_exists"], params)).fetchone() is not None


async def cancellable_by_status(
    conn: Conn, tenant_id: str, *, statuses: Sequence[str], visible: str | None = None
) -> list[tuple[str, str]]:
    """(thread_id, run_id) of the tenant's runs in these states."""
    params = {"tenant_id": tenant_id, "statuses": list(statuses), "visible": visible}
    rows = await (await conn.execute(_q["cancellable_by_status"], params)).fetchall()
    return [(row[0], row[1]) for row in rows]


async def pending_up_to(conn: Conn, limit: int) -> int:
    """How many runs of all tenants wait; `limit` if it is that many or more."""
    row = await (await conn.execute(_q["pending_up_to"], {"limit": limit})).fetchone()
    return 0 if row is None else cast("int", row[0])
