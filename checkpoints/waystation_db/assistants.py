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

from waystation_db import assistant_sealing as sealing
from waystation_db.cipher import Cipher, loads
from waystation_db.json import dumps
from waystation_db.pool import cipher_of
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
    params = await sealing.sealed(await sealing.cipher_for(conn, params), tenant_id, new.assistant_id, params)
    return await _face(conn, _q["create_assistant"], params)


async def get(conn: Conn, tenant_id: str, assistant_id: str, *, visible: str | None = None) -> bytes | None:
    """An assistant as the API shows it; None if there is none."""
    return await _face(conn, _q["get_assistant"], _params(tenant_id, assistant_id, visible))


async def graph_of(
    conn: Conn, tenant_id: str, assistant_id: str, *, visible: str | None = None
) -> AssistantGraph | None:
    """The graph of an assistant and what it is configured with; None if there is no such assistant."""
    cur = await conn.execute(_q["assistant_graph"], _params(tenant_id, assistant_id, visible))
    row = await cur.fetchone()
    if row is None or (cipher := cipher_of(conn)) is None:
        return None if row is None else AssistantGraph(*row)
    graph_id, config, context = row
    return AssistantGraph(graph_id, *await sealing.opened(cipher, tenant_id, assistant_id, config, context))


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
    if (cipher := await sealing.cipher_for(conn, params)) is not None:
        params = await _sealed_patch(conn, cipher, params)
    return await _face(conn, _q["patch_assistant"], params)


async def _sealed_patch(conn: Conn, cipher: Cipher, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a change. What SQL derives one from the other (`config.configurable` and `context`) it cannot
    derive where they are sealed: both are given then, for an assistant that is locked."""
    tenant_id, assistant_id = params["tenant_id"], params["assistant_id"]
    if params["context"] is not None and params["config"] is None:
        stored = await graph_of(conn, tenant_id, assistant_id)
        config = {} if stored is None else {**stored.config}
        config.pop("configurable", None)
        context = loads(params["context"])
        params |= {"config": dumps(config | ({"configurable": context} if context else {})).decode()}
    elif params["config"] is not None and params["context"] is None:
        params |= {"context": dumps(loads(params["config"]).get("configurable") or {}).decode()}
    return await sealing.sealed(cipher, tenant_id, assistant_id, params)


async def set_latest(
    conn: Conn, tenant_id: str, assistant_id: str, *, version: int, visible: str | None = None
) -> bytes | None:
    """Show a version again, with every field. None: no such version, or no such assistant."""
    return await _face(conn, _q["set_latest"], _params(tenant_id, assistant_id, visible) | {"version": version})


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
    """A page of assistants, each as JSON; `fields` are those to show (None: all). Raises SearchesSealed."""
    cipher, wanted = cipher_of(conn), fields
    await sealing.check_searchable(conn, where.metadata)
    if cipher is not None and fields is not None:
        fields = [*fields, "assistant_id"]  # what is sealed is bound to it
    params = _filter_params(tenant_id, where, visible) | {
        "limit": limit,
        "offset": offset,
        "sort_by": sort_by,
        "ascending": ascending,
        "fields": None if fields is None else list(fields),
    }
    cur = await conn.execute(_q["search_assistants"], params)
    found = [cast(str, row[0]).encode() for row in await cur.fetchall()]
    return await sealing.open_faces(cipher, tenant_id, found, fields=wanted)


async def count(conn: Conn, tenant_id: str, *, where: AssistantFilter, visible: str | None = None) -> int:
    """How many assistants match. Raises SearchesSealed."""
    await sealing.check_searchable(conn, where.metadata)
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
    """A page of an assistant's versions as a JSON list, the newest first. None: no such assistant. Raises
    SearchesSealed."""
    await sealing.check_searchable(conn, metadata)
    params = {"metadata": metadata, "limit": limit, "offset": offset}
    found = await _json(conn, _q["versions"], _params(tenant_id, assistant_id, visible) | params)
    return None if found is None else await sealing.open_versions(cipher_of(conn), tenant_id, found)


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


async def _face(conn: Conn, statement: LiteralString, params: Mapping[str, Any]) -> bytes | None:
    face = await _json(conn, statement, params)
    return None if face is None else await sealing.open_face(cipher_of(conn), params["tenant_id"], face)


async def _json(conn: Conn, statement: LiteralString, params: Mapping[str, Any]) -> bytes | None:
    row = await (await conn.execute(statement, params)).fetchone()
    return None if row is None else cast(str, row[0]).encode()
