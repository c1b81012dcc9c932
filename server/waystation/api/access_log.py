"""The access log, where it is switched on: one line for each answer, when it is over. No query, for keys may stand
there; health checks are left out."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Final

from starlette.types import Message, Scope

from waystation.auth import Principal
from waystation.auth.gate import CALLER

log = logging.getLogger("waystation.access")

_LONGEST: Final = 500


class Access:
    """An answer, while it is given."""

    __slots__ = ("_began_at", "_bytes")

    def __init__(self) -> None:
        self._began_at = monotonic()
        self._bytes = 0

    def sent(self, message: Message) -> None:
        """Count what goes out."""
        self._bytes += len(message.get("body", b""))

    def over(self, scope: Scope, *, route: str | None, status: int) -> None:
        """Write the line."""
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["path"][:_LONGEST],
            "status": status,
            "ms": round((monotonic() - self._began_at) * 1000, 1),
            "bytes": self._bytes,
        }
        if route is not None:
            fields["route"] = route
        if scope.get("client"):
            fields["client"] = scope["client"][0]
        caller: Principal | None = scope.get(CALLER)
        if caller is not None:
            fields["tenant"] = caller.tenant_id
            fields["caller"] = caller.identity
            if key := (caller.user or {}).get("api_key"):
                fields["key"] = key
        log.info("request", extra=fields)
