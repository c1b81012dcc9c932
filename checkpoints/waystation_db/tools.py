"""Assistants as tools: one function per statement of queries/tools.sql. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.rows import RunKey
from waystation_db.sql import load

_q = load("tools")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class ToolRow:
    """What a tool needs of its assistant."""

    assistant_id: str
    graph_id: str
    name: str
    description: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Whose metadata contains `visible` (JSON), and those with these ids."""

    visible: str
    defaults: list[str]


async def page(conn: Conn, tenant_id: str, *, after: str | None, limit: int, seen: Seen) -> list[ToolRow]:
    """Assistants in the order of their ids, those after `after`."""
    params = {"tenant_id": tenant_id, "after": after, "limit": limit}
    return await _rows(conn, _q["tools_page"], {**params, "visible": seen.visible, "defaults": seen.defaults})


async def between(conn: Conn, tenant_id: str, *, first: str, last: str, seen: Seen) -> list[ToolRow]:
    """Assistants with ids from `first` to `last`, a few of them."""
    params = {"tenant_id": tenant_id, "first": first, "last": last}
    return await _rows(conn, _q["tools_between"], {**params, "visible": seen.visible, "defaults": seen.defaults})


async def hide_called(conn: Conn, key: RunKey) -> None:
    """Hide the thread that a call of a tool made, unless it waits for an answer. Other threads stay as they are."""
    await conn.execute(_q["hide_called"], {"tenant_id": key.tenant_id, "thread_id": key.thread_id})


async def _rows(conn: Conn, statement: LiteralString, params: Mapping[str, Any]) -> list[ToolRow]:
    return [ToolRow(*row) for row in await (await conn.execute(statement, params)).fetchall()]
