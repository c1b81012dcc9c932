"""The last step of a restore, inside its transaction: what is here already is kept or replaced unit by unit, and the
rows that waited go to their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from psycopg import sql

from waystation_db.backup_format import Manifest
from waystation_db.backup_tables import (
    ROOTS,
    TABLES,
    Conn,
    Table,
    columns_of,
    condition,
    first_row,
    keys_of,
    listed,
    statement,
    waiting,
)
from waystation_db.errors import BackupRefused
from waystation_db.sql import load

_q = load("backup")

_CHECKPOINTS = ("checkpoint_blobs", "checkpoint_writes", "checkpoints")
_SHARED = frozenset({"encryption_key", "store_index", "store_reindex", "store_embedding"})


async def refuse_existing(conn: Conn, manifest: Manifest, tenant: str | None) -> None:
    """Raise BackupRefused when there is anything here of what the backup has."""
    here = await columns_of(conn)
    met: list[str] = []
    for table in TABLES:
        if table.name in here and table.name in manifest.columns and table.name not in _SHARED:
            looked = statement(_q["is_there"], table=sql.Identifier(table.name), condition=condition(table, tenant))
            if (await first_row(conn, looked))[0]:
                met.append(table.name)
    if met:
        whose = "" if tenant is None else f" of the tenant {tenant!r}"
        raise BackupRefused(
            f"the database is not empty: it has rows{whose} in {', '.join(met)}. --existing keep leaves what is there, "
            "--existing replace puts the backup in its place"
        )


async def waiting_columns(conn: Conn, manifest: Manifest) -> dict[str, list[str]]:
    """The columns with which rows of each table wait: those of the backup, or all where it has no such table."""
    here = await columns_of(conn)
    return {name: [column.name for column in (manifest.columns.get(name) or columns)] for name, columns in here.items()}


async def narrow(conn: Conn, manifest: Manifest, tenant: str | None) -> None:
    """Check the number of rows, and leave those of one tenant."""
    for table in TABLES:
        if table.name not in manifest.columns:
            continue
        place = waiting(table.name)
        count = int((await first_row(conn, statement(_q["count_waiting"], waiting=place)))[0])
        if count != manifest.rows[table.name]:
            raise BackupRefused(f"{count} rows of {table.name} are in, not {manifest.rows[table.name]}")
        if tenant is not None:
            await conn.execute(statement(_q["only_tenant"], waiting=place, condition=condition(table, tenant)))


async def fit_vectors(conn: Conn, manifest: Manifest) -> int:
    """Vectors of another embedding than that of this database cannot be searched with its own: they are made anew."""
    rows = [
        await (await conn.execute(statement(_q["store_index"], table=table))).fetchone()
        for table in (sql.Identifier("store_index"), waiting("store_index"))
    ]
    if rows[0] is None or rows[1] is None or rows[0] == rows[1]:
        return 0
    count = (await conn.execute(_q["reindex_waiting"])).rowcount
    everything = statement(_q["of_all"])
    await conn.execute(statement(_q["delete_where"], table=waiting("store_embedding"), condition=everything))
    return count


async def settle(conn: Conn, existing: Literal["refuse", "keep", "replace"]) -> dict[str, int]:
    """Make room for one side; the rows of the backup that are left out, by table. The audit chain is never replaced."""
    if existing == "refuse":
        return {}
    left_out: dict[str, int] = {}
    await conn.execute(_q["find_kept_threads"])
    if existing == "replace":
        await conn.execute(_q["hush_met_runs"])
    keys, here = await keys_of(conn), await columns_of(conn)
    # Those that refer to others first.
    for table in reversed([table for table in TABLES if table.name in here and table.unit != "entry"]):
        keep = existing == "keep" or table.unit == "chain"
        count = await _take_out(conn, table, keys[table.name], keep=keep)
        if keep and count:
            left_out[table.name] = count
    return left_out


async def _take_out(conn: Conn, table: Table, key: Sequence[str], *, keep: bool) -> int:
    """Of the units that both sides have, take out those of the backup or those that are here."""
    place = waiting(table.name) if keep else sql.Identifier(table.name)
    if table.unit == "thread":
        met = statement(_q["of_met_key" if table.name in _CHECKPOINTS else "of_met_thread"])
        return (await conn.execute(statement(_q["delete_where"], table=place, condition=met))).rowcount
    root, columns = (table.name, tuple(key)) if table.unit in ("row", "entry") else ROOTS[table.unit]
    equal = sql.SQL(" and ").join(
        [sql.SQL("x.{0} = y.{0}").format(sql.Identifier(column)) for column in columns]  # a join, and no statement
    )
    other = sql.Identifier(root) if keep else waiting(root)
    return (await conn.execute(statement(_q["delete_met"], table=place, other=other, equal=equal))).rowcount


async def put_in(conn: Conn, manifest: Manifest, *, careful: bool) -> dict[str, int]:
    """Rows to their places; how many of each table. `careful`: what somebody else has put there meanwhile stays."""
    here = await columns_of(conn)
    counts: dict[str, int] = {}
    for table in TABLES:
        if table.name not in here:
            continue
        columns = [column.name for column in (manifest.columns.get(table.name) or here[table.name])]
        gently = careful or table.unit == "entry" or table.name in _SHARED
        moved = statement(
            _q["put_in"],
            table=sql.Identifier(table.name),
            columns=listed(columns),
            waiting=waiting(table.name),
            conflict=sql.SQL(_q["or_nothing"]) if gently else sql.SQL(""),
        )
        counts[table.name] = (await conn.execute(moved)).rowcount
    return counts
