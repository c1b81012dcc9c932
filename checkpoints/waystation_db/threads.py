"""Threads, apart from what runs do to them: one function per statement of queries/threads.sql.

What clients get comes as JSON bytes. `visible` is JSON text that a thread's metadata must contain for the caller to see
it, or None for no restriction. The caller owns the transaction. How threads end is in `thread_removal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db import faces
from waystation_db.cipher import Cipher, loads, seal_members_text, seal_text
from waystation_db.errors import SearchesSealed
from waystation_db.places import metadata_place, thread_place
from waystation_db.pool import cipher_of
from waystation_db.resealing import rebind_face
from waystation_db.rows import RestingStatus, ThreadStatus
from waystation_db.sql import load

_q = load("threads")

Conn = AsyncConnection[TupleRow]

TtlStrategy = Literal["delete", "keep_latest"]
ThreadSortBy = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]

THREAD_FIELDS = (
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "status",
    "config",
    "values",
    "error",
    "interrupts",
)
"""Every member that a thread shows without being asked."""


@dataclass(frozen=True, slots=True)
class Ttl:
    """How long a thread stays after its state changed last, and what happens then."""

    strategy: TtlStrategy
    minutes: float


@dataclass(frozen=True, slots=True)
class ThreadGraph:
    """What reading a thread's state needs. `graph_id` is None as long as no run or client named a graph."""

    graph_id: str | None
    configurable: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LockedThread:
    """A thread whose row this transaction holds."""

    active_runs: int
    graph: ThreadGraph


@dataclass(frozen=True, slots=True)
class Extract:
    """A value to take out of each found thread: `root` is the member that `path` starts in."""

    alias: str
    root: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    """Which threads; members that are None do not restrict. `metadata` and `values` are JSON text to be contained."""

    ids: Sequence[str] | None = None
    metadata: str | None = None
    values: str | None = None
    status: ThreadStatus | None = None


async def create(conn: Conn, tenant_id: str, thread_id: str, *, metadata: str, ttl: Ttl | None) -> bytes | None:
    """Make a thread; `metadata` is JSON text. None: the id is taken."""
    metadata = await seal_members_text(cipher_of(conn), metadata_place(tenant_id), metadata)
    params = _params(tenant_id, thread_id) | _ttl_params(ttl) | {"metadata": metadata}
    return await _json(conn, _q["create_thread"], params)


async def get(
    conn: Conn, tenant_id: str, thread_id: str, *, with_ttl: bool = False, visible: str | None = None
) -> bytes | None:
    """A thread as the API shows it; None if there is none."""
    fields = [*THREAD_FIELDS, "ttl"] if with_ttl else None
    return await _json(conn, _q["get_thread"], _params(tenant_id, thread_id, visible) | {"fields": fields})


async def graph_of(conn: Conn, tenant_id: str, thread_id: str, *, visible: str | None = None) -> ThreadGraph | None:
    """The graph that a thread's state is seen through; None if there is no such thread."""
    cur = await conn.execute(_q["thread_graph"], _params(tenant_id, thread_id, visible))
    row = await cur.fetchone()
    return None if row is None else _graph(row[0], row[1])


async def lock_for_state(
    conn: Conn, tenant_id: str, thread_id: str, *, visible: str | None = None
) -> LockedThread | None:
    """Hold a thread's row for a state update; until the transaction ends no run can be created on it."""
    cur = await conn.execute(_q["lock_for_state"], _params(tenant_id, thread_id, visible))
    row = await cur.fetchone()
    return None if row is None else LockedThread(row[0], _graph(row[1], row[2]))


async def save_face(
    conn: Conn,
    tenant_id: str,
    thread_id: str,
    *,
    values: bytes | None,
    interrupts: bytes,
    resting_status: RestingStatus,
) -> bytes | None:
    """Show a new state on a thread at rest; `values` and `interrupts` are JSON. None: it is busy or gone."""
    cipher = cipher_of(conn)
    shown = None if values is None else values.decode()
    asked = interrupts.decode()
    params = _params(tenant_id, thread_id) | {
        "values": await seal_text(cipher, thread_place(tenant_id, thread_id, "values"), shown),
        "interrupts": await seal_text(cipher, thread_place(tenant_id, thread_id, "interrupts"), asked),
        "resting_status": resting_status,
    }
    return await _json(conn, _q["save_face"], params)


