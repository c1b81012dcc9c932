"""Reading runs: one, a thread's, and what a reader of events must know first."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from waystation.auth import Principal
from waystation.errors import InvalidRequest, NotFound
from waystation.runs.permission import visible_thread
from waystation.services import Services
from waystation_db import runs
from waystation_db.rows import RunKey, RunState

RUN_FIELDS = (
    "run_id",
    "thread_id",
    "assistant_id",
    "metadata",
    "status",
    "kwargs",
    "multitask_strategy",
    "created_at",
    "updated_at",
    "langsmith_session_name",
)


async def get_run(services: Services, caller: Principal, *, thread_id: str, run_id: str) -> bytes:
    """A run as JSON.

    Raises:
        NotFound: no such thread, or no such run on it.
    """
    visible = await visible_thread(caller, "read", thread_id, run_id=UUID(run_id))
    async with services.db.connection() as conn:
        face = await runs.run_face(conn, RunKey(caller.tenant_id, thread_id, run_id), visible=visible)
        if face is None and not await runs.thread_exists(conn, caller.tenant_id, thread_id, visible=visible):
            raise NotFound(f"Thread with ID {thread_id} not found")
    if face is None:
        raise NotFound("Not Found")
    return face.encode()


async def list_runs(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    limit: int,
    offset: int,
    status: str | None,
    select: Sequence[str] | None,
) -> bytes:
    """A thread's runs, newest first, as a JSON array.

    Raises:
        NotFound: no such thread.
        InvalidRequest: `select` names something that runs do not have.
    """
    unknown = [name for name in select or () if name not in RUN_FIELDS]
    if unknown:
        raise InvalidRequest(f"select: unknown members {unknown}. Expected some of: {', '.join(RUN_FIELDS)}")
    visible = await visible_thread(caller, "read", thread_id)
    async with services.db.connection() as conn:
        if not await runs.thread_exists(conn, caller.tenant_id, thread_id, visible=visible):
            raise NotFound(f"Thread with ID {thread_id} not found")
        faces = await runs.list_faces(
            conn, caller.tenant_id, thread_id, status=status, limit=limit, offset=offset, fields=select
        )
    return faces.encode()


async def readable_run(
    services: Services, caller: Principal, *, thread_id: str, run_id: str, to_cancel: bool = False
) -> RunKey:
    """The run that somebody wants to read as it goes on, and with `to_cancel` to stop by leaving.

    Raises:
        NotFound: the thread is not there for the caller. Whether the run is, is not looked at.
    """
    asked = [await visible_thread(caller, "read", thread_id, run_id=UUID(run_id))]
    if to_cancel:
        asked.append(await visible_thread(caller, "update", thread_id, action="interrupt"))
    for visible in asked:
        if visible is None:
            continue
        async with services.db.connection() as conn:
            if not await runs.thread_exists(conn, caller.tenant_id, thread_id, visible=visible):
                raise NotFound("Thread not found")
    return RunKey(caller.tenant_id, thread_id, run_id)


async def run_state(services: Services, key: RunKey) -> RunState | None:
    """Status of a run, its attempt and whether its stream can be resumed; None for an unknown one."""
    async with services.db.connection() as conn:
        return await runs.run_state(conn, key)
