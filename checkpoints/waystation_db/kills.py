"""The kill switch in Postgres: one function per statement of queries/guard_kill.sql. The caller owns the transaction.

add ──NOTIFY──▶ every process: refuses new runs, and stops what is there (`wish_running`, `cancel_pending`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db import thread_events
from waystation_db.rows import RunKey
from waystation_db.sql import load

_q = load("guard_kill")

CHANNEL: Final = "ws_kill"
"""Told whenever the switch is used."""

EVERYBODY: Final = "*"
"""In the place of a tenant: all of them."""

REASON: Final = "Stopped by the kill switch: "
"""How the reason of a run begins that was killed."""

KillScope = Literal["tenant", "graph", "assistant", "user", "key"]

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class Kill:
    """What is stopped now. `assistants`: a graph's, as far as they were known when it was read."""

    tenant_id: str
    kill_id: str
    scope: KillScope
    owner: str
    reason: str
    left_s: float | None = None
    assistants: frozenset[str] = frozenset()

    def concerns(self, tenant_id: str, *, graph: str = "", assistant: str = "", user: str = "", key: str = "") -> bool:
        """Whether a run like this is to be stopped. What is not known is left empty."""
        if self.tenant_id not in (tenant_id, EVERYBODY):
            return False
        match self.scope:
            case "tenant":
                return True
            case "graph":
                return self.owner == graph or assistant in self.assistants
            case "assistant":
                return self.owner == assistant
            case "user":
                return self.owner == user
            case "key":
                return self.owner == key


async def add(
    conn: Conn, tenant_id: str, *, scope: KillScope, owner: str, reason: str, by: str, for_s: float | None
) -> bytes:
    """Stop a scope, for `for_s` seconds or until it is lifted. JSON of the kill as clients see it. Commits."""
    params = {"tenant_id": tenant_id, "scope": scope, "owner": owner, "reason": reason, "made_by": by, "for_s": for_s}
    row = await (await conn.execute(_q["add_kill"], params)).fetchone()
    assert row is not None  # an insert without conditions
    return cast("str", row[0]).encode()


async def lift(conn: Conn, tenant_id: str, kill_id: str, *, by: str) -> bytes | None:
    """Let a scope go on; None: no such kill is in force. Commits."""
    params = {"tenant_id": tenant_id, "kill_id": kill_id, "by": by}
    return _json(await (await conn.execute(_q["lift_kill"], params)).fetchone())


async def get(conn: Conn, tenant_id: str, kill_id: str) -> bytes | None:
    """JSON of one kill."""
    return _json(await (await conn.execute(_q["get_kill"], {"tenant_id": tenant_id, "kill_id": kill_id})).fetchone())


async def list_page(
    conn: Conn, tenant_id: str, *, in_force: bool, everybody: bool, limit: int = 100, offset: int = 0
) -> list[bytes]:
    """JSON of a tenant's kills, the newest first. `everybody`: also those that concern all tenants."""
    params: dict[str, Any] = {
        "tenant_id": tenant_id,
        "in_force": in_force,
        "everybody": everybody,
        "limit": limit,
        "offset": offset,
    }
    return [cast("str", row[0]).encode() for row in await (await conn.execute(_q["list_kills"], params)).fetchall()]


async def in_force(conn: Conn) -> tuple[Kill, ...]:
    """Everything that is stopped now, of all tenants."""
    rows = await (await conn.execute(_q["kills_in_force"])).fetchall()
    return tuple(Kill(*row[:6], assistants=frozenset(cast("list[str]", row[6] or ()))) for row in rows)


async def tenant_of_key(conn: Conn, key_id: str) -> str | None:
    """Whose an API key is; None for no such key."""
    row = await (await conn.execute(_q["owner_of_key"], {"key_id": key_id})).fetchone()
    return None if row is None else cast("str", row[0])


async def wish_running(conn: Conn, *, limit: int) -> list[tuple[RunKey, str]]:
    """Write the wish to stop on up to `limit` running runs; whoever runs them hears of it. With the reason. Commits."""
    rows = await (await conn.execute(_q["wish_killed"], {"limit": limit, "prefix": REASON})).fetchall()
    return [(RunKey(row[0], row[1], row[2]), row[3]) for row in rows]


async def cancel_pending(conn: Conn, *, limit: int) -> list[RunKey]:
    """End the pending runs of up to `limit` threads, in the caller's transaction."""
    rows = await (await conn.execute(_q["cancel_killed"], {"limit": limit, "prefix": REASON})).fetchall()
    ended = [RunKey(*row) for row in rows]
    for tenant_id, thread_id in dict.fromkeys((key.tenant_id, key.thread_id) for key in ended):
        await thread_events.settle_owed(conn, tenant_id, thread_id)
    return ended


def _json(row: TupleRow | None) -> bytes | None:
    return None if row is None else cast("str", row[0]).encode()
