"""Admission: from a valid request to a committed run row.

A run on an idle thread is created in one statement, and already claimed when a slot of this process is free. Everything
else (a busy thread, a delay, an Idempotency-Key) goes through one transaction that holds the thread's row: the
multitask
decision, the row, the wake-up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

import orjson
import uuid_utils

from waystation.auth import Principal
from waystation.catalog import default_assistant_id
from waystation.errors import BadRequest, Conflict, InvalidRequest, NotFound, ThreadBusy
from waystation.guarding.kill import key_of
from waystation.runs.cancel import tell_ended
from waystation.runs.permission import IfNotExists, RunWish, permitted_run
from waystation.runs.priority import precedence
from waystation.runs.requests import RunCreate, StatelessRunCreate, ThreadRunCreate
from waystation.runs.run_kwargs import Origin, stored_kwargs
from waystation.runs.threads import default_ttl
from waystation.runs.webhook_urls import webhook_of
from waystation.services import Services
from waystation_db import runs, thread_events
from waystation_db.json import dumps
from waystation_db.rows import CancelAction, ClaimedRun, RunKey
from waystation_db.runs import Conn, CreatedRun, NewRun

DISPLACED = "displaced by a newer run on the thread (multitask_strategy={})"
_NOT_FOUND = "Thread or assistant not found."


@dataclass(frozen=True, slots=True)
class Displaced:
    """What a new run took the place of: pending runs that are over, and running ones that are wished to stop."""

    ended: tuple[RunKey, ...] = ()
    wished: tuple[RunKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A run that exists now. `kwargs` is what its row keeps of the request."""

    key: RunKey
    row: CreatedRun
    kwargs: dict[str, Any]
    resumable: bool
    multitask_strategy: str = "enqueue"
    displaced: Displaced = Displaced()

    def face(self) -> bytes:
        """The run as the client that created it sees it: pending, whether or not it was claimed at once."""
        return dumps(  # Postgres gives large numbers back as integers that orjson refuses
            {
                "run_id": self.row.run_id,
                "thread_id": self.row.thread_id,
                "assistant_id": self.row.assistant_id,
                "metadata": self.row.metadata,
                "status": "pending",
                "kwargs": self.kwargs,
                "multitask_strategy": self.multitask_strategy,
                "created_at": self.row.created_at,
                "updated_at": self.row.updated_at,
                "langsmith_session_name": None,
            }
        )


async def create_on_thread(
    services: Services, caller: Principal, *, thread_id: str, request: ThreadRunCreate, origin: Origin
) -> Admitted:
    """Create a run on a thread.

    Raises:
        NotFound: no such thread or assistant.
        ThreadBusy: the strategy is `reject` and a run is active.
        InvalidRequest, BadRequest: the request makes no sense.
        Forbidden, Refused: the caller may not; Killed: nobody may, the kill switch is on.
        Conflict: the Idempotency-Key was used for a different request.
    """
    key = RunKey(caller.tenant_id, thread_id, origin.run_id or str(uuid_utils.uuid7()))
    prepared = await _prepare(services, caller, key, request, origin, temporary=False)
    fast = origin.idempotency_key is None and not prepared.run.after_s
    if fast and (admitted := await _create_on_idle(services, prepared)):
        return admitted
    return await _create_queued(services, prepared)


def stateless_thread_id(run_id: str) -> str:
    """The thread of a stateless run: its own id with the last bit turned, so that either leads to the other."""
    return str(UUID(int=UUID(run_id).int ^ 1))


async def create_stateless(
    services: Services, caller: Principal, *, request: StatelessRunCreate, origin: Origin
) -> Admitted:
    """Create a run on a thread made for it. Raises as `create_on_thread`, except for threads."""
    temporary = request.on_completion == "delete"
    prepared = await _prepare(services, caller, _stateless_key(caller, origin), request, origin, temporary=temporary)
    if origin.idempotency_key is not None:
        return await _create_idempotent_stateless(services, prepared)
    admitted = await _create_with_thread(services, prepared)
    if admitted is None:
        raise NotFound(_NOT_FOUND)
    return admitted


async def create_batch(
    services: Services, caller: Principal, *, requests: Sequence[StatelessRunCreate], origin: Origin
) -> list[Admitted]:
    """Create several stateless runs, all or none."""
    prepared = [
        await _prepare(
            services, caller, _stateless_key(caller, origin), r, origin, temporary=r.on_completion == "delete"
        )
        for r in requests
    ]
    await services.queue.take(len(prepared))
    created: list[Admitted] = []
    async with services.db.connection() as conn, conn.transaction():
        for one in prepared:
            row = await runs.create_with_thread(conn, one.run, claim_for=None, lease_s=0, notify=True)
            if row is None:
                raise NotFound(_NOT_FOUND)
            created.append(one.admitted(row))
    services.wakeups.work_available()
    await note_run(services, *created)
    return created


