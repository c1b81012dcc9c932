"""The firing of a cron that is due: one transaction takes it, creates its run and moves it to its next tick.

take (skip locked) ──▶ create the run ──▶ next tick ──▶ commit ──▶ tell the workers
         │ what cannot be: its thread or assistant is gone, its zone is unknown ──▶ switched off, with the reason
         │ not now: the thread is busy and it is to be rejected, too much waits ──▶ next tick
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import structlog

from waystation.auth import Principal
from waystation.errors import BadRequest, InvalidRequest, Killed, NotFound, ThreadBusy, WaystationError
from waystation.runs.admission import Admitted, announce, create_within
from waystation.runs.cron_payloads import run_request
from waystation.runs.run_kwargs import Origin
from waystation.runs.schedules import Schedule, stored_schedule
from waystation.services import Services
from waystation.telemetry import metrics
from waystation_db import crons
from waystation_db.crons import Conn, DueCron
from waystation_db.retrying import is_passing

log = structlog.get_logger(__name__)

Missed = Literal["once", "skip", "all"]

LATE: Final = timedelta(seconds=30)
"""A tick that is older than this was missed: no worker was up, or none had the time."""

MOST_MISSED: Final = 100
"""With `all`, how many missed ticks of a cron are made up for in a row; the rest is one run."""

MOST_WAITING: Final = 50
"""Ticks of a cron whose thread has so many active runs are passed over: it would never catch up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a due tick leads to."""

    fires: bool
    next_tick: datetime | None
    late_firings: int = 0


def plan(missed: Missed, schedule: Schedule, *, due: datetime, now: datetime, late_firings: int) -> Plan:
    """What becomes of the tick `due`, and of those between it and `now`, by the rule for missed ones."""
    following = schedule.after(due)
    if following is None or following > now:
        return Plan(missed != "skip" or now - due <= LATE, schedule.after(max(due, now)))
    match missed:
        case "once":
            return Plan(True, schedule.after(now))
        case "skip":
            return Plan(now - due <= LATE, schedule.after(now))
        case "all":
            is_last = late_firings + 1 >= MOST_MISSED
            return Plan(True, schedule.after(now) if is_last else following, 0 if is_last else late_firings + 1)


async def fire_next(services: Services) -> bool:
    """Fire the cron, of any tenant, that has been due longest. False: none is due that nobody else has taken."""
    admitted: Admitted | None = None
    async with services.db.connection() as conn, conn.transaction():
        cron = await crons.take_due(conn)
        if cron is None:
            return False
        try:
            async with conn.transaction():  # what fails is undone, and the cron still held
                admitted = await _fire(services, conn, cron)
        except (NotFound, InvalidRequest, BadRequest) as error:
            await _switch_off(conn, cron, error.message)
        except Exception as error:
            if is_passing(error) and not isinstance(error, WaystationError):
                raise
            await _pass_over(conn, cron, error)
    if admitted is not None:
        metrics.CRON_FIRINGS.labels("fired").inc()
        await announce(services, admitted)
    return True


async def _fire(services: Services, conn: Conn, cron: DueCron) -> Admitted | None:
    schedule = stored_schedule(cron.schedule, cron.timezone)
    missed = services.settings.cron_missed
    planned = plan(missed, schedule, due=cron.due_at, now=cron.now, late_firings=cron.late_firings)
    admitted = None
    if cron.thread_id is not None and cron.thread_runs is None:
        raise NotFound("its thread does not exist any more")
    if planned.fires and (cron.thread_runs or 0) < MOST_WAITING:
        admitted = await _create(services, conn, cron)
    else:
        metrics.CRON_FIRINGS.labels("skipped").inc()
    if planned.next_tick is None:
        await crons.switch_off(conn, cron, reason="its schedule has no tick any more")
    else:
        await crons.move_on(conn, cron, next_run_at=planned.next_tick, late_firings=planned.late_firings)
    return admitted


async def _create(services: Services, conn: Conn, cron: DueCron) -> Admitted:
    request = run_request(
        cron.payload,
        assistant_id=cron.assistant_id,
        on_thread=cron.thread_id is not None,
        metadata=cron.metadata,
        on_run_completed=cron.on_run_completed,
    )
    owner = _owner(cron.tenant_id, cron.owner)
    origin = Origin(cron_id=cron.cron_id)
    return await create_within(services, conn, owner, thread_id=cron.thread_id, request=request, origin=origin)


def _owner(tenant_id: str, owner: Mapping[str, Any]) -> Principal:
    """Who made the cron, as the graph sees them. Whether they may was asked then."""
    return Principal(
        tenant_id=tenant_id,
        identity=owner.get("identity") or "",
        permissions=tuple(owner.get("permissions") or ()),
        user=owner.get("user"),
    )


async def _switch_off(conn: Conn, cron: DueCron, reason: str) -> None:
    metrics.CRON_FIRINGS.labels("disabled").inc()
    log.warning("a cron cannot fire; it is switched off", cron_id=cron.cron_id, reason=reason)
    await crons.switch_off(conn, cron, reason=reason)


async def _pass_over(conn: Conn, cron: DueCron, error: Exception) -> None:
    """This tick has no run; the next one is tried again."""
    metrics.CRON_FIRINGS.labels("skipped").inc()
    if not isinstance(error, ThreadBusy | Killed):
        log.error("a cron could not fire; its next tick is tried", cron_id=cron.cron_id, exc_info=error)
    next_tick = stored_schedule(cron.schedule, cron.timezone).after(cron.now)
    if next_tick is None:
        await crons.switch_off(conn, cron, reason="its schedule has no tick any more")
    else:
        await crons.move_on(conn, cron, next_run_at=next_tick)
