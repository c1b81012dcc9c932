"""Use cases of crons: make, find, change and delete them. Their firing is `cron_firing.py`'s."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import uuid_utils

from waystation.auth import Principal
from waystation.catalog import default_assistant_id
from waystation.errors import InvalidRequest, NotFound
from waystation.runs.assistants import Page
from waystation.runs.cron_bodies import CronCount, CronCreate, CronPatchBody, CronSearch, moment
from waystation.runs.cron_payloads import run_request, with_cron_id
from waystation.runs.schedules import Schedule, parse_schedule
from waystation.runs.webhook_urls import webhook_of
from waystation.services import Services
from waystation_db import crons
from waystation_db.crons import Conn, LockedCron
from waystation_db.json import dumps


async def create_cron(services: Services, caller: Principal, *, thread_id: str | None, body: CronCreate) -> bytes:
    """Make a cron, on a thread or, without one, for stateless runs.

    Raises:
        NotFound: no such assistant or thread. InvalidRequest: the schedule, its zone or a member of the run is wrong.
        BadRequest: context and configurable are both given.
    """
    cron_id = str(uuid_utils.uuid7())
    assistant_id = _assistant_id(services, body.assistant_id)
    sent = {**body.model_dump(exclude_unset=True), "assistant_id": assistant_id}
    value = _value(caller, cron_id, thread_id, body, payload=sent)
    await caller.may("crons", "create", value)
    payload: dict[str, Any] = with_cron_id(value.get("payload") or sent, cron_id)
    metadata: dict[str, Any] = value.get("metadata") or {}
    on_run_completed = None if thread_id else body.on_run_completed or "delete"
    _check_run(services, payload, assistant_id, thread_id, metadata=metadata)
    visible = await _may_run_on(caller, thread_id, assistant_id, payload)
    async with services.db.connection() as conn:
        if not await crons.assistant_exists(conn, caller.tenant_id, assistant_id):
            raise NotFound(f"Assistant '{body.assistant_id}' not found")
        if thread_id and not await crons.thread_exists(conn, caller.tenant_id, thread_id, visible=visible):
            raise _thread_not_found(thread_id)
        now = await crons.database_time(conn)
        schedule = _schedule(services, body.schedule, body.timezone, now)
        new = crons.NewCron(
            cron_id=cron_id,
            assistant_id=assistant_id,
            thread_id=thread_id,
            user_id=caller.identity,
            owner=_text({"identity": caller.identity, "permissions": list(caller.permissions), "user": caller.user}),
            schedule=body.schedule,
            timezone=body.timezone,
            end_time=None if body.end_time is None else moment(body.end_time),
            payload=_text(payload),
            metadata=_text(metadata),
            on_run_completed=on_run_completed,
            enabled=body.enabled is not False,
            next_run_at=schedule.after(now) or now,
        )
        return await crons.create(conn, caller.tenant_id, new)


async def get_cron(services: Services, caller: Principal, *, cron_id: str) -> bytes:
    """One cron. Raises NotFound."""
    visible = await caller.may("crons", "read", {"cron_id": cron_id})
    async with services.db.connection() as conn:
        found = await crons.get(conn, caller.tenant_id, cron_id, visible=visible)
    if found is None:
        raise NotFound("Not Found")
    return found


async def patch_cron(services: Services, caller: Principal, *, cron_id: str, body: CronPatchBody) -> bytes:
    """Change a cron. What was missed while it was paused stays missed.

    Raises:
        NotFound: no such cron. InvalidRequest, BadRequest: as `create_cron`.
    """
    sent = body.model_dump(exclude_unset=True)
    value: dict[str, Any] = {"cron_id": cron_id, "payload": sent, "schedule": body.schedule}
    if body.metadata is not None:
        value["metadata"] = dict(body.metadata)
    visible = await caller.may("crons", "update", value)
    async with services.db.connection() as conn, conn.transaction():
        held = await crons.lock(conn, caller.tenant_id, cron_id, visible=visible)
        if held is None:
            raise NotFound(f"Cron '{cron_id}' not found")
        change = await _change(services, conn, cron_id, held, body, value)
        changed = await crons.patch(conn, caller.tenant_id, cron_id, change=change)
    if changed is None:
        raise NotFound(f"Cron '{cron_id}' not found")
    return changed


async def delete_cron(services: Services, caller: Principal, *, cron_id: str) -> None:
    """Delete a cron; runs that it made stay. Raises NotFound."""
    visible = await caller.may("crons", "delete", {"cron_id": cron_id})
    async with services.db.connection() as conn:
        if not await crons.delete(conn, caller.tenant_id, cron_id, visible=visible):
            raise NotFound("Not Found")


async def search_crons(services: Services, caller: Principal, *, body: CronSearch) -> Page:
    """A page of crons."""
    visible = await caller.may("crons", "search", _wanted(body) | {"limit": body.limit, "offset": body.offset})
    async with services.db.connection() as conn:
        found = await crons.search(
            conn,
            caller.tenant_id,
            where=_filter(body),
            limit=body.limit + 1,
            offset=body.offset,
            sort_by=body.sort_by,
            ascending=body.sort_order == "asc",
            fields=body.select or None,
            visible=visible,
        )
    return Page(found[: body.limit], has_more=len(found) > body.limit)


async def count_crons(services: Services, caller: Principal, *, body: CronCount) -> int:
    """How many crons match."""
    visible = await caller.may("crons", "search", _wanted(body))
    async with services.db.connection() as conn:
        return await crons.count(conn, caller.tenant_id, where=_filter(body), visible=visible)


async def _change(
    services: Services, conn: Conn, cron_id: str, held: LockedCron, body: CronPatchBody, value: Mapping[str, Any]
) -> crons.CronPatch:
    payload = with_cron_id({**held.payload, **(value.get("payload") or {})}, cron_id)
    _check_run(services, payload, payload["assistant_id"], None, metadata={})
    next_run_at = None
    resumes = body.enabled is True and not held.enabled
    if resumes or body.schedule is not None or body.timezone is not None:
        now = await crons.database_time(conn)
        schedule = _schedule(services, body.schedule or held.schedule, body.timezone or held.timezone, now)
        next_run_at = schedule.after(now)
    metadata = value.get("metadata")
    return crons.CronPatch(
        payload=_text(payload),
        schedule=body.schedule,
        timezone=body.timezone,
        sets_end="end_time" in body.model_fields_set,
        end_time=None if body.end_time is None else moment(body.end_time),
        metadata=None if metadata is None else _text(metadata),
        on_run_completed=body.on_run_completed,
        enabled=body.enabled,
        next_run_at=next_run_at,
    )


def _schedule(services: Services, text: str, timezone: str | None, now: datetime) -> Schedule:
    schedule = parse_schedule(text, timezone, now=now)
    least_s = services.settings.cron_min_interval_s
    if least_s > 1:
        gap_s = schedule.shortest_gap_s(now)
        if gap_s is not None and gap_s < least_s:
            raise InvalidRequest(f"schedule: fires every {gap_s:g} s; at least {least_s:g} s must lie between two runs")
    return schedule


def _check_run(
    services: Services,
    payload: Mapping[str, Any],
    assistant_id: str,
    thread_id: str | None,
    *,
    metadata: Mapping[str, Any],
) -> None:
    """Refuse now what no firing could create."""
    request = run_request(
        payload, assistant_id=assistant_id, on_thread=thread_id is not None, metadata=metadata, on_run_completed=None
    )
    webhook_of(services, request.webhook)


async def _may_run_on(caller: Principal, thread_id: str | None, assistant_id: str, payload: Mapping[str, Any]) -> str:
    """Who makes a cron on a thread must be allowed to run there; what the thread's metadata must contain for that."""
    if thread_id is None:
        return "{}"
    value = {"thread_id": thread_id, "assistant_id": assistant_id, "metadata": {}, "kwargs": dict(payload)}
    return await caller.may("threads", "create_run", value)


