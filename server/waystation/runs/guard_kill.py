"""The kill switch: stops all runs of a tenant, graph, assistant, user or key, and lets none begin until it is lifted.

    use ─▶ guard_kill, wishes to running runs, ends of pending ones ─commit, NOTIFY─▶ every process refuses new runs

A wish is durable and told to the workers at once. What slips through while the switch is being turned is found by the
next look, which every process takes once a second as long as anything is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import structlog

from waystation.auth import Principal
from waystation.auth.roles import roles_of
from waystation.errors import Forbidden, InvalidRequest, NotFound
from waystation.runs.cancel import tell_ended
from waystation.services import Services
from waystation.telemetry import metrics
from waystation_db import kills
from waystation_db.errors import DatabaseError
from waystation_db.kills import KillScope
from waystation_db.listen import Listener
from waystation_db.rows import RunKey

log = structlog.get_logger(__name__)

BATCH: Final = 500
"""Runs, or threads with pending runs, that one statement stops."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """How many runs were stopped: those that waited ended at once, those that ran were told to stop."""

    pending: int
    running: int


def only_admins(caller: Principal) -> None:
    """Let nobody but admins go on; without auth everybody is one.

    Raises:
        Forbidden: the caller is none.
    """
    if caller.rules is not None and not caller.is_studio and "admin" not in roles_of(caller.permissions):
        raise Forbidden("Only the role admin may do this")


async def use(
    services: Services, caller: Principal, *, scope: KillScope, owner: str, reason: str, for_s: float | None
) -> bytes:
    """Stop a scope within the caller's tenant: JSON of the kill, with how many runs it stopped.

    Raises:
        Forbidden: the caller is no admin.
        InvalidRequest: the scope is `tenant`, and `owner` is not the caller's.
        NotFound: the project has no such graph, or the tenant no such assistant or key.
    """
    only_admins(caller)
    await _check(services, caller, scope, owner)
    # The first of them in the same transaction: nobody else stops them first, and who asked hears how many they were.
    async with services.db.connection() as conn, conn.transaction():
        made = await kills.add(
            conn, caller.tenant_id, scope=scope, owner=owner, reason=reason, by=caller.identity, for_s=for_s
        )
        wished = await kills.wish_running(conn, limit=BATCH)
        ended = await kills.cancel_pending(conn, limit=BATCH)
    log.warning("the kill switch was used", scope=scope, owner=owner, tenant_id=caller.tenant_id, by=caller.identity)
    await services.kills.refresh()
    await _tell(services, wished, ended)
    more = await stop_all(services)
    stopped = {"pending": len(ended) + more.pending, "running": len(wished) + more.running}
    return orjson.dumps({**orjson.loads(made), "stopped": stopped})


async def lift(services: Services, caller: Principal, *, kill_id: str) -> bytes:
    """Let what a kill stopped go on: JSON of it. Runs that were stopped stay so.

    Raises:
        Forbidden: the caller is no admin. NotFound: no such kill is in force in the caller's tenant.
    """
    only_admins(caller)
    async with services.db.connection() as conn:
        lifted = await kills.lift(conn, caller.tenant_id, kill_id, by=caller.identity)
    if lifted is None:
        raise NotFound("No such kill is in force")
    log.warning("the kill switch was lifted", kill_id=kill_id, tenant_id=caller.tenant_id, by=caller.identity)
    await services.kills.refresh()
    return lifted


async def list_all(services: Services, caller: Principal, *, in_force: bool, limit: int, offset: int) -> list[bytes]:
    """The kills that concern the caller's tenant, the newest first. Raises Forbidden: the caller is no admin."""
    only_admins(caller)
    async with services.db.connection() as conn:
        return await kills.list_page(
            conn, caller.tenant_id, in_force=in_force, everybody=True, limit=limit, offset=offset
        )


async def stop_all(services: Services) -> Stopped:
    """Stop every run, of all tenants, that is killed and goes on."""
    running, pending = 0, 0
    while True:
        async with services.db.connection() as conn, conn.transaction():
            wished = await kills.wish_running(conn, limit=BATCH)
            ended = await kills.cancel_pending(conn, limit=BATCH)
        await _tell(services, wished, ended)
        running, pending = running + len(wished), pending + len(ended)
        if not wished and not ended:
            return Stopped(pending, running)


async def _tell(services: Services, wished: Sequence[tuple[RunKey, str]], ended: Sequence[RunKey]) -> None:
    for key, reason in wished:
        services.wakeups.stop_run(key, "interrupt", reason)
    for key in ended:
        await tell_ended(services, key, "interrupt")
    if wished or ended:
        metrics.RUNS_KILLED.inc(len(wished) + len(ended))
        log.warning("runs were stopped by the kill switch", running=len(wished), pending=len(ended))


async def _check(services: Services, caller: Principal, scope: KillScope, owner: str) -> None:
    match scope:
        case "tenant":
            if owner != caller.tenant_id:
                raise InvalidRequest("body.id: with the scope tenant, the caller's own tenant was expected")
        case "graph":
            if owner not in services.project.graphs:
                raise NotFound("The project has no such graph")
        case "key":
            async with services.db.connection() as conn:
                if await kills.tenant_of_key(conn, owner) != caller.tenant_id:
                    raise NotFound("There is no such API key")
        case "assistant" | "user":
            pass


class KillClock:
    """Keeps a process's view of the switch fresh, and stops what slipped through."""

    def __init__(self, services: Services, listener: Listener) -> None:
        self._services = services
        self._listener = listener
        self._wake = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Look until the block is left. What is stopped is known when it begins."""
        await self._services.kills.refresh()
        tasks = [asyncio.create_task(self._hear(), name="hear-kills"), asyncio.create_task(self._run(), name="kills")]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _hear(self) -> None:
        with self._listener.subscribe(kills.CHANNEL) as heard:
            async for _ in heard:
                self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._services.kills.refresh()
                if self._services.kills.in_force:
                    await stop_all(self._services)
            except DatabaseError as error:
                log.warning("the kill switch cannot be read, trying again", error=str(error))
            except Exception:
                # The loop's boundary: a process that has stopped looking would let killed runs go on.
                log.exception("the kill switch cannot be read, trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._services.settings.poll_s * random.uniform(0.8, 1.0)):
                    await self._wake.wait()
