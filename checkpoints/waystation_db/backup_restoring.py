"""Restores a backup: rows wait in a schema of their own until all are in, and go to their places in one transaction.

    waystation_restore.*   part, part, part ... (each committed; a second attempt goes on after them)
    one transaction        check ─▶ keep or replace what is here already ─▶ insert ─▶ commit
    afterwards             analyze, drop schema waystation_restore

Until that commit nobody sees anything of it, and servers may go on. It takes the space twice for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

import orjson
import psycopg
from psycopg import sql

from waystation_db import backup_merging
from waystation_db.backup_fitting import check_columns, prepare_schema, refuse_early, refuse_foreign
from waystation_db.backup_format import Manifest, Part, unpack
from waystation_db.backup_reading import alone, connected
from waystation_db.backup_tables import Conn, columns_of, first_row, listed, statement, waiting
from waystation_db.errors import BackupRefused
from waystation_db.sql import load

_q = load("backup")

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"

Existing = Literal["refuse", "keep", "replace"]
Queued = Literal["paused", "pending"]
Get = Callable[[Part], Awaitable[bytes]]
"""Reads a part from where it is stored."""


@dataclass(frozen=True, slots=True)
class Options:
    """`tenant`: only its rows. `existing`: what becomes of units that are here too. `queued`: of runs that wait."""

    existing: Existing = "refuse"
    queued: Queued = "paused"
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """Rows put in and left out by table; items whose vectors are to be made anew; parts that were in from before."""

    rows: dict[str, int]
    kept: dict[str, int]
    to_reindex: int
    parts_before: int


async def restore(
    conninfo: str, manifest: Manifest, get: Get, *, options: Options | None = None, jobs: int = 2
) -> Restored:
    """Restore a backup; an interrupted one goes on. Raises BackupRefused (nothing was changed), DatabaseUnavailable."""
    options = options or Options()
    if manifest.tenant is not None and options.tenant not in (None, manifest.tenant):
        raise BackupRefused(f"the backup has only the tenant {manifest.tenant!r}, not {options.tenant!r}")
    refuse_foreign(manifest)
    await prepare_schema(conninfo)
    async with connected(conninfo) as conn, _only_one(conninfo):
        await refuse_early(conn, manifest.schema)
        check_columns(manifest, await columns_of(conn))
        with _told():
            before = await _place(conn, manifest, options)
            await _load(conninfo, manifest, get, before, jobs)
            for name in manifest.columns:
                await conn.execute(statement(_q["analyze"], table=waiting(name)))
            rows, kept, to_reindex = await _merge(conn, manifest, options)
            await _tidy(conn, manifest)
    return Restored(rows, kept, to_reindex, len(before))


async def abandon(conninfo: str) -> bool:
    """Throw away what an interrupted restore left; whether there was something."""
    async with connected(conninfo) as conn, _only_one(conninfo):
        found = bool((await first_row(conn, _q["has_place"]))[0])
        await conn.execute(_q["drop_place"])
        return found


async def release(conninfo: str) -> tuple[int, int, int]:
    """Let go on what was restored paused: how many runs, crons and webhooks."""
    async with connected(conninfo) as conn, conn.transaction():
        await conn.execute(_q["no_limits"])
        counts = [int((await first_row(conn, _q[f"release_{name}"]))[0]) for name in ("runs", "crons", "webhooks")]
    return counts[0], counts[1], counts[2]


async def _place(conn: Conn, manifest: Manifest, options: Options) -> set[tuple[str, str]]:
    """The tables in which rows wait, made anew or as an interrupted restore left them; the parts that are in."""
    wanted = asdict(options)
    if (await first_row(conn, _q["has_place"]))[0]:
        job = await (await conn.execute(_q["get_job"])).fetchone()
        if job is not None and (job[0] != manifest.digest or job[1] != wanted):
            raise BackupRefused(
                "another restore was interrupted here: repeat that one with its options, or throw it away with "
                "`waystation restore --abandon`"
            )
        if job is not None:
            return {(name, sha256) for name, sha256 in await (await conn.execute(_q["parts_in"])).fetchall()}
    if options.existing == "refuse":
        await backup_merging.refuse_existing(conn, manifest, options.tenant or manifest.tenant)
    async with conn.transaction():
        for name in ("drop_place", "make_place", "make_job", "make_parts"):
            await conn.execute(_q[name])
        for name, columns in (await backup_merging.waiting_columns(conn, manifest)).items():
            made = statement(
                _q["make_table"], waiting=waiting(name), columns=listed(columns), table=sql.Identifier(name)
            )
            await conn.execute(made)
        await conn.execute(_q["note_job"], {"digest": manifest.digest, "options": orjson.dumps(wanted).decode()})
    return set()


async def _load(conninfo: str, manifest: Manifest, get: Get, before: set[tuple[str, str]], jobs: int) -> None:
    missing = deque(part for part in manifest.parts if (part.table, part.sha256) not in before)

    async def loader() -> None:
        async with connected(conninfo) as conn:
            while missing:
                part = missing.popleft()
                rows = await asyncio.to_thread(unpack, part, await get(part))
                await _load_part(conn, manifest, part, rows)

    with alone():
        async with asyncio.TaskGroup() as loaders:
            for _ in range(min(jobs, len(missing))):
                loaders.create_task(loader())


async def _load_part(conn: Conn, manifest: Manifest, part: Part, rows: bytes) -> None:
    columns = listed([column.name for column in manifest.columns[part.table]])
    async with conn.transaction():
        await conn.execute(_q["no_limits"])
        cursor = conn.cursor()
        async with cursor.copy(statement(_q["copy_in"], table=waiting(part.table), columns=columns)) as copy:
            await copy.write(_HEADER)
            await copy.write(rows)
            await copy.write(_TRAILER)
        if cursor.rowcount != part.rows:
            raise BackupRefused(f"part {part.sha256[:12]} of {part.table} has {cursor.rowcount} rows, not {part.rows}")
        await conn.execute(_q["note_part"], {"table": part.table, "sha256": part.sha256, "rows": part.rows})


async def _merge(conn: Conn, manifest: Manifest, options: Options) -> tuple[dict[str, int], dict[str, int], int]:
    async with conn.transaction():
        await conn.execute(_q["no_limits"])
        tenant = options.tenant or manifest.tenant
        await backup_merging.narrow(conn, manifest, options.tenant)
        if options.existing == "refuse":
            await backup_merging.refuse_existing(conn, manifest, tenant)
        to_reindex = await backup_merging.fit_vectors(conn, manifest)
        kept = await backup_merging.settle(conn, options.existing)
        await conn.execute(_q["requeue_running"])
        if options.queued == "paused":
            for name in ("pause_runs", "pause_crons", "pause_webhooks"):
                await conn.execute(_q[name])
        rows = await backup_merging.put_in(conn, manifest, careful=options.existing == "keep")
        await conn.execute(_q["drop_place"])
        await conn.execute(_q["wake"])
    return rows, kept, to_reindex


async def _tidy(conn: Conn, manifest: Manifest) -> None:
    for name in (await columns_of(conn)).keys() & manifest.columns.keys():
        await conn.execute(statement(_q["analyze"], table=sql.Identifier(name)))


@asynccontextmanager
async def _only_one(conninfo: str) -> AsyncGenerator[None]:
    async with connected(conninfo) as conn, conn.transaction():
        await conn.execute(_q["no_limits"])
        if not (await first_row(conn, _q["lock_restore"]))[0]:
            raise BackupRefused("another restore into this database is under way")
        yield


@contextmanager
def _told() -> Generator[None]:
    """What Postgres does not take, and nothing was changed; a connection that is lost is another matter."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            raise
        raise BackupRefused(f"Postgres does not take the backup: {str(error).strip()}") from error
