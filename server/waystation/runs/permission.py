"""Asking the caller's rules, in the words that the project's handlers know from the platform.

Without rules nothing is asked and nothing is made for asking. What a rule leaves in the value is what is used; a value
that it left unusable lets nobody do anything, and is told to the operator.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from uuid import UUID

import orjson

from waystation.auth import ANYTHING, Principal, Resource
from waystation.errors import Forbidden
from waystation_db.json import dumps
from waystation_db.rows import MultitaskStrategy, RunKey

log = logging.getLogger(__name__)

IfNotExists = Literal["create", "reject"]


async def visible_thread(caller: Principal, action: str, thread_id: str | None = None, /, **members: Any) -> str | None:
    """Ask about a thread (or, without an id, about many).

    Returns what the thread's metadata must contain, as JSON, or None where that is nothing. Raises as `Principal.may`.
    """
    if caller.rules is None:
        return None
    return await ask(caller, "threads", action, {"thread_id": thread_id and UUID(thread_id), **members})


async def visible_assistant(caller: Principal, action: str, assistant_id: str, /, **members: Any) -> str | None:
    """As `visible_thread`, about an assistant."""
    if caller.rules is None:
        return None
    return await ask(caller, "assistants", action, {"assistant_id": UUID(assistant_id), **members})


async def ask(caller: Principal, resource: Resource, action: str, value: dict[str, Any]) -> str | None:
    """Ask with a value that the rules may rewrite; the answer is that of `visible_thread`."""
    allowed = await caller.may(resource, action, value)
    return None if allowed == ANYTHING else allowed


def member_of(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object that a rule was given, as it left it; none is as good as an empty one.

    Raises:
        Forbidden: it is something else now.
    """
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise unusable(name, found)
    return cast("dict[str, Any]", orjson.loads(dumps(found)))


def count_of(value: Mapping[str, Any], name: str) -> int:
    """A number that a rule was given, as it left it.

    Raises:
        Forbidden: it is something else now.
    """
    found = value.get(name)
    if type(found) is not int or not 0 <= found < 2**31:
        raise unusable(name, found)
    return found


def unusable(name: str, found: object) -> Forbidden:
    """What a caller is told when a rule of the project left a value that cannot be used."""
    log.error(
        "The project's auth left a value that cannot be used", extra={"member": name, "type": type(found).__name__}
    )
    return Forbidden("Forbidden")


@dataclass(frozen=True, slots=True)
class RunWish:
    """What of a run a rule may still change. `kwargs` is what the run's row is to keep of the request."""

    metadata: dict[str, Any]
    kwargs: dict[str, Any]
    multitask_strategy: MultitaskStrategy
    if_not_exists: IfNotExists
    after_s: float
    visible: str | None = None
    assistant_visible: str | None = None


async def permitted_run(
    caller: Principal, key: RunKey, wish: RunWish, *, assistant_id: str, on_thread: bool, is_default: bool
) -> RunWish:
    """Ask whether a run may be created: on the thread if there is one, and with the assistant unless it is one that its
    graph has from the start, which whoever may run anything may run.

    Raises:
        As `Principal.may`; Forbidden also where the rules left something unusable.
    """
    if caller.rules is None:
        return wish
    value: dict[str, Any] = {
        "thread_id": UUID(key.thread_id) if on_thread else None,
        "assistant_id": UUID(assistant_id),
        "run_id": UUID(key.run_id),
        "status": "pending",
        "metadata": dict(wish.metadata),
        "prevent_insert_if_inflight": wish.multitask_strategy == "reject",
        "multitask_strategy": wish.multitask_strategy,
        "if_not_exists": wish.if_not_exists,
        "after_seconds": wish.after_s,
        "kwargs": wish.kwargs,
    }
    visible = await ask(caller, "threads", "create_run", value)
    assistant_visible = None if is_default else await visible_assistant(caller, "read", assistant_id)
    return replace(_left(value, wish), visible=visible, assistant_visible=assistant_visible)


def _left(value: Mapping[str, Any], wish: RunWish) -> RunWish:
    kwargs = member_of(value, "kwargs")
    if not isinstance(member_of(kwargs, "config").get("configurable"), dict):
        raise unusable("kwargs.config.configurable", None)
    strategy, if_not_exists, after_s = (value.get(n) for n in ("multitask_strategy", "if_not_exists", "after_seconds"))
    if strategy not in ("reject", "enqueue", "interrupt", "rollback"):
        raise unusable("multitask_strategy", strategy)
    if if_not_exists not in ("create", "reject"):
        raise unusable("if_not_exists", if_not_exists)
    if not isinstance(after_s, int | float) or not 0 <= after_s < 1e9:
        raise unusable("after_seconds", after_s)
    return replace(
        wish,
        metadata=member_of(value, "metadata"),
        kwargs={**wish.kwargs, **kwargs},
        multitask_strategy=strategy,
        if_not_exists=if_not_exists,
        after_s=float(after_s),
    )
