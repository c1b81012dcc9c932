"""The caller of a request, as every use case sees it, and the question every use case asks: may they?

    allowed = await caller.may("threads", "read", {"thread_id": thread_id})
    row = await threads.get(conn, caller.tenant_id, thread_id, allowed=allowed)

The answer is the part of a resource's metadata that it must contain to exist for this caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

Resource = Literal["assistants", "threads", "crons", "store"]

ANYTHING: Final = "{}"
"""What `may` answers when no rule narrows what the caller sees: every metadata contains the empty object."""


class Rules(Protocol):
    """What the project's authorization handlers say."""

    async def check(self, caller: Principal, resource: Resource, action: str, value: dict[str, Any]) -> str:
        """As `Principal.may`."""
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the tenant whose rows they see, their identity (empty without auth) and what they may do.

    `user` is what an `authenticate` handler returned; graphs get it as `langgraph_auth_user`.
    """

    tenant_id: str = "default"
    identity: str = ""
    permissions: tuple[str, ...] = ()
    user: Mapping[str, Any] | None = None
    rules: Rules | None = None

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


ANONYMOUS = Principal()
