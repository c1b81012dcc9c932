"""Which tables a backup holds, whose their rows are, and what belongs together when it is restored.

A unit is what is kept or replaced as a whole where both sides have it: a thread with its runs and checkpoints, an
assistant with its versions, a store item with its vectors, a tenant's audit chain. A table that stands alone is
restored row by row. A migration that adds a table adds it here, to one of the two lists; a test fails until it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from waystation_db.sql import load
from waystation_db.store_names import Scope

Conn = AsyncConnection[TupleRow]
Of = Literal["tenant", "thread", "prefix", "all"]
Unit = Literal["row", "entry", "thread", "assistant", "item", "account", "chain"]

_q = load("backup")
_OF: dict[Of, LiteralString] = {
    "tenant": _q["of_tenant"],
    "thread": _q["of_thread"],
    "prefix": _q["of_prefix"],
    "all": _q["of_all"],
}


@dataclass(frozen=True, slots=True)
class Table:
    """`of`: how a row says whose it is; `all` is what every backup has, of one tenant too. `unit`: with what it is kept
    or replaced; an `entry` is never replaced."""

    name: str
    of: Of = "tenant"
    unit: Unit = "row"


TABLES: tuple[Table, ...] = (
    # In the order in which foreign keys let rows in.
    Table("encryption_key", "all", "entry"),
    Table("api_key"),
    Table("assistant", unit="assistant"),
    Table("assistant_version", unit="assistant"),
    Table("thread", unit="thread"),
    Table("checkpoint_blobs", "thread", "thread"),
    Table("checkpoint_writes", "thread", "thread"),
    Table("checkpoints", "thread", "thread"),
    Table("run", unit="thread"),
    Table("run_trace", unit="thread"),
    Table("run_idempotency", unit="thread"),
    Table("checkpoint_write_before", unit="thread"),
    Table("cron"),
    Table("webhook_delivery"),
    Table("store_index", "all", "entry"),
    Table("store", "prefix", "item"),
    Table("store_embedding", "prefix", "item"),
    Table("store_reindex", "prefix", "item"),
    Table("guard_account", unit="account"),
    Table("guard_hold", unit="account"),
    Table("guard_ledger", unit="entry"),
    Table("guard_ratio"),
    Table("guard_value"),
    Table("guard_kill"),
    Table("audit_head", unit="chain"),
    Table("audit_record", unit="chain"),
    Table("audit_anchor", unit="chain"),
)
BY_NAME = {table.name: table for table in TABLES}
VECTORS = Table("store_vectors", "prefix", "item")
"""There only where Postgres has pgvector. A backup has its rows in the form of store_embedding, which every database
has and from which a server moves them here (store_setup.py)."""

ROOTS: dict[Unit, tuple[str, tuple[str, ...]]] = {
    "assistant": ("assistant", ("tenant_id", "assistant_id")),
    "item": ("store", ("prefix", "key")),
    "account": ("guard_account", ("tenant_id", "account_id")),
    "chain": ("audit_head", ("tenant_id",)),
}
"""The table that says which units there are, and by what; threads have statements of their own."""

LEFT_OUT = {
    VECTORS.name: "in a backup as rows of store_embedding",
    "event_chunk": "events of streams, which live for minutes",
    "guard_bucket": "what is left of rates at this moment",
    "guard_pause": "pauses that providers asked for",
    "guard_place": "calls under way",
    "guard_breaker": "open breakers",
    "guard_outcome": "what breakers count",
    "guard_cache": "cached answers",
    "guard_lock": "who computes a cached answer",
    "waystation_migration": "the schema's own: migrations bring it",
    "checkpoint_migrations": "the schema's own",
    "store_migrations": "the schema's own",
    "vector_migrations": "the schema's own",
}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str


async def columns_of(conn: Conn) -> dict[str, tuple[Column, ...]]:
    """The columns of each table that is here, without generated ones."""
    found: dict[str, list[Column]] = {}
    names = [table.name for table in TABLES]
    for name, column, kind in await (await conn.execute(_q["columns"], {"tables": names})).fetchall():
        found.setdefault(name, []).append(Column(column, kind))
    return {name: tuple(columns) for name, columns in found.items()}


async def keys_of(conn: Conn) -> dict[str, tuple[str, ...]]:
    """The primary key of each table that is here."""
    found: dict[str, list[str]] = {}
    names = [table.name for table in TABLES]
    for name, column in await (await conn.execute(_q["keys"], {"tables": names})).fetchall():
        found.setdefault(name, []).append(column)
    return {name: tuple(columns) for name, columns in found.items()}


def condition(table: Table, tenant: str | None) -> sql.Composed:
    """Which rows are a tenant's; None: all."""
    of: Of = "all" if tenant is None else table.of
    root = "" if tenant is None else Scope.of(tenant).root
    return sql.SQL(_OF[of]).format(tenant=sql.Literal(tenant), root=sql.Literal(root))


def listed(columns: Sequence[str]) -> sql.Composed:
    """Names of columns, with commas between them."""
    return sql.SQL(", ").join([sql.Identifier(column) for column in columns])


def waiting(name: str) -> sql.Identifier:
    """Where rows of a table wait to be restored."""
    return sql.Identifier("waystation_restore", name)


def statement(text: LiteralString, **parts: sql.Composable) -> sql.Composed:
    """One of queries/backup.sql with names put in."""
    return sql.SQL(text).format(**parts)


async def first_row(conn: Conn, text: LiteralString | sql.Composed, params: dict[str, Any] | None = None) -> TupleRow:
    """The one row that a statement gives."""
    row = await (await conn.execute(text, params)).fetchone()
    if row is None:
        raise LookupError("Postgres gave no row where there must be one")
    return row
