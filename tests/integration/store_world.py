"""Stores on a test's database: with pgvector, and without the right to have it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from waystation_db.pool import Database
from waystation_db.store import PostgresStore, open_store
from waystation_db.store_vectors import StoreIndex

Where = Literal["pgvector", "exact"]

DIMS = 4


def letters(texts: Sequence[str]) -> list[list[float]]:
    """As many numbers as dimensions: how often a to d are in the text."""
    return [[float(text.count(letter)) for letter in "abcd"] for text in texts]


def index(**changes: Any) -> StoreIndex:
    """An index of `letters` over the field `text`."""

    async def embed(texts: list[str]) -> list[list[float]]:
        return letters(texts)

    given: dict[str, Any] = {"dims": DIMS, "embed": embed, "name": "letters", "fields": ("text",)}
    return StoreIndex(**{**given, **changes})


@asynccontextmanager
async def plain_database(db: Database) -> AsyncGenerator[Database]:
    """The same database as a role that may read and write and not create anything: an extension neither."""
    role = sql.Identifier(name := f"plain_{uuid.uuid4().hex}")
    async with db.connection() as conn:
        await conn.execute(sql.SQL("create role {} login").format(role))
        await conn.execute(sql.SQL("grant all on all tables in schema public to {}").format(role))
        await conn.execute("revoke create on schema public from public")
    try:
        async with Database(make_conninfo(db.conninfo, user=name), name="plain") as plain:
            yield plain
    finally:
        async with db.connection() as conn:
            await conn.execute(sql.SQL("drop owned by {}").format(role))
            await conn.execute(sql.SQL("drop role {}").format(role))


async def need_pgvector(db: Database) -> None:
    """Skip where this Postgres has none: the embedded one has, one named by WAYSTATION_TEST_BINDIR may not."""
    async with db.connection() as conn:
        found = await conn.execute("select from pg_available_extensions where name = 'vector'")
        if await found.fetchone() is None:
            pytest.skip("this Postgres has no pgvector")


@asynccontextmanager
async def store_in(where: Where, db: Database, **changes: Any) -> AsyncGenerator[PostgresStore]:
    """A store that searches by meaning, with pgvector or without. Skips where this Postgres has none."""
    if where == "pgvector":
        await need_pgvector(db)
        async with open_store(db, index=index(**changes)) as store:
            assert not store.compares_all_vectors
            yield store
        return
    async with plain_database(db) as plain, open_store(plain, index=index(**changes)) as store:
        assert store.compares_all_vectors
        yield store