def _assistant_id(services: Services, name: str) -> str:
    if name in services.project.graphs:
        return str(default_assistant_id(name))
    try:
        return str(UUID(name))
    except ValueError:
        raise NotFound(f"Assistant '{name[:200]}' not found") from None


def _value(
    caller: Principal, cron_id: str, thread_id: str | None, body: CronCreate, *, payload: dict[str, Any]
) -> dict[str, Any]:
    """What an authorization handler sees, and may rewrite."""
    return {
        "cron_id": cron_id,
        "thread_id": thread_id,
        "assistant_id": payload["assistant_id"],
        "user_id": caller.identity,
        "schedule": body.schedule,
        "end_time": body.end_time,
        "payload": payload,
        "metadata": dict(body.metadata or {}),
    }


def _thread_not_found(thread_id: str) -> NotFound:
    return NotFound(
        f"Thread with ID '{thread_id}' not found. Please verify the ID is correct and the thread hasn't been deleted "
        "or expired."
    )


def _wanted(body: CronCount) -> dict[str, Any]:
    return {"assistant_id": body.assistant_id, "thread_id": body.thread_id, "metadata": dict(body.metadata or {})}


def _filter(body: CronCount) -> crons.CronFilter:
    return crons.CronFilter(
        metadata=None if body.metadata is None else _text(body.metadata),
        assistant_id=body.assistant_id,
        thread_id=body.thread_id,
        enabled=body.enabled,
    )


def _text(value: Mapping[str, Any]) -> str:
    return dumps(value).decode()
