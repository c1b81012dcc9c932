"""What a project's own function said of a thread's priority, and what it is told before it says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from waystation_db.places import metadata_place
from waystation_db.pool import cipher_of
from waystation_db.sql import load

_q = load("priorities")

Conn = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """A thread and the assistant that is to run on it. `priority`: from -5 (first) to 5; None: not decided yet."""

    graph_id: str
    assistant_metadata: dict[str, Any]
    thread_exists: bool
    thread_metadata: dict[str, Any]
    priority: int | None


async def standing(conn: Conn, tenant_id: str, *, thread_id: str, assistant_id: str) -> Standing | None:
    """None: no such assistant. A thread that is not there yet has no metadata and no priority."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "assistant_id": assistant_id}
    row = await (await conn.execute(_q["of_thread"], params)).fetchone()
    if row is None:
        return None
    graph_id, about_assistant, exists, thread_metadata, priority = row
    about_thread: dict[str, Any] = thread_metadata or {}
    if (cipher := cipher_of(conn)) is not None:
        place = metadata_place(tenant_id)
        about_assistant = await cipher.open_members(place, about_assistant)
        about_thread = await cipher.open_members(place, about_thread)
    return Standing(graph_id, about_assistant, exists, about_thread, priority)


async def keep_priority(conn: Conn, tenant_id: str, *, thread_id: str, priority: int) -> int | None:
    """Keep `priority` with a thread unless it has one; the one that holds. None: no such thread."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "priority": priority}
    row = await (await conn.execute(_q["keep"], params)).fetchone()
    return None if row is None else row[0]
