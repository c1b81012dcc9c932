"""How budgets stand, and alerts on their way out: queries/guard_standing.sql. Functions commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.rows import RunKey
from waystation_db.sql import load

_q = load("guard_standing")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account; amounts in the ledger's integers. `scope` is `<scope>` or `<scope>/<name of the limit>`."""

    scope: str
    owner: str
    unit: str
    window: str
    spent: int
    held: int
    at_risk: int


async def standing(
    conn: Conn,
    tenant_id: str,
    *,
    scope: str | None = None,
    owner: str | None = None,
    windows: Sequence[str] | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[AccountRow]:
    """A page of a tenant's accounts, within these windows or, for None, within all."""
    params: dict[str, Any] = {
        "tenant_id": tenant_id,
        "scope": scope,
        "owner": owner,
        "windows": None if windows is None else list(windows),
        "limit": limit,
        "offset": offset,
    }
    return [AccountRow(*row) for row in await (await conn.execute(_q["standing"], params)).fetchall()]


@dataclass(frozen=True, slots=True)
class ScopeTotal:
    """What is spent and held over all owners of a scope, and the most of one of them; in the ledger's integers."""

    tenant_id: str
    scope: str
    unit: str
    window: str
    spent: float
    held: float
    most: float


async def totals(
    conn: Conn, *, tenants: Sequence[str], scopes: Sequence[str], windows: Sequence[str]
) -> list[ScopeTotal]:
    """How the budgets of these scopes and windows stand, all owners together."""
    params: dict[str, Any] = {"tenants": list(tenants), "scopes": list(scopes), "windows": list(windows)}
    return [ScopeTotal(*row) for row in await (await conn.execute(_q["totals"], params)).fetchall()]


async def queue_alert(conn: Conn, key: RunKey, *, url: str, payload: str) -> bool:
    """Let a webhook tell of something that a run did; `payload` is JSON. False: the run is gone."""
    params = {
        "tenant_id": key.tenant_id,
        "thread_id": key.thread_id,
        "run_id": key.run_id,
        "url": url,
        "payload": payload,
    }
    return await (await conn.execute(_q["queue_alert"], params)).fetchone() is not None
