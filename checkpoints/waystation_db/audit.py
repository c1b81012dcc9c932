"""The audit log's rows: one function per statement of queries/audit.sql. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.sql import load

_q = load("audit")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A record of a tenant's chain. `entry` is JSON, byte for byte as it was written."""

    seq: int
    at: datetime
    entry: str
    prev: bytes
    hash: bytes


async def append(conn: Conn, tenant_id: str, entries: Sequence[str]) -> int:
    """Put entries (JSON texts) at the end of a tenant's chain; the number of the last one.

    Other writers of the tenant wait until the transaction ends: it should have nothing else to do.
    """
    params = {"tenant_id": tenant_id, "entries": list(entries)}
    row = await (await conn.execute(_q["append_entries"], params)).fetchone()
    return 0 if row is None else int(row[0])


async def read_page(
    conn: Conn, tenant_id: str, *, after: int, limit: int, action: str | None = None
) -> Sequence[AuditRow]:
    """Up to `limit` records after number `after`, in order. `action`: only those, or with `tool.*` a family."""
    family = action[:-1] if action is not None and action.endswith(".*") else None
    params = {
        "tenant_id": tenant_id,
        "after": after,
        "limit": limit,
        "action": None if family is not None else action,
        "family": family,
    }
    rows = await (await conn.execute(_q["read_page"], params)).fetchall()
    return [AuditRow(row[0], row[1], row[2], bytes(row[3]), bytes(row[4])) for row in rows]


async def get_head(conn: Conn, tenant_id: str) -> tuple[int, bytes] | None:
    """The number and hash of a tenant's last record; None where there is none."""
    row = await (await conn.execute(_q["get_head"], {"tenant_id": tenant_id})).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


async def list_tenants(conn: Conn) -> Sequence[str]:
    """The tenants that have a chain."""
    return [str(row[0]) for row in await (await conn.execute(_q["list_tenants"])).fetchall()]
