"""Crons: what the API does with their rows, and how one that is due is taken.

Taking a cron, creating its run and moving it to its next tick are one transaction of the caller's: a crash in between
leaves the cron due, and a second process that looks at the same moment passes it over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db import cron_sealing as sealing
from waystation_db.errors import Undecipherable
from waystation_db.pool import cipher_of
from waystation_db.sql import load

_q = load("crons")

log = logging.getLogger(__name__)

_PUT_OFF = timedelta(minutes=1)

Conn = AsyncConnection[TupleRow]
CronSortBy = Literal["cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"]


@dataclass(frozen=True, slots=True)
class NewCron:
    """A cron to make. `owner`, `payload` and `metadata` are JSON text."""

    cron_id: str
    assistant_id: str
    thread_id: str | None
    user_id: str
    owner: str
    schedule: str
    timezone: str | None
    end_time: datetime | None
    payload: str
    metadata: str
    on_run_completed: Literal["delete", "keep"] | None
    enabled: bool
    next_run_at: datetime


@dataclass(frozen=True, slots=True)
class LockedCron:
    """A cron that is held for a change."""

    schedule: str
    timezone: str | None
    enabled: bool
    payload: dict[str, Any]
    next_run_at: datetime


@dataclass(frozen=True, slots=True)
class CronPatch:
    """What changes in a locked cron; None keeps what is there. `payload` is the whole new one."""

    payload: str
    schedule: str | None = None
    timezone: str | None = None
    sets_end: bool = False
    end_time: datetime | None = None
    metadata: str | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    enabled: bool | None = None
    next_run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CronFilter:
    """Which crons; members that are None do not restrict. `metadata` is JSON text."""

    metadata: str | None = None
    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class DueCron:
    """A cron that is due, held by this transaction. `now` is the database's clock; `due_at` the tick."""

    tenant_id: str
    cron_id: str
    assistant_id: str
    thread_id: str | None
    owner: dict[str, Any]
    schedule: str
    timezone: str | None
    payload: dict[str, Any]
    metadata: dict[str, Any]
    on_run_completed: Literal["delete", "keep"] | None
    due_at: datetime
    now: datetime
    late_firings: int
    thread_runs: int | None
    """Active runs of its thread; None where there is no thread (any more)."""


async def database_time(conn: Conn) -> datetime:
    """What time it is, for everybody."""
    row = await (await conn.execute(_q["database_time"])).fetchone()
    return cast("TupleRow", row)[0]


async def assistant_exists(conn: Conn, tenant_id: str, assistant_id: str) -> bool:
    """Whether the tenant has this assistant."""
    params = {"tenant_id": tenant_id, "assistant_id": assistant_id}
    return await (await conn.execute(_q["assistant_exists"], params)).fetchone() is not None


async def thread_exists(conn: Conn, tenant_id: str, thread_id: str, *, visible: str = "{}") -> bool:
    """Whether the tenant has this thread, and the filter lets it be seen."""
    params = {"tenant_id": tenant_id, "thread_id": thread_id, "visible": visible}
    return await (await conn.execute(_q["thread_exists"], params)).fetchone() is not None


async def create(conn: Conn, tenant_id: str, new: NewCron) -> bytes:
    """Make a cron; it as the API shows it."""
    params = {name: getattr(new, name) for name in NewCron.__slots__} | {"tenant_id": tenant_id}
    params = await sealing.sealed(cipher_of(conn), tenant_id, new.cron_id, params)
    return cast("bytes", await _json(conn, _q["create_cron"], params))


async def get(conn: Conn, tenant_id: str, cron_id: str, *, visible: str = "{}") -> bytes | None:
    """A cron as the API shows it; None if there is none."""
    return await _json(conn, _q["get_cron"], _params(tenant_id, cron_id, visible))


async def lock(conn: Conn, tenant_id: str, cron_id: str, *, visible: str = "{}") -> LockedCron | None:
    """Hold a cron for a change until the transaction ends; None if there is none."""
    row = await (await conn.execute(_q["lock_cron"], _params(tenant_id, cron_id, visible))).fetchone()
    if row is None:
        return None
    return await sealing.opened(cipher_of(conn), tenant_id, cron_id, LockedCron(*row))


