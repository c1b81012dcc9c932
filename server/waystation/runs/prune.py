"""How threads end, or lose their past: deleted or pruned by a client, swept when their time is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Literal

from waystation.auth import Principal
from waystation.errors import InvalidRequest
from waystation.runs.graph_access import on_graph_loop, thread_not_found
from waystation.runs.permission import ask, visible_thread
from waystation.services import GraphSide, Services
from waystation_db import thread_removal
from waystation_db.thread_removal import DeletedThread

_DELETED = "thread deleted"

_log = logging.getLogger(__name__)


async def delete_thread(services: Services, caller: Principal, *, thread_id: str) -> None:
    """Delete a thread, its runs (those that are active are stopped) and its checkpoints.

    Raises:
        NotFound: no such thread.
    """
    if not await _delete(services, caller, thread_id):
        raise thread_not_found(thread_id)


async def prune_threads(
    services: Services,
    caller: Principal,
    *,
    thread_ids: Sequence[str],
    strategy: Literal["delete", "keep_latest"],
) -> int:
    """Delete threads, or all but the latest checkpoint of each namespace of them. How many; unknown ones do not count.

    With `keep_latest` busy threads are passed over: what their runs begin from may be an older checkpoint.

    Raises:
        InvalidRequest: a thread's graph keeps its state in such a way that older checkpoints are needed.
    """
    distinct = list(dict.fromkeys(thread_ids))
    visible = None if caller.rules is None else await ask(caller, "threads", "delete", {"thread_ids": distinct})
    if strategy == "delete":
        # One transaction each: deleting the runs of many threads at once could deadlock with lease renewals.
        return sum([await _delete(services, caller, thread_id) for thread_id in distinct])
    async with services.db.connection() as conn:
        idle = await thread_removal.idle_among(conn, caller.tenant_id, distinct, visible=visible)

    for thread_id in idle:
        await on_graph_loop(services, partial(_trim, tenant_id=caller.tenant_id, thread_id=thread_id))
    return len(idle)


async def sweep_threads(side: GraphSide, *, limit: int) -> int:
    """End up to `limit` threads of each kind whose time is over, by their strategy. How many. For upkeep."""
    async with side.db.connection() as conn:
        swept = await thread_removal.sweep_expired(conn, limit)
        keeping = await thread_removal.expired_keeping_latest(conn, limit)
    for key in keeping:
        try:
            await _trim(side, tenant_id=key.tenant_id, thread_id=key.thread_id)
        except InvalidRequest:
            # Its clock stops all the same, or every sweep would come back to it.
            _log.info("thread keeps its older checkpoints", extra={"thread_id": key.thread_id})
        async with side.db.connection() as conn:
            await thread_removal.mark_trimmed(conn, key.tenant_id, [key.thread_id])
    return len(swept) + len(keeping)


async def _trim(side: GraphSide, *, tenant_id: str, thread_id: str) -> None:
    try:
        await side.saver.for_tenant(tenant_id).aprune([thread_id], strategy="keep_latest")
    except NotImplementedError:
        raise InvalidRequest(
            f"keep_latest is not possible for thread {thread_id}: its state is kept as differences between checkpoints"
        ) from None


async def _delete(services: Services, caller: Principal, thread_id: str) -> bool:
    visible = await visible_thread(caller, "delete", thread_id)
    async with services.db.connection() as conn, conn.transaction():
        deleted = await thread_removal.delete(conn, caller.tenant_id, [thread_id], visible=visible)
    for thread in deleted:
        await _let_go(services, thread)
    return bool(deleted)


async def _let_go(services: Services, thread: DeletedThread) -> None:
    """After the commit: hints to the worker of this process and to the event log."""
    for key in thread.active_runs:
        services.wakeups.stop_run(key, "interrupt", _DELETED)
    for key in (*thread.active_runs, *thread.ended_runs):
        await services.log.forget(key)
