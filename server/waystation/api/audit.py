"""The audit log over HTTP: for admins, of their own tenant, and only where the project keeps one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, ServicesDep, json_response
from waystation.api.routing import Router, errors
from waystation.runs import audit_trail

router = Router(tags=["Guards"])


class AuditRecordObject(BaseModel):
    """What happened (`entry`), and its place in the tenant's hash chain. Hashes are hexadecimal."""

    tenant: str
    seq: int
    at: str
    entry: dict[str, Any]
    prev: str
    hash: str


class AuditFault(BaseModel):
    """The first record with which something is wrong."""

    seq: int
    problem: str


class AuditAnchor(BaseModel):
    """What was removed last of a chain's beginning: up to which record, its hash, how many then, when and by whom."""

    seq: int
    hash: str
    removed: int
    at: str
    by: str


class AuditVerdict(BaseModel):
    """Whether a chain is whole, and where it ends. Keep `seq` and `hash` elsewhere: they prove later what was there.
    `anchor`: what its first record follows, where records before it were removed."""

    status: Literal["whole", "broken"]
    records: int
    seq: int
    hash: str
    fault: AuditFault | None
    anchor: AuditAnchor | None


@router.get("/audit", response_model=list[AuditRecordObject], responses=errors(403, 404), summary="Read the audit log")
async def read_audit_log(
    services: ServicesDep,
    caller: CallerDep,
    after: Annotated[int, Query(ge=0, le=2**62, description="Records after this number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    action: Annotated[
        str | None, Query(max_length=100, pattern=r"^[^\x00]+$", description="`tool.refused`, or `tool.*`.")
    ] = None,
) -> Response:
    """A page of records, the oldest first. `X-Pagination-Next` is what to ask for next with `after`."""
    page = await audit_trail.read(services, caller, after=after, limit=limit, action=action)
    headers = {"X-Pagination-Next": str(page[-1]["seq"])} if len(page) == limit else {}
    return json_response(page, headers=headers)


@router.get("/audit/verify", response_model=AuditVerdict, responses=errors(403, 404), summary="Verify the audit log")
async def verify_audit_log(services: ServicesDep, caller: CallerDep) -> Response:
    """Reads the tenant's chain from its first record (or from where its beginning was removed) and computes every hash
    again."""
    return json_response(await audit_trail.verified(services, caller))
