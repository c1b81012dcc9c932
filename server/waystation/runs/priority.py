"""Which runs start first: what the project's function says of a thread, asked once and kept with it.

    first run on a thread ──▶ function on the graph loop ──▶ thread.priority ──▶ run.priority, by which runs are claimed
    later runs            ──────────────────────────────────────┘

Without `priority.path` nothing is asked, in the database neither. A function that fails keeps nobody from running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from langgraph_sdk import PriorityContext
from langgraph_sdk.auth.types import BaseUser

from waystation.auth import Principal, User
from waystation.services import GraphSide, Services
from waystation_db import priorities
from waystation_db.priorities import Standing
from waystation_db.rows import RunKey

DEADLINE_S = 5.0
"""How long the function may take; the request that creates the run waits for it."""

_DEFAULT = 0
_MOST = 5
_LONGEST_GROUP = 256
_NOBODY = User({"identity": "", "is_authenticated": False, "display_name": "", "permissions": []})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Precedence:
    """`claim`: by what the run is claimed, higher first. `thread`: what a thread that is made with the run keeps."""

    claim: int = 0
    thread: int | None = None


async def precedence(
    services: Services,
    caller: Principal,
    *,
    key: RunKey,
    assistant_id: str,
    metadata: Mapping[str, Any],
    cron_id: str | None,
) -> Precedence:
    """What holds for a run that is about to be created. Never fails because of the user's function."""
    if services.graphs.side.priority is None:
        return Precedence()
    async with services.db.connection() as conn:
        found = await priorities.standing(conn, key.tenant_id, thread_id=key.thread_id, assistant_id=assistant_id)
    if found is None:
        return Precedence()  # creating the run says that there is no such assistant
    if found.priority is not None:
        return Precedence(-found.priority)
    context = PriorityContext(
        user=cast("BaseUser", caller.user if isinstance(caller.user, User) else _NOBODY),  # a protocol of items
        permissions=caller.permissions,
        thread_id=key.thread_id if found.thread_exists else None,
        thread_metadata=found.thread_metadata,
        assistant_id=assistant_id,
        graph_id=found.graph_id,
        assistant_metadata=found.assistant_metadata,
        run_metadata=dict(metadata),
        cron_id=cron_id,
    )
    assigned = await _assigned(services, context)
    if assigned is None:
        return Precedence()
    return await _kept(services, key, assigned, found)


async def _kept(services: Services, key: RunKey, assigned: int, found: Standing) -> Precedence:
    if not found.thread_exists:
        return Precedence(-assigned, thread=assigned)
    async with services.db.connection() as conn:
        kept = await priorities.keep_priority(conn, key.tenant_id, thread_id=key.thread_id, priority=assigned)
    return Precedence(-(assigned if kept is None else kept))


async def _assigned(services: Services, context: PriorityContext) -> int | None:
    """The function's answer; None when it gave none that can be used."""

    async def ask(side: GraphSide) -> object:
        assert side.priority is not None
        return await side.priority(context)

    try:
        async with asyncio.timeout(DEADLINE_S):
            return priority_of(await services.graphs.call(ask))
    except TimeoutError:
        log.error("The function of priority.path takes too long; the run gets 0", extra={"deadline_s": DEADLINE_S})
    except Exception as error:  # the user's function: it decides who comes first, not who comes at all
        log.error("The function of priority.path failed; the run gets 0", exc_info=error)
    return None


def priority_of(settings: object) -> int:
    """The number in what the function returned: -5 runs first.

    Raises:
        TypeError, ValueError: it is none of the settings that `langgraph_sdk` describes.
    """
    if settings is None:
        return _DEFAULT
    if not isinstance(settings, Mapping):
        raise TypeError(f"expected PrioritySettings or None, found a {type(settings).__name__}")
    members = cast("Mapping[str, Any]", settings)
    priority, group = members.get("priority"), members.get("fairness_group")
    if group is not None and (not isinstance(group, str) or len(group) > _LONGEST_GROUP):
        raise ValueError(f"fairness_group: expected a text of at most {_LONGEST_GROUP} characters")
    if priority is None:
        return _DEFAULT
    if isinstance(priority, bool) or not isinstance(priority, int) or not -_MOST <= priority <= _MOST:
        raise ValueError(f"priority is {priority!r}: expected a whole number from {-_MOST} to {_MOST}")
    return priority
