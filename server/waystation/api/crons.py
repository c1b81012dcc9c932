"""Crons: runs at times, on a thread or without one."""

from __future__ import annotations

from starlette.responses import Response

from waystation.api.dependencies import (
    CallerDep,
    CronId,
    JSONBytes,
    ServicesDep,
    ThreadId,
    json_response,
    no_content,
    paging_headers,
)
from waystation.api.routing import Router, errors
from waystation.runs import crons
from waystation.runs.cron_bodies import Cron, CronCount, CronCreate, CronPatchBody, CronSearch, SelectedCron

router = Router(tags=["Crons"])


@router.post("/runs/crons", response_model=Cron, responses=errors(400, 404), summary="Create a cron")
async def create_cron(body: CronCreate, services: ServicesDep, caller: CallerDep) -> Response:
    """Each firing makes a thread of its own; with `on_run_completed: delete`, the default, it goes with the run."""
    return JSONBytes(await crons.create_cron(services, caller, thread_id=None, body=body))


@router.post(
    "/threads/{thread_id}/runs/crons", response_model=Cron, responses=errors(400, 404), summary="Create a thread's cron"
)
async def create_thread_cron(
    thread_id: ThreadId, body: CronCreate, services: ServicesDep, caller: CallerDep
) -> Response:
    """Each firing is a run on this thread, after the others unless `multitask_strategy` says otherwise."""
    return JSONBytes(await crons.create_cron(services, caller, thread_id=thread_id, body=body))


@router.post("/runs/crons/search", response_model=list[SelectedCron], summary="Search crons")
async def search_crons(body: CronSearch, services: ServicesDep, caller: CallerDep) -> Response:
    """A page of crons, the newest first unless sorted. `X-Pagination-Next` is there while more follow."""
    page = await crons.search_crons(services, caller, body=body)
    headers = paging_headers(offset=body.offset, returned=len(page.items), more=page.has_more)
    return JSONBytes(page.body, headers=headers)


@router.post("/runs/crons/count", response_model=int, summary="Count crons")
async def count_crons(body: CronCount, services: ServicesDep, caller: CallerDep) -> Response:
    """How many crons match."""
    return json_response(await crons.count_crons(services, caller, body=body))


@router.get("/runs/crons/{cron_id}", response_model=Cron, responses=errors(404), summary="Get a cron")
async def get_cron(cron_id: CronId, services: ServicesDep, caller: CallerDep) -> Response:
    """One cron. `next_run_date` is UTC, also where the cron is paused or at its end."""
    return JSONBytes(await crons.get_cron(services, caller, cron_id=cron_id))


@router.patch("/runs/crons/{cron_id}", response_model=Cron, responses=errors(400, 404), summary="Change a cron")
async def patch_cron(cron_id: CronId, body: CronPatchBody, services: ServicesDep, caller: CallerDep) -> Response:
    """Merges metadata and replaces the other members given. `enabled: false` pauses it."""
    return JSONBytes(await crons.patch_cron(services, caller, cron_id=cron_id, body=body))


@router.delete("/runs/crons/{cron_id}", status_code=204, responses=errors(404), summary="Delete a cron")
async def delete_cron(cron_id: CronId, services: ServicesDep, caller: CallerDep) -> Response:
    """Deletes a cron. Runs that it made stay."""
    await crons.delete_cron(services, caller, cron_id=cron_id)
    return no_content()
