"""Threads: make, read, patch, find, copy, measure. How they end is in `prune.py`, their state in `state.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import orjson
import uuid_utils

from waystation.auth import Principal
from waystation.catalog import Project
from waystation.errors import BadRequest, Conflict, InvalidRequest, NotFound, Unavailable
from waystation.runs.extract import parse_extract
from waystation.runs.graph_access import thread_not_found
from waystation.runs.permission import ask, count_of, member_of, visible_thread
from waystation.runs.state_update import StateChange, apply_supersteps
from waystation.services import Services
from waystation_db import checkpoint_threads, threads
from waystation_db.tenants import checkpoint_thread
from waystation_db.threads import THREAD_FIELDS, ThreadFilter, ThreadSortBy, Ttl


@dataclass(frozen=True, slots=True)
class Created:
    """A thread as JSON; `problem` says why the state that was asked for is not in it."""

    thread_id: str
    thread: bytes
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a search's result: a JSON list, how many are in it, and whether there are more."""

    items: bytes
    returned: int
    more: bool


async def create_thread(
    services: Services,
    caller: Principal,
    *,
    thread_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    ttl: Ttl | None = None,
    if_exists: Literal["raise", "do_nothing"] = "raise",
    supersteps: Sequence[Sequence[StateChange]] = (),
) -> Created:
    """Make a thread, or with `do_nothing` take the one that is there; then replay `supersteps` on a new one.

    Raises:
        Conflict: the id is taken.
        InvalidRequest: the id is no UUID.
    """
    thread_id = str(uuid_utils.uuid7()) if thread_id is None else _canonical(thread_id)
    kept = {name: value for name, value in (metadata or {}).items() if name != "assistant_id"}
    visible = None
    if caller.rules is not None:
        value: dict[str, Any] = {"thread_id": UUID(thread_id), "metadata": kept, "if_exists": if_exists}
        if ttl is not None:
            value["ttl"] = {"strategy": ttl.strategy, "ttl": ttl.minutes}
        visible = await ask(caller, "threads", "create", value)
        kept = member_of(value, "metadata")
    async with services.db.connection() as conn:
        made = await threads.create(
            conn,
            caller.tenant_id,
            thread_id,
            metadata=orjson.dumps(kept).decode(),
            ttl=ttl or default_ttl(services.project),
        )
        if made is None:
            wanted = if_exists == "do_nothing"
            there = await threads.get(conn, caller.tenant_id, thread_id, visible=visible) if wanted else None
            if there is None:
                raise Conflict(f"Thread with ID {thread_id} already exists")
            return Created(thread_id, there)
    created = Created(thread_id, made)
    return await _replay(services, caller, created, supersteps) if supersteps else created


def default_ttl(project: Project) -> Ttl | None:
    """What `checkpointer.ttl` of the project gives to threads that are made without a TTL of their own."""
    keys = project.checkpointer.ttl if project.checkpointer else None
    return Ttl(keys.strategy, keys.default_ttl) if keys and keys.default_ttl is not None else None


async def get_thread(services: Services, caller: Principal, *, thread_id: str, with_ttl: bool = False) -> bytes:
    """A thread as JSON. Raises NotFound."""
    visible = await visible_thread(caller, "read", thread_id)
    async with services.db.connection() as conn:
        thread = await threads.get(conn, caller.tenant_id, thread_id, with_ttl=with_ttl, visible=visible)
    if thread is None:
        raise thread_not_found(thread_id)
    return thread


async def patch_thread(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    metadata: dict[str, Any],
    ttl: Ttl | None = None,
) -> bytes:
    """Merge metadata, set the TTL; also on a busy thread. The thread as JSON. Raises NotFound."""
    visible = None
    if caller.rules is not None:
        value: dict[str, Any] = {"thread_id": UUID(thread_id), "metadata": metadata}
        visible = await ask(caller, "threads", "update", value)
        metadata = member_of(value, "metadata")
    async with services.db.connection() as conn:
        thread = await threads.patch(
            conn, caller.tenant_id, thread_id, metadata=orjson.dumps(metadata).decode(), ttl=ttl, visible=visible
        )
    if thread is None:
        raise NotFound("Not Found")
    return thread


