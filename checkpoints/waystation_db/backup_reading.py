"""Reads a backup from Postgres: every table by COPY, all readers from one snapshot, in parts of a few MB.

    first reader    begin repeatable read; export snapshot ......................... stays open to the end
    other readers                    set transaction snapshot; copy some pages; copy some pages; ...

A part ends where the content of a row says so, and tables are read in their physical order: what did not change since
the last attempt gives the same parts again, which are there already.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import AsyncConnection, sql

from waystation_db import migrate
from waystation_db.backup_format import Manifest, Part, Schema, pack, sealed
from waystation_db.backup_tables import (
    BY_NAME,
    TABLES,
    VECTORS,
    Column,
    Conn,
    Table,
    columns_of,
    condition,
    first_row,
    listed,
    statement,
)
from waystation_db.errors import BackupRefused, DatabaseUnavailable
from waystation_db.pool import normalize_conninfo
from waystation_db.sql import load

_q = load("backup")

PART_BYTES = 4 << 20
_UNIT_PAGES = 16_384
_LAST_PAGE = 4_294_967_295
_HEADER_BYTES = 19
_TRAILER = b"\xff\xff"
_CUT = 0x1F
_EMBEDDINGS = "store_embedding"

Put = Callable[[str, bytes], Awaitable[object]]
"""Stores a part under its name; one that is there already is left alone."""


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot that readers share."""

    conn: Conn
    conninfo: str
    snapshot: str
    at: datetime
    postgres: str
    tenant: str | None
    columns: Mapping[str, tuple[Column, ...]]


@dataclass(frozen=True, slots=True)
class _Pages:
    table: Table
    first: int
    end: int


@asynccontextmanager
async def open_source(conninfo: str, *, tenant: str | None) -> AsyncGenerator[Source]:
    """Take the snapshot. Raises MigrationError: a schema that is not this version's; DatabaseUnavailable."""
    await migrate.check(conninfo)
    async with connected(conninfo) as conn:
        await conn.execute(_q["begin_snapshot"])
        await conn.execute(_q["no_limits"])
        snapshot, at, postgres = await first_row(conn, _q["export_snapshot"])
        columns = await columns_of(conn)
        if missing := sorted(BY_NAME.keys() - columns.keys()):
            raise BackupRefused(f"the database has no table {', '.join(missing)}")
        yield Source(conn, conninfo, snapshot, at, postgres, tenant, columns)


async def read_all(source: Source, put: Put, *, version: str, jobs: int = 2, part_bytes: int = PART_BYTES) -> Manifest:
    """Read every row, hand each part to `put`, and return what there is. Holds `jobs` parts in memory."""
    units = deque(await _units(source))
    order = {table.name: number for number, table in enumerate(TABLES)}
    found: list[tuple[int, int, int, Part]] = []

    async def reader() -> None:
        async with _following(source) as conn:
            while units:
                unit = units.popleft()
                number = 0
                async for rows, count in _parts(conn, source, unit, part_bytes):
                    name, data = await asyncio.to_thread(pack, rows)
                    await put(name, data)
                    table = _EMBEDDINGS if unit.table is VECTORS else unit.table.name
                    found.append((order[table], unit.first, number, Part(table, name, count, len(rows), len(data))))
                    number += 1

    with alone():
        async with asyncio.TaskGroup() as readers:
            for _ in range(jobs):
                readers.create_task(reader())
    parts = tuple(part for *_, part in sorted(found, key=lambda one: one[:3]))
    return await _manifest(source, parts, version)


async def _manifest(source: Source, parts: tuple[Part, ...], version: str) -> Manifest:
    applied, checkpoints, store = await migrate.applied(source.conn)
    keys = await (await source.conn.execute(_q["encryption_keys"])).fetchall()
    return sealed(
        Manifest(
            created_at=source.at.isoformat(),
            version=version,
            postgres=source.postgres,
            tenant=source.tenant,
            schema=Schema(applied, checkpoints, store),
            encryption_keys=tuple(str(row[0]) for row in keys),
            columns=source.columns,
            parts=parts,
        )
    )


async def _units(source: Source) -> list[_Pages]:
    """What readers take in turn: some pages of a table, of the largest tables first. The last ones have no end."""
    names = [*source.columns, VECTORS.name]
    sizes = await (await source.conn.execute(_q["pages"], {"tables": names})).fetchall()
    units: list[_Pages] = []
    for name, pages in sorted(sizes, key=lambda row: -row[1]):
        starts = list(range(0, max(int(pages), 1), _UNIT_PAGES))
        for start in starts:
            end = _LAST_PAGE if start == starts[-1] else start + _UNIT_PAGES
            units.append(_Pages(BY_NAME.get(name, VECTORS), start, end))
    return units


async def _parts(conn: Conn, source: Source, unit: _Pages, part_bytes: int) -> AsyncIterator[tuple[bytes, int]]:
    rows, size = list[bytes](), 0
    async for row in _rows(conn, source, unit):
        rows.append(row)
        size += len(row)
        if size >= 2 * part_bytes or (size >= part_bytes and zlib.crc32(row) & _CUT == 0):
            yield b"".join(rows), len(rows)
            rows, size = [], 0
    if rows:
        yield b"".join(rows), len(rows)


async def _rows(conn: Conn, source: Source, unit: _Pages) -> AsyncIterator[bytes]:
    is_vectors = unit.table is VECTORS
    name = _EMBEDDINGS if is_vectors else unit.table.name
    text = statement(
        _q["copy_vectors_out" if is_vectors else "copy_out"],
        columns=listed([column.name for column in source.columns[name]]),
        table=sql.Identifier(unit.table.name),
        condition=condition(unit.table, source.tenant),
        first=sql.Literal(f"({unit.first},0)"),
        end=sql.Literal(f"({unit.end},0)"),
    )
    skip = _HEADER_BYTES
    async with conn.cursor().copy(text) as copy:
        # One row each, but for the header before the first and the trailer after the last one.
        async for block in copy:
            row = bytes(block)
            if skip:
                row, skip = row[skip:], 0
            if row and row != _TRAILER:
                yield row


@contextmanager
def alone() -> Generator[None]:
    """What one of several tasks raised, and not the group of it."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@asynccontextmanager
async def _following(source: Source) -> AsyncGenerator[Conn]:
    async with connected(source.conninfo) as conn:
        await conn.execute(_q["begin_snapshot"])
        await conn.execute(statement(_q["take_snapshot"], snapshot=sql.Literal(source.snapshot)))
        await conn.execute(_q["no_limits"])
        yield conn


@asynccontextmanager
async def connected(conninfo: str) -> AsyncGenerator[Conn]:
    """A connection of its own, for long transactions. Raises DatabaseUnavailable, also when it is lost."""
    address = normalize_conninfo(conninfo, application_name="waystation-backup")
    try:
        conn = await AsyncConnection.connect(address, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"cannot connect to Postgres: {str(error).strip()}") from error
    try:
        yield conn
        await conn.commit()
    except psycopg.OperationalError as error:
        if conn.broken:
            raise DatabaseUnavailable(f"the connection to Postgres was lost: {str(error).strip()}") from error
        raise
    finally:
        # Ends what is open, too: a rollback in the middle of a COPY could not be sent.
        await conn.close()