async def create_within(
    services: Services,
    conn: Conn,
    caller: Principal,
    *,
    thread_id: str | None,
    request: ThreadRunCreate | StatelessRunCreate,
    origin: Origin,
) -> Admitted:
    """Create a run as part of the caller's transaction, on a thread or, without one, statelessly. `announce` it after
    the commit. Raises as `create_on_thread`."""
    if thread_id is not None and isinstance(request, ThreadRunCreate):
        key = RunKey(caller.tenant_id, thread_id, origin.run_id or str(uuid_utils.uuid7()))
        prepared = await _prepare(services, caller, key, request, origin, temporary=False)
        return await _create_locked(conn, prepared)
    temporary = isinstance(request, StatelessRunCreate) and request.on_completion == "delete"
    prepared = await _prepare(services, caller, _stateless_key(caller, origin), request, origin, temporary=temporary)
    row = await runs.create_with_thread(conn, prepared.run, claim_for=None, lease_s=0, notify=True)
    if row is None:
        raise NotFound(_NOT_FOUND)
    return prepared.admitted(row)


async def announce(services: Services, admitted: Admitted) -> None:
    """Tell whom it concerns of a run that is committed: the workers, and the readers of the runs that it displaced."""
    await _after_commit(services, admitted, admitted.multitask_strategy)
    await note_run(services, admitted)


@dataclass(frozen=True, slots=True)
class _Prepared:
    run: NewRun
    kwargs: dict[str, Any]
    origin: Origin
    request_hash: bytes
    if_not_exists: IfNotExists

    def admitted(self, row: CreatedRun, displaced: Displaced = Displaced()) -> Admitted:
        return Admitted(self.run.key, row, self.kwargs, self.run.resumable, self.run.multitask_strategy, displaced)

    def claimed(self, row: CreatedRun) -> ClaimedRun:
        return ClaimedRun(
            key=self.run.key,
            assistant_id=row.assistant_id,
            graph_id=row.graph_id,
            attempt=row.attempt,
            crashes=0,
            epoch_ms=row.epoch_ms,
            kwargs=self.kwargs,
            metadata=row.metadata,
            assistant_config=row.assistant_config,
            assistant_context=row.assistant_context,
            resumable=self.run.resumable,
            temporary=self.run.temporary,
            cancel_action=None,
            cancel_reason=None,
            begins_thread=row.begins_thread,
            waited_s=0.0,
            event_base=row.event_base,
        )


async def _prepare(
    services: Services, caller: Principal, key: RunKey, request: RunCreate, origin: Origin, *, temporary: bool
) -> _Prepared:
    assistant_id = resolve_assistant(services, request.assistant_id)
    services.kills.refuse(caller, assistant_id)
    if request.context and request.config.configurable:
        raise BadRequest(
            "context and config.configurable were both given: send one of them; context is the newer form."
        )
    webhook = webhook_of(services, request.webhook)
    on_thread = isinstance(request, ThreadRunCreate)
    wish = await permitted_run(
        caller,
        key,
        RunWish(
            metadata=request.metadata,
            kwargs=stored_kwargs(key, assistant_id, caller, request, origin, temporary=temporary),
            multitask_strategy=request.multitask_strategy if on_thread else "enqueue",
            if_not_exists=request.if_not_exists if on_thread else "create",
            after_s=request.after_seconds or 0.0,
        ),
        assistant_id=assistant_id,
        on_thread=on_thread,
        is_default=_is_default(services, assistant_id),
    )
    kwargs = wish.kwargs
    shown = {
        name: kwargs["config"][name] for name in ("tags", "recursion_limit", "metadata") if name in kwargs["config"]
    }
    ttl = None if temporary else origin.ttl or default_ttl(services.project)
    comes = await precedence(
        services, caller, key=key, assistant_id=assistant_id, metadata=wish.metadata, cron_id=origin.cron_id
    )
    run = NewRun(
        key=key,
        assistant_id=assistant_id,
        kwargs_json=orjson.dumps(kwargs).decode(),
        metadata_json=orjson.dumps(request.config.metadata | wish.metadata).decode(),
        config_json=orjson.dumps(shown).decode(),
        thread_metadata_json=orjson.dumps(wish.metadata).decode(),
        multitask_strategy=wish.multitask_strategy,
        resumable=request.stream_resumable,
        native=request.is_native,
        temporary=temporary,
        webhook=webhook,
        after_s=wish.after_s,
        priority=comes.claim,
        thread_priority=comes.thread,
        ttl_strategy=ttl.strategy if ttl else None,
        ttl_minutes=ttl.minutes if ttl else None,
        visible=wish.visible,
        assistant_visible=wish.assistant_visible,
        caller=caller.identity or None,
        caller_key=key_of(caller.user) or None,
    )
    hashed = b"" if origin.idempotency_key is None else _request_hash(request, key)
    if origin.idempotency_key is not None and caller.identity:
        # Keys are chosen by clients: two of them may choose the same.
        origin = replace(origin, idempotency_key=f"{caller.identity}\n{origin.idempotency_key}")
    return _Prepared(run, kwargs, origin, hashed, wish.if_not_exists)


