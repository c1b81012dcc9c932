"""What runs leave in the audit log: that they were made, by whom, and what was decided when one was resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from waystation.guarding.kill import key_of
from waystation_db.rows import RunKey
from waystation_guards.audit.audit import AuditEntry

_MOST_DECISIONS = 20


def made_run(key: RunKey, kwargs: Mapping[str, Any], *, assistant_id: str) -> AuditEntry:
    """The entry about a run that was admitted. Of an answer to an interrupt it keeps what was decided and no more."""
    configurable = _member(_member(kwargs, "config"), "configurable")
    command = _member(kwargs, "command")
    is_resumed = command.get("resume") is not None
    return AuditEntry(
        tenant=key.tenant_id,
        action="run.resumed" if is_resumed else "run.created",
        user=str(configurable.get("langgraph_auth_user_id") or ""),
        key=key_of(configurable.get("langgraph_auth_user")),
        resource=assistant_id,
        thread=key.thread_id,
        run=key.run_id,
        detail={"decisions": decisions} if (decisions := _decisions(command.get("resume"))) else {},
    )


def _decisions(answer: Any) -> list[str]:
    """What was decided about tool calls, in the form that LangChain's reviews have."""
    if not isinstance(answer, dict):
        return []
    members = cast("dict[str, Any]", answer)
    if isinstance(told := members.get("decisions"), list):
        kinds = [_member({"one": one}, "one").get("type") for one in cast("list[Any]", told)]
    elif isinstance(members.get("type"), str):
        kinds = [members["type"]]
    else:  # answers by the ids of interrupts
        return [kind for one in list(members.values())[:_MOST_DECISIONS] for kind in _decisions(one)]
    return [str(kind)[:20] for kind in kinds[:_MOST_DECISIONS] if kind in ("approve", "edit", "reject", "respond")]


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
