"""What requests leave in the audit log: changes, and refusals of whoever was not let in.

Refusals are sampled: somebody who guesses keys must not fill the log. What was left out is counted in the next record.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from time import monotonic
from typing import Any, Final

from waystation.auth import Principal
from waystation.auth.principal import DEFAULT_TENANT
from waystation.catalog.keys_audit import AuditKeys
from waystation.guarding.audit import AuditWriter
from waystation.guarding.kill import key_of
from waystation_guards.audit.audit import AuditEntry, Outcome

REFUSALS_PER_S: Final = 5.0
REFUSALS_AT_ONCE: Final = 20.0

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKING: Final = re.compile(r"(?:^|_)(?:search|count|list|get|read|schemas?|history|estimate|wait|stream|join)(?:_|$)")
"""Operations whose name says that they change nothing, though their method might."""
_RUNS: Final = frozenset(
    {
        *("create_run", "create_run_stateless", "create_runs_stateless", "post_command", "call_mcp", "call_a2a"),
        *("create_chat_completion", "create_response"),
    }
)
"""Operations that make runs, which are told of where they are made."""
_IDS: Final = ("thread_id", "run_id", "assistant_id", "cron_id", "key_id", "kill_id", "delivery_id")


class RequestNotes:
    """Tells the audit log of requests. On the API's loop."""

    def __init__(self, writer: AuditWriter, keys: AuditKeys) -> None:
        self._writer = writer
        self._changes = "api" in keys.what
        self._refusals = "auth" in keys.what
        self._tokens = REFUSALS_AT_ONCE
        self._at = monotonic()
        self._left_out = 0

    def note(
        self,
        *,
        operation: str,
        method: str,
        path: str,
        params: dict[str, Any],
        caller: Principal | None,
        status: int,
        client: str,
    ) -> Awaitable[None] | None:
        """Tell of a request that was answered. `operation` is empty where there is none, `caller` None where nobody
        was recognised. Returns what to wait for where the log is durable."""
        if status in (401, 403):
            if self._refusals and self._may_tell():
                detail: dict[str, Any] = {"status": status, "method": method, "client": client}
                if self._left_out:
                    detail["left_out"] = self._left_out
                    self._left_out = 0
                action = "auth.refused" if status == 401 else "auth.forbidden"
                return self._tell(action, "refused", operation or path[:200], params, caller, detail)
        elif self._changes and operation and status != 404 and not _is_reading(method, operation):
            outcome: Outcome = "done" if status < 400 else "failed"
            return self._tell(f"api.{operation}", outcome, path[:200], params, caller, {"status": status})
        return None

    def _tell(
        self,
        action: str,
        outcome: Outcome,
        resource: str,
        params: dict[str, Any],
        caller: Principal | None,
        detail: dict[str, Any],
    ) -> Awaitable[None] | None:
        others = {name: str(params[name]) for name in _IDS[2:] if name in params}
        entry = AuditEntry(
            tenant=caller.tenant_id if caller is not None else DEFAULT_TENANT,
            action=action,
            outcome=outcome,
            user=caller.identity if caller is not None else "",
            key=key_of(caller.user) if caller is not None else "",
            resource=resource,
            thread=str(params.get("thread_id") or ""),
            run=str(params.get("run_id") or ""),
            detail={**detail, **others},
        )
        written = self._writer.note(entry)
        return None if written is None else asyncio.wrap_future(written)

    def _may_tell(self) -> bool:
        now = monotonic()
        self._tokens = min(REFUSALS_AT_ONCE, self._tokens + (now - self._at) * REFUSALS_PER_S)
        self._at = now
        if self._tokens < 1:
            self._left_out += 1
            return False
        self._tokens -= 1
        return True


def _is_reading(method: str, operation: str) -> bool:
    return method in _READING or operation in _RUNS or _ASKING.search(operation) is not None
