"""The limits of requests to the API of a process, where its project has any."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from waystation.catalog import Project
from waystation.config import Settings
from waystation_db.pool import Database

if TYPE_CHECKING:  # loaded where a project has limits
    from waystation.guarding.http_limit_windows import Windows
    from waystation.guarding.http_limits import HttpLimits
    from waystation_guards.ports import State

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_http_limits(
    settings: Settings, project: Project, db: Database, *, alone: bool
) -> AsyncGenerator[HttpLimits | None]:
    """The limits; None without any. On the API's loop. `alone`: no other process serves this API.

    Buckets and places are counted in Redis, else in Postgres, or in memory by a process that is alone. Sliding windows
    are counted in Redis, else by each process for itself.
    """
    keys = project.guards.http if project.guards is not None else None
    if keys is None or not (keys.limits or keys.open_streams):
        yield None
        return
    from waystation.guarding.http_limits import HttpLimits

    async with contextlib.AsyncExitStack() as stack:
        has_windows = any(limit.algorithm == "sliding_window" for limit in keys.limits)
        windows = await _windows(settings, stack, alone=alone) if has_windows else None
        limits = HttpLimits(keys, state_of=_states(settings, db, stack, alone=alone), windows=windows)
        await stack.enter_async_context(limits.running())
        yield limits


def _states(
    settings: Settings, db: Database, stack: contextlib.AsyncExitStack, *, alone: bool
) -> Callable[[str], State]:
    if settings.redis_uri is None and alone:
        from waystation_guards.memory.state import MemoryState

        state = MemoryState()
        return lambda _: state
    from waystation.guarding.ports import guard_stores

    stores = guard_stores(db, settings.redis_uri, key_prefix=settings.redis_key_prefix)
    stack.push_async_callback(stores.close)
    return lambda tenant: stores.ports_for(tenant).state


async def _windows(settings: Settings, stack: contextlib.AsyncExitStack, *, alone: bool) -> Windows:
    from waystation.guarding.http_limit_windows import windows_in_memory, windows_in_redis

    if settings.redis_uri is None:
        if not alone:
            log.warning("without REDIS_URI each process counts sliding windows of waystation.guards.http for itself")
        return windows_in_memory()
    windows = windows_in_redis(settings.redis_uri, key_prefix=settings.redis_key_prefix)
    stack.push_async_callback(windows.close)
    return windows
