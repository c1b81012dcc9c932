"""Reading the audit log: whose it is and who may."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from waystation.auth import Principal
from waystation.auth.roles import roles_of
from waystation.errors import Forbidden, NotFound
from waystation.services import Services

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.guarding.audit import PostgresAuditLog

READS: str = "audit:read"
"""The permission by which a project's own `authenticate` handler lets somebody read the log."""


async def read(
    services: Services, caller: Principal, *, after: int, limit: int, action: str | None
) -> list[dict[str, Any]]:
    """A page of the caller's tenant's records.

    Raises:
        NotFound: the project keeps no log. Forbidden: the caller may not read it.
    """
    log = _log(services, caller)
    from waystation_guards.audit.export import as_object

    found = log.read(caller.tenant_id, after=after, limit=limit, action=action)
    return [as_object(record) async for record in found]


async def verified(services: Services, caller: Principal) -> dict[str, Any]:
    """Whether the caller's tenant's chain is whole. Raises as `read`."""
    log = _log(services, caller)
    from waystation.guarding.audit_pruning import verify_chain

    found = await verify_chain(log.db, caller.tenant_id)
    verdict, fault, anchor = found.verdict, found.verdict.fault, found.anchor
    return {
        "status": "whole" if verdict.is_whole else "broken",
        "records": verdict.records,
        "seq": verdict.head.seq,
        "hash": verdict.head.hash.hex(),
        "fault": None if fault is None else {"seq": fault.seq, "problem": fault.problem},
        "anchor": None
        if anchor is None
        else {
            "seq": anchor.seq,
            "hash": anchor.hash.hex(),
            "removed": anchor.removed,
            "at": anchor.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "by": anchor.by,
        },
    }


def _log(services: Services, caller: Principal) -> PostgresAuditLog:
    if services.audit is None:
        raise NotFound("No audit log is kept: waystation.audit in langgraph.json turns it on")
    is_admin = "admin" in roles_of(caller.permissions) or READS in caller.permissions
    if services.gate is not None and not (is_admin or caller.is_studio):
        raise Forbidden("The audit log is for the role admin")
    return services.audit.log
