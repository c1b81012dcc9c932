"""What a backup knows of the schema: a migration that adds a table has to say whether backups hold it."""

from __future__ import annotations

import pytest

from waystation_db.backup_tables import LEFT_OUT, TABLES, VECTORS
from waystation_db.pool import Database
from waystation_db.sql import load

pytestmark = pytest.mark.anyio

_q = load("backup")


async def test_every_table_is_backed_up_or_left_out_with_a_reason(db: Database) -> None:
    async with db.connection() as conn:
        there = {row[0] for row in await (await conn.execute(_q["own_tables"])).fetchall()}
    known = [table.name for table in TABLES]

    assert there - {VECTORS.name, "vector_migrations"} == {*known, *LEFT_OUT} - {VECTORS.name, "vector_migrations"}
    assert not {*known} & LEFT_OUT.keys()
    assert all(LEFT_OUT.values())


async def test_no_number_comes_from_a_sequence_that_a_restore_would_have_to_set(db: Database) -> None:
    async with db.connection() as conn:
        assert await (await conn.execute(_q["own_sequences"])).fetchall() == []


async def test_parents_come_before_their_children(db: Database) -> None:
    order = [table.name for table in TABLES]
    async with db.connection() as conn:
        found = await conn.execute(
            "select conrelid::regclass::text, confrelid::regclass::text from pg_constraint where contype = 'f'"
        )
        pairs = [(child, parent) for child, parent in await found.fetchall() if child in order and parent in order]
    assert pairs
    assert [(child, parent) for child, parent in pairs if order.index(child) <= order.index(parent)] == []