async def patch(
    conn: Conn, tenant_id: str, thread_id: str, *, metadata: str, ttl: Ttl | None = None, visible: str | None = None
) -> bytes | None:
    """Merge metadata (JSON text) and, if given, set the TTL. None: no such thread."""
    metadata = await seal_members_text(cipher_of(conn), metadata_place(tenant_id), metadata)
    params = _params(tenant_id, thread_id, visible) | {"metadata": metadata}
    if ttl is None:
        return await _json(conn, _q["patch_metadata"], params)
    return await _json(conn, _q["patch_metadata_and_ttl"], params | _ttl_params(ttl))


async def copy(
    conn: Conn, tenant_id: str, thread_id: str, *, copy_id: str, metadata: str = "{}", visible: str | None = None
) -> bytes | None:
    """Make a thread like another, without its runs and checkpoints; `metadata` is merged into the other's. None: there
    is no such thread."""
    cipher = cipher_of(conn)
    params = {"copy_id": copy_id, "metadata": await seal_members_text(cipher, metadata_place(tenant_id), metadata)}
    made = await _json(conn, _q["copy_thread"], _params(tenant_id, thread_id, visible) | params)
    if made is not None and cipher is not None:
        await rebind_face(conn, cipher, tenant_id, source=thread_id, target=copy_id)
    return made


async def search(
    conn: Conn,
    tenant_id: str,
    *,
    where: ThreadFilter,
    limit: int,
    offset: int,
    sort_by: ThreadSortBy | None = None,
    sort_order: Literal["asc", "desc"] = "desc",
    fields: Sequence[str] | None = None,
    extract: str | None = None,
    visible: str | None = None,
) -> list[bytes]:
    """A page of threads. `fields` are those to show (None: all); `extract` is a JSON list of `Extract` members.

    Raises:
        SearchesSealed: `where` asks for what is encrypted.
    """
    cipher = cipher_of(conn)
    _check_searchable(cipher, where)
    wanted = fields
    if cipher is not None and fields is not None:
        # What is sealed is bound to the thread's id, and is not yet there for SQL to extract from.
        roots = [wish["root"] for wish in loads(extract)] if extract else []
        fields = list(dict.fromkeys([*fields, *roots, "thread_id"]))
    params = _filter_params(tenant_id, where, visible) | {
        "ids": None if where.ids is None else list(where.ids),
        "limit": limit,
        "offset": offset,
        "sort_by": sort_by,
        "sort_order": sort_order,
        "fields": None if fields is None else list(fields),
        "extract": extract if cipher is None else None,
    }
    newest_first = sort_by in (None, "created_at") and sort_order == "desc"
    statement = _q["search_newest"] if newest_first else _q["search_sorted"]
    # Planned anew each time: which index serves depends on which filters are given.
    cur = await conn.execute(statement, params, prepare=False)
    found = [cast("str", row[0]).encode() for row in await cur.fetchall()]
    wishes = loads(extract) if extract else None
    return await faces.open_threads(cipher, tenant_id, found, fields=wanted, extract=wishes)


def _check_searchable(cipher: Cipher | None, where: ThreadFilter) -> None:
    if cipher is None:
        return
    if where.values is not None and cipher.seals:
        raise SearchesSealed("values: the values of threads are encrypted on this server and cannot be searched")
    if where.metadata is not None and (hidden := cipher.hides(loads(where.metadata))):
        raise SearchesSealed(f"metadata.{hidden[0]}: is encrypted on this server and cannot be searched")


async def count(conn: Conn, tenant_id: str, *, where: ThreadFilter, visible: str | None = None) -> int:
    """How many threads match (`where.ids` is not looked at). Raises SearchesSealed."""
    _check_searchable(cipher_of(conn), where)
    cur = await conn.execute(_q["count_threads"], _filter_params(tenant_id, where, visible), prepare=False)
    row = await cur.fetchone()
    return 0 if row is None else cast("int", row[0])


def _params(tenant_id: str, thread_id: str | None, visible: str | None = None) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "thread_id": thread_id, "visible": visible}


def _ttl_params(ttl: Ttl | None) -> dict[str, Any]:
    return {"ttl_strategy": ttl and ttl.strategy, "ttl_minutes": ttl and ttl.minutes}


def _filter_params(tenant_id: str, where: ThreadFilter, visible: str | None) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "visible": visible,
        "metadata": where.metadata,
        "values": where.values,
        "status": where.status,
    }


def _graph(graph_id: str | None, configurable: Any) -> ThreadGraph:
    return ThreadGraph(graph_id, cast("dict[str, Any]", configurable) if isinstance(configurable, dict) else {})


async def _json(conn: Conn, statement: Any, params: dict[str, Any]) -> bytes | None:
    cur = await conn.execute(statement, params)
    row = await cur.fetchone()
    if row is None:
        return None
    return await faces.open_thread(cipher_of(conn), params["tenant_id"], cast("str", row[0]).encode())