async def copy_thread(services: Services, caller: Principal, *, thread_id: str) -> bytes:
    """A new thread with the metadata and the checkpoints of another, and none of its runs. The new one as JSON.

    Raises:
        Conflict: there is no such thread; that is how the protocol says it.
    """
    copy_id = str(uuid_utils.uuid7())
    visible = await visible_thread(caller, "read", thread_id)
    added: dict[str, Any] = {}
    if caller.rules is not None:
        value: dict[str, Any] = {"thread_id": UUID(copy_id), "metadata": {}}
        await ask(caller, "threads", "create", value)
        added = member_of(value, "metadata")
    metadata = orjson.dumps(added).decode()
    source, copied = (checkpoint_thread(caller.tenant_id, one) for one in (thread_id, copy_id))
    async with services.db.connection() as conn, conn.transaction():
        made = await threads.copy(
            conn, caller.tenant_id, thread_id, copy_id=copy_id, metadata=metadata, visible=visible
        )
        if made is None:
            raise Conflict("Conflict")
        await checkpoint_threads.copy_thread(conn, source, copied)
    return made


async def search_threads(
    services: Services,
    caller: Principal,
    *,
    where: ThreadFilter,
    limit: int,
    offset: int,
    sort_by: ThreadSortBy | None = None,
    sort_order: Literal["asc", "desc"] = "desc",
    select: Sequence[str] = (),
    extract: dict[str, str] | None = None,
    with_ttl: bool = False,
) -> Page:
    """A page of threads. `extract` maps aliases to paths such as `values.log[-1]`.

    Raises:
        InvalidRequest: a path is none.
    """
    wishes = orjson.dumps(parse_extract(extract)).decode() if extract else None
    fields: list[str] | None = None
    if select or wishes is not None or with_ttl:
        fields = [*(select or THREAD_FIELDS), *(["ttl"] if with_ttl else [])]
    where, limit, offset, visible = await _permitted_search(caller, where, limit=limit, offset=offset)
    async with services.db.connection() as conn:
        found = await threads.search(
            conn,
            caller.tenant_id,
            where=where,
            limit=limit + 1,
            offset=offset,
            sort_by=sort_by,
            sort_order=sort_order,
            fields=fields,
            extract=wishes,
            visible=visible,
        )
    page = found[:limit]
    return Page(b"[" + b",".join(page) + b"]", returned=len(page), more=len(found) > limit)


async def count_threads(services: Services, caller: Principal, *, where: ThreadFilter) -> int:
    """How many threads match."""
    where, _, _, visible = await _permitted_search(caller, where, limit=0, offset=0)
    async with services.db.connection() as conn:
        return await threads.count(conn, caller.tenant_id, where=where, visible=visible)


async def thread_storage(services: Services, caller: Principal, *, thread_id: str) -> bytes:
    """What a thread's checkpoints take, as JSON. Raises NotFound."""
    visible = await visible_thread(caller, "read", thread_id)
    async with services.db.connection() as conn:
        if await threads.graph_of(conn, caller.tenant_id, thread_id, visible=visible) is None:
            raise thread_not_found(thread_id)
        used = await checkpoint_threads.storage(conn, checkpoint_thread(caller.tenant_id, thread_id))
    return orjson.dumps({"thread_id": thread_id, **used})


async def _permitted_search(
    caller: Principal, where: ThreadFilter, *, limit: int, offset: int
) -> tuple[ThreadFilter, int, int, str | None]:
    """What the rules leave of a search."""
    if caller.rules is None:
        return where, limit, offset, None
    value: dict[str, Any] = {
        "metadata": orjson.loads(where.metadata or "{}"),
        "values": orjson.loads(where.values or "{}"),
        "status": where.status,
        "limit": limit,
        "offset": offset,
        "ids": None if where.ids is None else [UUID(thread_id) for thread_id in where.ids],
    }
    visible = await ask(caller, "threads", "search", value)
    ids, left = value.get("ids"), {name: member_of(value, name) for name in ("metadata", "values")}
    asked = ThreadFilter(
        ids=None if ids is None else [str(thread_id) for thread_id in ids],
        metadata=orjson.dumps(left["metadata"]).decode() if left["metadata"] else None,
        values=orjson.dumps(left["values"]).decode() if left["values"] else None,
        status=value.get("status"),
    )
    return asked, count_of(value, "limit"), count_of(value, "offset"), visible


async def _replay(
    services: Services, caller: Principal, made: Created, supersteps: Sequence[Sequence[StateChange]]
) -> Created:
    try:
        thread = await apply_supersteps(services, caller, thread_id=made.thread_id, supersteps=supersteps)
    except (BadRequest, Conflict, NotFound, Unavailable) as error:
        return Created(made.thread_id, made.thread, problem=error.message)
    return Created(made.thread_id, thread)


def _canonical(thread_id: str) -> str:
    try:
        return str(UUID(thread_id))
    except ValueError:
        raise InvalidRequest("Invalid thread ID: must be a UUID") from None