def _is_default(services: Services, assistant_id: str) -> bool:
    return any(assistant_id == str(default_assistant_id(graph_id)) for graph_id in services.project.graphs)


def resolve_assistant(services: Services, name: str) -> str:
    """The UUID that an `assistant_id` of a request means: itself, or a graph's default assistant.

    Raises:
        InvalidRequest: neither a UUID nor a graph.
    """
    if name in services.project.graphs:
        return str(default_assistant_id(name))
    try:
        return str(UUID(name))
    except ValueError:
        known = ", ".join(services.project.graphs)
        raise InvalidRequest(
            f"Invalid assistant: {name!r}. assistant_id must be the UUID of an assistant or one of the graphs: {known}"
        ) from None


def _request_hash(request: RunCreate, key: RunKey) -> bytes:
    """Whether an Idempotency-Key comes with the same request again. A stateless run's thread is no part of that."""
    where = key.thread_id if isinstance(request, ThreadRunCreate) else ""
    return hashlib.sha256(f"{where}\n{request.model_dump_json()}".encode()).digest()


def _stateless_key(caller: Principal, origin: Origin) -> RunKey:
    run_id = origin.run_id or str(uuid_utils.uuid7())
    return RunKey(caller.tenant_id, stateless_thread_id(run_id), run_id)


async def _create_on_idle(services: Services, prepared: _Prepared) -> Admitted | None:
    return await _create_claimed(services, prepared, runs.create_on_idle_thread)


async def _create_with_thread(services: Services, prepared: _Prepared) -> Admitted | None:
    if prepared.run.after_s:
        await services.queue.take()
        async with services.db.connection() as conn:
            row = await runs.create_with_thread(conn, prepared.run, claim_for=None, lease_s=0, notify=True)
        if row is None:
            return None
        admitted = prepared.admitted(row)
        await note_run(services, admitted)
        return admitted
    return await _create_claimed(services, prepared, runs.create_with_thread)


async def _create_claimed(services: Services, prepared: _Prepared, create: Any) -> Admitted | None:
    """One statement; the run starts here and now when this process has a slot free."""
    local = services.wakeups.local
    slot = local is not None and local.reserve()
    if not slot:
        await services.queue.take()
    started = False
    try:
        async with services.db.connection() as conn:
            row = cast(
                "CreatedRun | None",
                await create(
                    conn,
                    prepared.run,
                    claim_for=local.worker_id if local is not None and slot else None,
                    lease_s=services.settings.lease_s,
                    notify=True,
                ),
            )
        if row is None:
            return None
        if local is not None and slot:
            local.start(prepared.claimed(row))
            started = True
        else:
            services.wakeups.work_available()
        admitted = prepared.admitted(row)
        await note_run(services, admitted)
        return admitted
    finally:
        if local is not None and slot and not started:
            local.release()


async def _create_queued(services: Services, prepared: _Prepared) -> Admitted:
    await services.queue.take()
    async with services.db.connection() as conn, conn.transaction():
        recalled = await _recall(conn, prepared)
        admitted = recalled or await _create_locked(conn, prepared)
    await _after_commit(services, admitted, prepared.run.multitask_strategy)
    if recalled is None:
        await note_run(services, admitted)
    return admitted


async def _create_locked(conn: Conn, prepared: _Prepared) -> Admitted:
    key, visible = prepared.run.key, prepared.run.visible
    lock = await runs.lock_thread(conn, key.tenant_id, key.thread_id, visible=visible)
    if lock is None and prepared.if_not_exists == "create":
        row = await runs.create_with_thread(conn, prepared.run, claim_for=None, lease_s=0, notify=True)
        if row is not None:
            return prepared.admitted(row)
        # Somebody else made the thread meanwhile, or there is no such assistant.
        lock = await runs.lock_thread(conn, key.tenant_id, key.thread_id, visible=visible)
    if lock is None:
        raise NotFound(_NOT_FOUND)
    return await _enqueue(conn, prepared, active=lock.active_runs)


