"""Cancelling: a pending run ends at once, a running one gets a durable wish that its worker honours.

The wish is in Postgres before the answer is sent, so it survives the worker; the hint that follows only makes it quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from waystation.auth import Principal
from waystation.errors import NotFound
from waystation.events import ONLY_END, End
from waystation.runs.permission import visible_thread
from waystation.services import Services
from waystation.telemetry import counting
from waystation_db import runs, thread_events
from waystation_db.rows import FINAL_STATUSES, CancelAction, RunKey

USER_REASON = "interrupt requested via POST /threads/{thread_id}/runs/{run_id}/cancel"
ROLLBACK_REASON = "rollback requested via POST /threads/{thread_id}/runs/{run_id}/cancel"
LEFT_REASON = "client disconnected from the run stream (on_disconnect=cancel)"

_NONE_FOUND = "No runs found to cancel."
_NONE_MATCHING = (
    "No matching runs to cancel. Please verify the thread ID and run IDs are correct, and the runs haven't been deleted"
    " or completed."
)


@dataclass(frozen=True, slots=True)
class _Stopped:
    ended: list[RunKey]
    wished: list[RunKey]

    @property
    def all(self) -> list[RunKey]:
        return self.ended + self.wished


async def cancel_run(
    services: Services, caller: Principal, *, thread_id: str, run_id: str, action: CancelAction
) -> RunKey:
    """Stop one run. Returns at once; `until_final` waits.

    Raises:
        NotFound: no such run, or it is final already.
    """
    key = RunKey(caller.tenant_id, thread_id, run_id)
    visible = await _may_cancel(caller, action, thread_id=thread_id, run_ids=[run_id])
    async with services.db.connection() as conn:
        state = await runs.run_state(conn, key, visible=visible)
    if state is None:
        raise NotFound(_NONE_FOUND)
    stopped = None if state.is_final else await _stop(services, key, [run_id], action, _reason(action))
    if stopped is None or not stopped.all:
        raise NotFound(_NONE_MATCHING)
    return key


async def cancel_many(
    services: Services, caller: Principal, *, thread_id: str, run_ids: Sequence[str], action: CancelAction
) -> None:
    """Stop several runs of one thread; those that are final or unknown are passed over.

    Raises:
        NotFound: not one of them was stopped.
    """
    key = RunKey(caller.tenant_id, thread_id, "")
    visible = await _may_cancel(caller, action, thread_id=thread_id, run_ids=run_ids)
    stopped = await _stop(services, key, run_ids, action, _reason(action), visible=visible)
    if not stopped.all:
        raise NotFound(_NONE_FOUND)


async def cancel_by_status(
    services: Services, caller: Principal, *, statuses: Sequence[str], action: CancelAction
) -> None:
    """Stop all of the caller's runs in these states, thread by thread.

    Raises:
        NotFound: there was none.
    """
    visible = await _may_cancel(caller, action, statuses=statuses)
    async with services.db.connection() as conn:
        found = await runs.cancellable_by_status(conn, caller.tenant_id, statuses=statuses, visible=visible)
    count = 0
    for thread_id, group in groupby(found, key=lambda pair: pair[0]):
        key = RunKey(caller.tenant_id, thread_id, "")
        stopped = await _stop(services, key, [run_id for _, run_id in group], action, _reason(action))
        count += len(stopped.all)
    if not count:
        raise NotFound(_NONE_FOUND)


async def cancel_because_client_left(services: Services, key: RunKey) -> None:
    """Stop a run whose client went away and had asked for that. A run that is final already stays as it is."""
    await _stop(services, key, [key.run_id], "interrupt", LEFT_REASON)


async def until_final(services: Services, key: RunKey, *, resumable: bool) -> End:
    """Wait until the run is final (or gone)."""
    async for batch in services.log.read(key, after=ONLY_END, resumable=resumable):
        if isinstance(batch, End):
            return batch
    return End(None)


async def delete_run(services: Services, caller: Principal, *, thread_id: str, run_id: str) -> None:
    """Delete a run's row; an active one is stopped first. Checkpoints stay.

    Raises:
        NotFound: no such run.
    """
    key = RunKey(caller.tenant_id, thread_id, run_id)
    visible = await visible_thread(caller, "delete", thread_id, run_id=UUID(run_id))
    async with services.db.connection() as conn:
        state = await runs.run_state(conn, key, visible=visible)
    if state is None:
        raise NotFound("Run not found")
    if state.status not in FINAL_STATUSES:
        await _stop(services, key, [run_id], "interrupt", _reason("interrupt"))
        await until_final(services, key, resumable=state.resumable)
    async with services.db.connection() as conn:
        deleted = await runs.delete_final(conn, key)
    if not deleted:
        raise NotFound("Run not found")
    await services.log.forget(key)


async def tell_ended(services: Services, key: RunKey, action: CancelAction) -> None:
    """Count a run that ended while it was pending, and tell its readers: no worker will."""
    counting.run_ended("rollback" if action == "rollback" else "interrupted")
    if action == "rollback":
        await services.log.forget(key)
    else:
        await services.log.end(key, 0, End("interrupted"), resumable=False)
    services.log.begin(key)


def _reason(action: CancelAction) -> str:
    return ROLLBACK_REASON if action == "rollback" else USER_REASON


async def _may_cancel(
    caller: Principal,
    action: CancelAction,
    *,
    thread_id: str | None = None,
    run_ids: Sequence[str] | None = None,
    statuses: Sequence[str] = (),
) -> str | None:
    """Stopping runs changes their threads."""
    if caller.rules is None:
        return None
    named = {
        "run_ids": None if run_ids is None else [UUID(run_id) for run_id in run_ids],
        "status": None if not statuses else "all" if len(statuses) > 1 else statuses[0],
    }
    return await visible_thread(caller, "update", thread_id, action=action, metadata=named)


async def _stop(
    services: Services,
    key: RunKey,
    run_ids: Sequence[str],
    action: CancelAction,
    reason: str,
    *,
    visible: str | None = None,
) -> _Stopped:
    tenant_id, thread_id = key.tenant_id, key.thread_id
    async with services.db.connection() as conn, conn.transaction():
        if await runs.lock_thread(conn, tenant_id, thread_id, visible=visible) is None:
            return _Stopped([], [])
        if action == "rollback":
            ended = await runs.delete_pending(conn, tenant_id, thread_id, run_ids=run_ids)
        else:
            ended = await runs.cancel_pending(conn, tenant_id, thread_id, run_ids=run_ids, error=None)
        if ended:
            await thread_events.settle_owed(conn, tenant_id, thread_id)
        wished = await runs.wish_cancel(conn, tenant_id, thread_id, run_ids=run_ids, action=action, reason=reason)
    stopped = _Stopped(
        [RunKey(tenant_id, thread_id, run_id) for run_id in ended],
        [RunKey(tenant_id, thread_id, run_id) for run_id in wished],
    )
    for wish in stopped.wished:
        services.wakeups.stop_run(wish, action, reason)
    for key in stopped.ended:
        await tell_ended(services, key, action)
    if stopped.ended:
        services.wakeups.work_available()
    return stopped
