"""The audit log's rows: one function per statement of queries/audit.sql. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.errors import CheckViolation
from psycopg.rows import TupleRow

from waystation_db.errors import AuditBroken
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


@dataclass(frozen=True, slots=True)
class AnchorRow:
    """What was removed last of a tenant's chain: up to which record, its hash, how many went then, when and by whom."""

    seq: int
    hash: bytes
    removed: int
    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """The last record of a chain's beginning; `is_worth` says that there is more in it than notes of prunes."""

    seq: int
    hash: bytes
    is_worth: bool


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


async def get_anchor(conn: Conn, tenant_id: str) -> AnchorRow | None:
    """What was removed last of a tenant's chain; None where nothing ever was."""
    row = await (await conn.execute(_q["get_anchor"], {"tenant_id": tenant_id})).fetchone()
    return None if row is None else AnchorRow(row[0], bytes(row[1]), row[2], row[3], row[4])


async def find_prefix(conn: Conn, tenant_id: str, *, before: datetime, most: int) -> PrefixRow | None:
    """Where the records end that are all older than `before`, `most` of them at most; None where there is none."""
    params = {"tenant_id": tenant_id, "before": before, "most": most}
    row = await (await conn.execute(_q["find_prefix"], params)).fetchone()
    return None if row is None else PrefixRow(row[0], bytes(row[1]), row[2])


async def list_due(conn: Conn, *, before: datetime) -> Sequence[str]:
    """The tenants whose oldest record is older than `before`."""
    return [str(row[0]) for row in await (await conn.execute(_q["list_due"], {"before": before})).fetchall()]


async def days_ago(conn: Conn, *, days: int) -> datetime:
    """The midnight, in UTC, that is so many days before today's, on the database's clock."""
    row = await (await conn.execute(_q["days_ago"], {"days": days})).fetchone()
    assert row is not None  # a select without a from
    return row[0]


async def prune(
    conn: Conn, tenant_id: str, *, since: int, upto: int, digest: bytes, made_by: str, note: str
) -> int | None:
    """Remove a chain's records up to `upto`, whose hash is `digest`, and commit; how many went.

    `since`: the last anchor's number, 0 where there is none; None comes back where another prune was first. `note` is
    the entry (JSON) that the chain keeps of it.

    Raises:
        AuditBroken: one of them was changed or is missing; all are still there.
    """
    params = {"tenant_id": tenant_id, "since": since, "upto": upto, "hash": digest, "made_by": made_by, "note": note}
    try:
        async with conn.transaction():
            await conn.execute(_q["no_limits"])
            row = await (await conn.execute(_q["prune"], params)).fetchone()
    except CheckViolation as error:
        raise AuditBroken(error.diag.message_primary or str(error)) from None
    return None if row is None or row[0] is None else int(row[0])
