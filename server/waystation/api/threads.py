"""Threads: create, read, patch, delete, search, count, copy, prune, measure."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Query
from starlette.responses import Response

from waystation.api.bodies_threads import ThreadCount, ThreadCreate, ThreadPatch, ThreadPrune, ThreadSearch
from waystation.api.dependencies import (
    CallerDep,
    JSONBytes,
    ServicesDep,
    ThreadId,
    json_response,
    no_content,
    paging_headers,
)
from waystation.api.objects_threads import Pruned, SelectedThread, StorageObject, ThreadObject
from waystation.api.routing import ErrorDetail, Router, errors
from waystation.runs import prune, threads

router = Router(tags=["Threads"])

Prefer = Annotated[str | None, Header(alias="Prefer", description="`return=minimal`: the answer needs no body.")]

Include = Annotated[list[str] | None, Query(description="`ttl` adds when and how the thread expires.")]

_THREAD: dict[int | str, dict[str, Any]] = {200: {"model": ThreadObject}}


@router.post(
    "/threads",
    summary="Create a thread",
    responses={
        **_THREAD,
        201: {"model": ErrorDetail, "description": "Created, but the supersteps could not be applied"},
        **errors(409),
    },
)
async def create_thread(body: ThreadCreate, services: ServicesDep, caller: CallerDep) -> Response:
    """Makes a thread, and with `supersteps` gives it a history."""
    created = await threads.create_thread(
        services,
        caller,
        thread_id=body.thread_id,
        metadata=body.metadata,
        ttl=body.ttl.to_ttl() if body.ttl else None,
        if_exists=body.if_exists,
        supersteps=[[update.to_change() for update in step.updates] for step in body.supersteps or []],
    )
    if created.problem is None:
        return JSONBytes(created.thread)
    problem = f"Thread {created.thread_id} was created, but there were problems updating the state: {created.problem}"
    return json_response({"detail": problem}, status_code=201)


@router.post("/threads/search", summary="Search threads", responses={200: {"model": list[SelectedThread]}})
async def search_threads(
    body: ThreadSearch, services: ServicesDep, caller: CallerDep, include: Include = None
) -> Response:
    """Newest first unless sorted. `X-Pagination-Next` is there as long as there are more."""
    page = await threads.search_threads(
        services,
        caller,
        where=body.to_filter(),
        limit=body.limit,
        offset=body.offset,
        sort_by=body.sort_by,
        sort_order=body.sort_order,
        select=body.select or (),
        extract=body.extract,
        with_ttl=_has_ttl(include),
    )
    return JSONBytes(page.items, headers=paging_headers(offset=body.offset, returned=page.returned, more=page.more))


@router.post("/threads/count", summary="Count threads", responses={200: {"model": int}})
async def count_threads(body: ThreadCount, services: ServicesDep, caller: CallerDep) -> Response:
    """How many threads match."""
    return json_response(await threads.count_threads(services, caller, where=body.to_filter()))


@router.post("/threads/prune", summary="Prune threads", responses={200: {"model": Pruned}, **errors(503)})
async def prune_threads(body: ThreadPrune, services: ServicesDep, caller: CallerDep) -> Response:
    """Deletes threads, or all but the latest checkpoints of those that are not busy. Unknown ids do not count."""
    count = await prune.prune_threads(services, caller, thread_ids=body.thread_ids, strategy=body.strategy)
    return json_response({"pruned_count": count})


@router.get("/threads/{thread_id}", summary="Get a thread", responses={**_THREAD, **errors(404)})
async def get_thread(
    thread_id: ThreadId, services: ServicesDep, caller: CallerDep, include: Include = None
) -> Response:
    """The thread as it is now."""
    return JSONBytes(await threads.get_thread(services, caller, thread_id=thread_id, with_ttl=_has_ttl(include)))


@router.patch(
    "/threads/{thread_id}",
    summary="Patch a thread",
    responses={**_THREAD, 204: {"description": "Patched; the caller prefers a minimal answer."}, **errors(404)},
)
async def patch_thread(
    thread_id: ThreadId, body: ThreadPatch, services: ServicesDep, caller: CallerDep, prefer: Prefer = None
) -> Response:
    """Merges metadata member by member and sets the TTL; also on a busy thread."""
    ttl = body.ttl.to_ttl() if body.ttl else None
    patched = await threads.patch_thread(services, caller, thread_id=thread_id, metadata=body.metadata, ttl=ttl)
    return no_content() if _prefers_minimal(prefer) else JSONBytes(patched)


@router.delete("/threads/{thread_id}", status_code=204, summary="Delete a thread", responses=errors(404))
async def delete_thread(thread_id: ThreadId, services: ServicesDep, caller: CallerDep) -> Response:
    """Deletes it with its runs and checkpoints. Runs in progress are stopped."""
    await prune.delete_thread(services, caller, thread_id=thread_id)
    return no_content()


@router.post("/threads/{thread_id}/copy", summary="Copy a thread", responses={**_THREAD, **errors(409)})
async def copy_thread(thread_id: ThreadId, services: ServicesDep, caller: CallerDep) -> Response:
    """A new thread with the same metadata and checkpoints, without the runs."""
    return JSONBytes(await threads.copy_thread(services, caller, thread_id=thread_id))


@router.get(
    "/threads/{thread_id}/storage", summary="Measure a thread", responses={200: {"model": StorageObject}, **errors(404)}
)
async def thread_storage(thread_id: ThreadId, services: ServicesDep, caller: CallerDep) -> Response:
    """What its checkpoints, channel values and pending writes take."""
    return JSONBytes(await threads.thread_storage(services, caller, thread_id=thread_id))


def _prefers_minimal(prefer: str | None) -> bool:
    return any(part.strip().lower() == "return=minimal" for part in (prefer or "").split(","))


def _has_ttl(include: list[str] | None) -> bool:
    return any("ttl" in part.split(",") for part in include or ())
