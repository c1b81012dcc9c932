"""The checks of `waystation doctor` that are about guards: what is configured, and whether its parts answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from waystation.catalog.project import Project
from waystation.cli.check_verdicts import Verdict, fail, ok, warn
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation_db import kills
from waystation_db.errors import DatabaseError
from waystation_db.migrate import pending
from waystation_db.pool import Database

_LISTS = ("budgets", "rates", "permissions", "screening", "caps", "cache", "tool_cache", "failover", "cheaper")


async def check_guards(settings: Settings, project: Project) -> AsyncIterator[Verdict]:
    """What the policy has, whether its models can be made, whether budgets can be kept, and what is stopped now."""
    keys = project.guards
    if keys is not None:
        counts = [f"{len(getattr(keys, name))} {name}" for name in _LISTS if getattr(keys, name)]
        counts += [name for name in ("levels", "http") if getattr(keys, name, None) is not None]
        yield ok(f"waystation.guards: {', '.join(counts) or 'nothing but the kill switch'}")
    if settings.database_uri is None:
        return
    try:
        if await pending(settings.database_uri, phase="pre"):
            return  # told already
        async with Database(settings.database_uri, max_size=2, name="waystation-doctor", prepare=False) as db:
            if keys is not None:
                yield await _policy(settings, project, db)
            async with db.connection() as conn:
                for one in await kills.in_force(conn):
                    yield warn(
                        f"the kill switch has stopped {one.scope} {one.owner} (tenant {one.tenant_id}): {one.reason}",
                        f"waystation kill --lift {one.kill_id}",
                    )
    except DatabaseError:
        return  # told already


async def _policy(settings: Settings, project: Project, db: Database) -> Verdict:
    from waystation.services.guards import check_budgets, open_guards

    try:
        guards = open_guards(settings, project, db, None)
        try:
            await check_budgets(guards)
        finally:
            await guards.close()
    except ConfigError as error:
        return fail(error.message, "see docs/guards/policy.md")
    return ok("the guards' models can be made, and their ledger keeps budgets")