async def _enqueue(conn: Conn, prepared: _Prepared, *, active: int) -> Admitted:
    """The multitask decision on a locked thread, then the new run behind it."""
    key, strategy = prepared.run.key, prepared.run.multitask_strategy
    displaced = Displaced()
    if active and strategy == "reject":
        raise ThreadBusy(
            "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
        )
    if active and strategy in ("interrupt", "rollback"):
        displaced = await displace(conn, key.tenant_id, key.thread_id, action=strategy)
    row = await runs.create_queued(conn, prepared.run)
    if row is None:
        raise NotFound(_NOT_FOUND)
    return prepared.admitted(row, displaced)


async def displace(conn: Conn, tenant_id: str, thread_id: str, *, action: CancelAction) -> Displaced:
    """Stop everything active on a locked thread: pending runs at once, running ones by a durable wish."""
    active = await runs.active_runs(conn, tenant_id, thread_id)
    ids = [run_id for run_id, _ in active]
    reason = DISPLACED.format(action)
    if action == "rollback":
        ended = await runs.delete_pending(conn, tenant_id, thread_id, run_ids=ids)
    else:
        ended = await runs.cancel_pending(conn, tenant_id, thread_id, run_ids=ids, error=None)
    if ended:
        await thread_events.settle_owed(conn, tenant_id, thread_id)
    wished = await runs.wish_cancel(conn, tenant_id, thread_id, run_ids=ids, action=action, reason=reason)
    return Displaced(
        tuple(RunKey(tenant_id, thread_id, run_id) for run_id in ended),
        tuple(RunKey(tenant_id, thread_id, run_id) for run_id in wished),
    )


async def _after_commit(services: Services, admitted: Admitted, strategy: str) -> None:
    action: CancelAction = "rollback" if strategy == "rollback" else "interrupt"
    for key in admitted.displaced.ended:
        await tell_ended(services, key, action)
    for key in admitted.displaced.wished:
        services.wakeups.stop_run(key, action, DISPLACED.format(action))
    services.wakeups.work_available()


async def note_run(services: Services, *admitted: Admitted) -> None:
    """Tell the audit log, where there is one, of runs that are committed."""
    keys = services.project.waystation.audit
    if services.audit is None or keys is None or "runs" not in keys.what:
        return
    from waystation.guarding.audit_runs import made_run  # loaded where a project keeps an audit log

    made = (made_run(one.key, one.kwargs, assistant_id=one.row.assistant_id) for one in admitted)
    await services.audit.record(*made)


async def _recall(conn: Conn, prepared: _Prepared) -> Admitted | None:
    """Take the Idempotency-Key, or find the run that it made.

    Waiting on a concurrent request with the same key is Postgres's doing: the insert blocks on the other's row.
    """
    idempotency_key = prepared.origin.idempotency_key
    if idempotency_key is None:
        return None
    key = prepared.run.key
    if await runs.remember_idempotency(conn, key, idempotency_key=idempotency_key, request_hash=prepared.request_hash):
        return None
    found = await runs.recall_idempotency(conn, key.tenant_id, idempotency_key=idempotency_key)
    if found is None or found[1] != prepared.request_hash:
        raise Conflict("Idempotency-Key: this key was used for a different request.")
    return await _existing(conn, found[0])


async def _existing(conn: Conn, key: RunKey) -> Admitted:
    face = await runs.run_face(conn, key)
    if face is None:
        raise Conflict("Idempotency-Key: the run that this key created has been deleted.")
    run = orjson.loads(face)
    row = CreatedRun(
        run_id=run["run_id"],
        thread_id=run["thread_id"],
        assistant_id=run["assistant_id"],
        graph_id=run["metadata"].get("graph_id", ""),
        status=run["status"],
        attempt=0,
        epoch_ms=0,
        metadata=run["metadata"],
        assistant_config={},
        assistant_context={},
        created_at=run["created_at"],
        updated_at=run["updated_at"],
    )
    return Admitted(key, row, run["kwargs"], bool(run["kwargs"].get("resumable")), run["multitask_strategy"])


async def _create_idempotent_stateless(services: Services, prepared: _Prepared) -> Admitted:
    await services.queue.take()
    async with services.db.connection() as conn, conn.transaction():
        known = await _recall(conn, prepared)
        if known is not None:
            return known
        row = await runs.create_with_thread(conn, prepared.run, claim_for=None, lease_s=0, notify=True)
        if row is None:
            raise NotFound(_NOT_FOUND)
    services.wakeups.work_available()
    admitted = prepared.admitted(row)
    await note_run(services, admitted)
    return admitted
