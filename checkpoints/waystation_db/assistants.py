"""Assistants and their versions: one function per statement of queries/assistants.sql.

What clients get comes as JSON bytes. JSON that goes in is JSON text. `visible` is what an assistant's metadata must
contain for the caller to see it, or None for no restriction. The caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString, cast
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.sql import load

_q = load("assistants")

Conn = AsyncConnection[TupleRow]

AssistantSortBy = Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"]


@dataclass(frozen=True, slots=True)
class DefaultAssistant:
    """The assistant that a graph has from the start."""

    assistant_id: UUID
    graph_id: str
    description: str | None


@dataclass(frozen=True, slots=True)
class NewAssistant:
    """What an assistant is made of."""

    assistant_id: str
    graph_id: str
    name: str
    description: str | None
    config: str
    context: str
    metadata: str


@dataclass(frozen=True, slots=True)
class AssistantPatch:
    """What changes; None stays. `metadata` is merged, the others replace."""

    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: str | None = None
    context: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class AssistantFilter:
    """Which assistants; members that are None do not restrict. `name` is a part of the name, in any case."""

    metadata: str | None = None
    graph_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AssistantGraph:
    """What opening an assistant's graph needs."""

    graph_id: str
    config: dict[str, Any]
    context: dict[str, Any]


async def ensure_defaults(conn: Conn, tenant_id: str, defaults: Sequence[DefaultAssistant]) -> None:
    """Make the default assistants that are missing, with their first version."""
    params = {
        "tenant_id": tenant_id,
        "assistant_ids": [default.assistant_id for default in defaults],
        "graph_ids": [default.graph_id for default in defaults],
        "descriptions": [default.description for default in defaults],
    }
    await conn.execute(_q["ensure_defaults"], params)


async def create(conn: Conn, tenant_id: str, new: NewAssistant) -> bytes | None:
    """Make an assistant, version 1. None: the id is taken."""
    params = {
        "tenant_id": tenant_id,
        "assistant_id": new.assistant_id,
        "graph_id": new.graph_id,
        "name": new.name,
        "description": new.description,
        "config": new.config,
        "context": new.context,
        "metadata": new.metadata,
    }
    return await _json(conn, _q["create_assistant"], params)


async def get(conn: Conn, tenant_id: str, assistant_id: str, *, visible: str | None = None) -> bytes | None:
    """An assistant as the API shows it; None if there is none."""
    return await _json(conn, _q["get_assistant"], _params(tenant_id, assistant_id, visible))


async def graph_of(
    conn: Conn, tenant_id: str, assistant_id: str, *, visible: str | None = None
) -> AssistantGraph | None:
    """The graph of an assistant and what it is configured with; None if there is no such assistant."""
    cur = await conn.execute(_q["assistant_graph"], _params(tenant_id, assistant_id, visible))
    row = await cur.fetchone()
    return None if row is None else AssistantGraph(*row)


async def lock(conn: Conn, tenant_id: str, assistant_id: str, *, visible: str | None = None) -> bool:
    """Hold an assistant for a change until the transaction ends; False if there is none."""
    cur = await conn.execute(_q["lock_assistant"], _params(tenant_id, assistant_id, visible))
    return await cur.fetchone() is not None


async def patch(conn: Conn, tenant_id: str, assistant_id: str, *, change: AssistantPatch) -> bytes | None:
    """Change a locked assistant; the result is its next version, also when nothing differs."""
    params = {
        "tenant_id": tenant_id,
        "assistant_id": assistant_id,
        "graph_id": change.graph_id,
        "name": change.name,
        "description": change.description,
        "config": change.config,
        "context": change.context,
        "metadata": change.metadata,
    }
    return await _json(conn, _q["patch_assistant"], params)


async def set_latest(
    conn: Conn, tenant_id: str, assistant_id: str, *, version: int, visible: str | None = None
) -> bytes | None:
    """Show a version again, with every field. None: no such version, or no such assistant."""
    return await _json(conn, _q["set_latest"], _params(tenant_id, assistant_id, visible) | {"version": version})


async def delete(conn: Conn, tenant_id: str, assistant_id: str, *, visible: str | None = None) -> bool:
    """Delete an assistant with its versions; False if there is none."""
    cur = await conn.execute(_q["delete_assistant"], _params(tenant_id, assistant_id, visible))
    return await cur.fetchone() is not None


async def threads_of(
    conn: Conn, tenant_id: str, assistant_id: str, *, limit: int, visible: str | None = None
) -> list[str]:
    """Ids of up to `limit` threads that the assistant ran on last; here `visible` is about the threads."""
    params = _params(tenant_id, assistant_id, visible) | {"limit": limit}
    return [row[0] for row in await (await conn.execute(_q["threads_of_assistant"], params)).fetchall()]


async def search(
    conn: Conn,
    tenant_id: str,
    *,
    where: AssistantFilter,
    limit: int,
    offset: int,
    sort_by: AssistantSortBy = "created_at",
    ascending: bool = False,
    fields: Sequence[str] | None = None,
    visible: str | None = None,
) -> list[bytes]:
    """A page of assistants, each as JSON; `fields` are those to show (None: all)."""
    params = _filter_params(tenant_id, where, visible) | {
        "limit": limit,
        "offset": offset,
        "sort_by": sort_by,
        "ascending": ascending,
        "fields": None if fields is None else list(fields),
    }
    cur = await conn.execute(_q["search_assistants"], params)
    return [cast(str, row[0]).encode() for row in await cur.fetchall()]


async def count(conn: Conn, tenant_id: str, *, where: AssistantFilter, visible: str | None = None) -> int:
    """How many assistants match."""
    row = await (await conn.execute(_q["count_assistants"], _filter_params(tenant_id, where, visible))).fetchone()
    return 0 if row is None else row[0]


async def versions(
    conn: Conn,
    tenant_id: str,
    assistant_id: str,
    *,
    metadata: str | None,
    limit: int,
    offset: int,
    visible: str | None = None,
) -> bytes | None:
    """A page of an assistant's versions as a JSON list, the newest first. None: no such assistant."""
    params = {"metadata": metadata, "limit": limit, "offset": offset}
    return await _json(conn, _q["versions"], _params(tenant_id, assistant_id, visible) | params)


def _params(tenant_id: str, assistant_id: str, visible: str | None) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "assistant_id": assistant_id, "visible": visible}


def _filter_params(tenant_id: str, where: AssistantFilter, visible: str | None) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "visible": visible,
        "metadata": where.metadata,
        "graph_id": where.graph_id,
        "name": where.name,
    }


async def _json(conn: Conn, statement: LiteralString, params: Mapping[str, Any]) -> bytes | None:
    row = await (await conn.execute(statement, params)).fetchone()
    return None if row is None else cast(str, row[0]).encode()
