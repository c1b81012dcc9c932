"""The guards' ledger for those who look: queries/guard_history.sql."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.sql import load

_q = load("guard_history")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which entries; None leaves a member open."""

    thread_id: str | None = None
    run_id: str | None = None
    graph_id: str | None = None
    user: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """What entries of one kind and model come to. `unpriced`: calls whose price nobody knew."""

    kind: str
    model: str
    calls: int
    cost_nano_usd: int
    input_tokens: int
    output_tokens: int
    unpriced: int


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that has ended: its model calls as (model, provider, input tokens, output tokens, cost in nano-dollars,
    milliseconds), its tool calls, and what it was asked; None where that is gone or encrypted."""

    calls: tuple[tuple[str, str, int, int, int | None, int], ...]
    tool_calls: int
    input: Any


async def entries_page(conn: Conn, tenant_id: str, choice: Choice, *, limit: int, offset: int) -> list[bytes]:
    """JSON of a tenant's entries, the newest first."""
    params = {"tenant_id": tenant_id, **asdict(choice), "limit": limit, "offset": offset}
    return [cast("str", row[0]).encode() for row in await (await conn.execute(_q["entries_page"], params)).fetchall()]


async def totals(conn: Conn, tenant_id: str, choice: Choice) -> list[Total]:
    """What all of a choice comes to, the dearest first."""
    rows = await (await conn.execute(_q["totals"], {"tenant_id": tenant_id, **asdict(choice)})).fetchall()
    return [Total(*row) for row in rows]


async def runs_of_graph(conn: Conn, tenant_id: str, graph_id: str, *, within_s: float, limit: int) -> list[PastRun]:
    """The newest runs of a graph that called models and have ended."""
    params = {"tenant_id": tenant_id, "graph_id": graph_id, "within_s": within_s, "limit": limit}
    rows = await (await conn.execute(_q["runs_of_graph"], params)).fetchall()
    return [PastRun(tuple(tuple(call) for call in row[0]), row[1], row[2]) for row in rows]
