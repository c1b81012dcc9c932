"""What a Postgres server says of itself: how many connections it has for us, whether it keeps what it acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from waystation_db.sql import load

_FACTS = load("server_facts")["facts"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`connections`: what processes of this role and database may hold together. `off`: settings that are off and
    without which a power cut loses what was acknowledged. `now`: its clock."""

    connections: int
    is_superuser: bool
    off: tuple[str, ...]
    now: datetime


async def server_facts(conn: AsyncConnection[Any]) -> ServerFacts:
    """Ask the server of this connection; one round trip."""
    row = await (await conn.execute(_FACTS)).fetchone()
    if row is None:
        raise RuntimeError("a select without a from clause gave no row")
    connections, is_superuser, off, now = row
    return ServerFacts(connections, is_superuser, tuple(off), now)
