"""The caller of a request, as every use case sees it, and the question every use case asks: may they?

    visible = await caller.may("threads", "read", {"thread_id": thread_id})
    row = await threads.get(conn, caller.tenant_id, thread_id, visible=visible)

The answer is the part of a resource's metadata that it must contain to exist for this caller.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from waystation.auth.filters import merge_filters

Resource = Literal["assistants", "threads", "crons", "store"]

ANYTHING: Final = "{}"
"""What `may` answers when no rule narrows what the caller sees: every metadata contains the empty object."""

NOTHING: Final = f'{{"": "{secrets.token_hex(16)}"}}'
"""What no metadata contains."""

DEFAULT_TENANT: Final = "default"

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@|+=~-]{0,127}")


def is_tenant_id(text: str) -> bool:
    """Whether a tenant may be called so. Its name is part of keys and ids, which are divided by slashes."""
    return _TENANT.fullmatch(text) is not None


class Rules(Protocol):
    """What roles, or the project's authorization handlers, say."""

    async def check(self, caller: Principal, resource: Resource, action: str, value: dict[str, Any]) -> str:
        """As `Principal.may`."""
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the tenant whose rows they see, their identity (empty without auth) and what they may do.

    `user` is what an `authenticate` handler returned, as JSON can carry it; graphs get it as `langgraph_auth_user`.
    """

    tenant_id: str = DEFAULT_TENANT
    identity: str = ""
    permissions: tuple[str, ...] = ()
    user: Mapping[str, Any] | None = None
    rules: Rules | None = None
    is_studio: bool = False
    seen: object = None
    """What the project's handlers see as the user, where that is not `user`."""

    async def may(self, resource: Resource, action: str, value: dict[str, Any]) -> str:
        """Ask the rules. `value` says what is about to happen; a rule may change it in place, and what is in it
        afterwards is what has to be used.

        Returns JSON for `metadata @> ...`: the resource exists for this caller only if its metadata contains it.

        Raises:
            Forbidden: it is not allowed.
            WaystationError: with the status that a rule chose.
        """
        if self.rules is None:
            return ANYTHING
        return await self.rules.check(self, resource, action, value)


class Both:
    """Two sets of rules, of which the first is asked first: what both allow is allowed."""

    def __init__(self, first: Rules, second: Rules) -> None:
        self._first = first
        self._second = second

    async def check(self, caller: Principal, resource: Resource, action: str, value: dict[str, Any]) -> str:
        one = await self._first.check(caller, resource, action, value)
        other = await self._second.check(caller, resource, action, value)
        return merge_filters(one, other) or NOTHING


ANONYMOUS = Principal()

ACTING_AS: ContextVar[Principal] = ContextVar("acting_as", default=ANONYMOUS)
"""Whom the code that runs here acts for: the caller of a request, the one whose run it is. What a graph asks of the API
of its own process is asked in their name."""
