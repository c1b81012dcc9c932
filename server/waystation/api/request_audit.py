"""Requests, as the audit log is told of them: when their answer begins, or when their client left before."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from starlette.types import Scope

from waystation.api.routing import Operation
from waystation.auth.gate import CALLER
from waystation.catalog.keys_audit import AuditKeys
from waystation.guarding.audit import AuditWriter
from waystation.guarding.audit_requests import RequestNotes

_TOLD: Final = "waystation.audited"
_LEFT = 499


def request_audit(writer: AuditWriter, keys: AuditKeys) -> RequestAudit:
    """What tells a process's audit log of its requests."""
    return RequestAudit(RequestNotes(writer, keys))


class RequestAudit:
    """Tells of each request once. On the API's loop."""

    def __init__(self, notes: RequestNotes) -> None:
        self._notes = notes

    async def answering(self, scope: Scope, status: int) -> None:
        """The answer begins with this status. Waits for the commit where the log is durable."""
        written = self._tell(scope, status)
        if written is not None:
            await written

    def over(self, scope: Scope) -> None:
        """The request is over; without an answer if nothing was told of it."""
        if _TOLD not in scope:
            self._tell(scope, _LEFT)

    def _tell(self, scope: Scope, status: int) -> Awaitable[None] | None:
        scope[_TOLD] = True
        route = scope.get("route")
        client: tuple[str, int] | None = scope.get("client")
        return self._notes.note(
            operation=route.unique_id if isinstance(route, Operation) else "",
            method=scope["method"],
            path=scope["path"],
            params=scope.get("path_params") or {},
            caller=scope.get(CALLER),
            status=status,
            client=client[0] if client else "",
        )