async def patch(conn: Conn, tenant_id: str, cron_id: str, *, change: CronPatch) -> bytes | None:
    """Change a locked cron. None: it is gone."""
    members = {name: getattr(change, name) for name in CronPatch.__slots__}
    members = await sealing.sealed(cipher_of(conn), tenant_id, cron_id, members)
    return await _json(conn, _q["patch_cron"], members | {"tenant_id": tenant_id, "cron_id": cron_id})


async def delete(conn: Conn, tenant_id: str, cron_id: str, *, visible: str = "{}") -> bool:
    """Delete a cron; False if there is none. Its runs stay."""
    cur = await conn.execute(_q["delete_cron"], _params(tenant_id, cron_id, visible))
    return await cur.fetchone() is not None


async def search(
    conn: Conn,
    tenant_id: str,
    *,
    where: CronFilter,
    limit: int,
    offset: int,
    sort_by: CronSortBy = "created_at",
    ascending: bool = False,
    fields: Sequence[str] | None = None,
    visible: str = "{}",
) -> list[bytes]:
    """A page of crons, each as JSON; `fields` are those to show (None: all)."""
    cipher, wanted = cipher_of(conn), fields
    if cipher is not None and fields is not None:
        fields = [*fields, "cron_id"]  # what is sealed is bound to it
    params = _filter_params(tenant_id, where, visible) | {
        "limit": limit,
        "offset": offset,
        "sort_by": sort_by,
        "ascending": ascending,
        "fields": None if fields is None else list(fields),
    }
    cur = await conn.execute(_q["search_crons"], params)
    found = [cast("str", row[0] or "{}").encode() for row in await cur.fetchall()]
    return await sealing.open_faces(cipher, tenant_id, found, fields=wanted)


async def count(conn: Conn, tenant_id: str, *, where: CronFilter, visible: str = "{}") -> int:
    """How many crons match."""
    row = await (await conn.execute(_q["count_crons"], _filter_params(tenant_id, where, visible))).fetchone()
    return 0 if row is None else row[0]


async def take_due(conn: Conn) -> DueCron | None:
    """Hold the cron, of any tenant, that has been due longest and that nobody else holds. Needs a transaction.

    One that does not open is put off by a minute: a process that has its key may come by.
    """
    while row := await (await conn.execute(_q["take_due"])).fetchone():
        cron, cipher = DueCron(*row), cipher_of(conn)
        try:
            sealing.adopt(cipher, cron.payload)
            return await sealing.opened(cipher, cron.tenant_id, cron.cron_id, cron)
        except Undecipherable as error:
            log.warning("a cron cannot be decrypted and waits", extra={"cron_id": cron.cron_id, "error": str(error)})
            await move_on(conn, cron, next_run_at=cron.now + _PUT_OFF, late_firings=cron.late_firings)
    return None


async def move_on(conn: Conn, cron: DueCron, *, next_run_at: datetime, late_firings: int = 0) -> None:
    """Give a held cron its next tick."""
    params = {"next_run_at": next_run_at, "late_firings": late_firings}
    await conn.execute(_q["move_on"], params | {"tenant_id": cron.tenant_id, "cron_id": cron.cron_id})


async def switch_off(conn: Conn, cron: DueCron, *, reason: str) -> None:
    """Let a held cron fire no more, and say why."""
    params = {"tenant_id": cron.tenant_id, "cron_id": cron.cron_id, "reason": reason}
    await conn.execute(_q["switch_off"], params)


async def until_due(conn: Conn) -> float | None:
    """Seconds until the next cron of any tenant is due, not above 0 when one is overdue. None: none is waited for."""
    row = await (await conn.execute(_q["until_due"])).fetchone()
    return None if row is None else row[0]


def _params(tenant_id: str, cron_id: str, visible: str) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "cron_id": cron_id, "visible": visible}


def _filter_params(tenant_id: str, where: CronFilter, visible: str) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "visible": visible,
        "metadata": where.metadata,
        "assistant_id": where.assistant_id,
        "thread_id": where.thread_id,
        "enabled": where.enabled,
    }


async def _json(conn: Conn, statement: LiteralString, params: Mapping[str, Any]) -> bytes | None:
    row = await (await conn.execute(statement, params)).fetchone()
    if row is None:
        return None
    return await sealing.open_face(cipher_of(conn), params["tenant_id"], cast("str", row[0]).encode())
