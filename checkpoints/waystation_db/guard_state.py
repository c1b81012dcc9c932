"""What guards of all processes agree on from moment to moment, in Postgres: one function for each statement.

Spans are seconds, on the database's clock. Each statement is one atomic step and commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.json import dumps
from waystation_db.sql import load

_q = load("guard_state")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class KeptValue:
    """A shared value, or that there is none any more. `left_ms` is None for one without an end."""

    name: str
    value: str | None
    version: int
    left_ms: int | None


async def draw(conn: Conn, draws: Sequence[dict[str, Any]], *, patience_s: float) -> tuple[bool, float, list[int]]:
    """Take from several buckets or from none: whether, the seconds to wait, what is left in each.

    A draw is `{"tenant", "name", "amount", "seconds", "cost"}`; no two are of the same bucket.
    """
    params = {"draws": dumps(list(draws)).decode(), "patience_s": patience_s}
    row = cast("tuple[str]", await (await conn.execute(_q["draw"], params)).fetchone())
    taken, wait_s, left = orjson.loads(row[0])
    return taken, wait_s, left


async def give_back(conn: Conn, tenant_id: str, name: str, *, amount: float, seconds: float, cost: int) -> None:
    """Return what was not used to a bucket; a negative cost takes what was used beyond."""
    params = {"tenant_id": tenant_id, "name": name, "amount": amount, "seconds": seconds, "cost": cost}
    await conn.execute(_q["give_back"], params)


async def pause(conn: Conn, tenant_id: str, name: str, *, seconds: float) -> None:
    """Let nothing be taken for so long. Only ever extends a pause."""
    await conn.execute(_q["pause"], {"tenant_id": tenant_id, "name": name, "seconds": seconds})


async def enter(conn: Conn, tenant_id: str, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
    """Take one of `limit` places, or renew it."""
    params = {"tenant_id": tenant_id, "name": name, "limit": limit, "holder": holder, "ttl_s": ttl_s}
    return cast("tuple[bool]", await (await conn.execute(_q["enter"], params)).fetchone())[0]


async def leave(conn: Conn, tenant_id: str, name: str, *, holder: str) -> None:
    """Give a place back."""
    await conn.execute(_q["leave"], {"tenant_id": tenant_id, "name": name, "holder": holder})


async def breaker(conn: Conn, tenant_id: str, target: str) -> float | None:
    """Seconds until an open breaker may be probed, not above zero: now; None: it is closed."""
    row = await (await conn.execute(_q["breaker"], {"tenant_id": tenant_id, "target": target})).fetchone()
    return None if row is None else row[0]


async def probe(conn: Conn, tenant_id: str, target: str, *, probe_s: float) -> bool:
    """Take the probe of an open breaker, for `probe_s` seconds. False: somebody else has it, or it is not time."""
    params = {"tenant_id": tenant_id, "target": target, "probe_s": probe_s}
    return await (await conn.execute(_q["probe"], params)).fetchone() is not None


async def report(
    conn: Conn,
    tenant_id: str,
    target: str,
    *,
    ok: bool,
    is_probe: bool,
    asked_s: float,
    failure_rate: float,
    minimum: int,
    window_s: float,
    cooldown_s: float,
) -> bool:
    """Count a call's outcome. True if the breaker opened or closed by it."""
    params = {
        "tenant_id": tenant_id,
        "target": target,
        "ok": ok,
        "is_probe": is_probe,
        "asked_s": asked_s,
        "failure_rate": failure_rate,
        "minimum": minimum,
        "window_s": window_s,
        "cooldown_s": cooldown_s,
    }
    return cast("tuple[bool]", await (await conn.execute(_q["report"], params)).fetchone())[0]


async def read_value(conn: Conn, tenant_id: str, name: str) -> str | None:
    """A shared value."""
    row = await (await conn.execute(_q["read_value"], {"tenant_id": tenant_id, "name": name})).fetchone()
    return None if row is None else row[0]


async def write_value(conn: Conn, tenant_id: str, name: str, value: str | None, *, ttl_s: float | None = None) -> int:
    """Set or remove a shared value; its version, which only grows."""
    params = {"tenant_id": tenant_id, "name": name, "value": value, "ttl_s": ttl_s}
    return cast("tuple[int]", await (await conn.execute(_q["write_value"], params)).fetchone())[0]


async def all_values(conn: Conn, tenant_id: str) -> list[KeptValue]:
    """All shared values of a tenant, and those that were removed a short time ago."""
    rows = await (await conn.execute(_q["all_values"], {"tenant_id": tenant_id})).fetchall()
    return [KeptValue(*row) for row in rows]


async def forget(conn: Conn, *, limit: int) -> None:
    """Throw away what is over: full buckets, left places, cached values. Up to `limit` of what there may be many of."""
    await conn.execute(_q["forget"], {"limit": limit})
