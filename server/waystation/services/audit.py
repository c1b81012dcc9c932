"""The audit log of a process, as its project describes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from waystation.auth.principal import DEFAULT_TENANT
from waystation.catalog import Project
from waystation.catalog.keys_audit import AuditKeys
from waystation_db.pool import Database

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.guarding.audit import AuditWriter


@asynccontextmanager
async def open_audit(project: Project, db: Database, *, process: str) -> AsyncGenerator[AuditWriter | None]:
    """The writer of this process's audit log; None where the project keeps none. On the API's loop, whose database it
    is."""
    keys = project.waystation.audit
    if keys is None:
        yield None
        return
    from waystation.guarding.audit import AuditWriter, PostgresAuditLog

    async with AuditWriter.running(PostgresAuditLog(db), durable=keys.durable) as writer:
        _tell_of_start(writer, project, keys, process)
        yield writer


def _tell_of_start(writer: AuditWriter, project: Project, keys: AuditKeys, process: str) -> None:
    """Under which policy this process works: by its hash, and as it is where it is short."""
    from waystation_guards.audit.audit import AuditEntry

    if "guards" not in keys.what:
        return
    policy: dict[str, Any] = project.waystation.guards or {}
    text = json.dumps(policy, sort_keys=True, default=str)
    detail = {
        "policy_sha256": hashlib.sha256(text.encode()).hexdigest(),
        **({"policy": policy} if len(text) <= 8000 else {}),
        "audit": keys.model_dump(mode="json"),
    }
    writer.note(AuditEntry(DEFAULT_TENANT, "guards.configured", resource=process, detail=detail))
