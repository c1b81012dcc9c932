"""The schema allows its hot tables to be placed by `thread_id`: unique indexes and foreign keys hold the column."""

from __future__ import annotations

import psycopg
import pytest

from distribution import COLUMN, DISTRIBUTED, REFERENCE

pytestmark = pytest.mark.anyio

# A uniqueness that several servers cannot watch must contain the column.
_UNIQUE = """
    select c.relname, i.indexrelid::regclass::text, array_agg(a.attname::text)
    from pg_index i
    join pg_class c on c.oid = i.indrelid
    join pg_attribute a on a.attrelid = i.indexrelid
    where i.indisunique and c.relname = any(%s)
    group by 1, 2
"""
_KEYS = """
    select conrelid::regclass::text, confrelid::regclass::text,
           array(select attname::text from pg_attribute where attrelid = conrelid and attnum = any(conkey))
    from pg_constraint where contype = 'f' and conrelid::regclass::text = any(%s)
"""


async def test_what_is_unique_in_a_distributed_table_is_so_within_a_thread(database_uri: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_uri) as conn:
        rows = await (await conn.execute(_UNIQUE, [list(DISTRIBUTED)])).fetchall()
    assert {row[0] for row in rows} == DISTRIBUTED
    assert [index for _, index, columns in rows if COLUMN not in columns] == []


async def test_a_distributed_table_refers_only_to_rows_of_its_own_thread_or_to_reference_tables(
    database_uri: str,
) -> None:
    async with await psycopg.AsyncConnection.connect(database_uri) as conn:
        rows = await (await conn.execute(_KEYS, [list(DISTRIBUTED)])).fetchall()
    assert rows
    foreign = [(table, to) for table, to, columns in rows if to in DISTRIBUTED and COLUMN not in columns]
    assert foreign + [(table, to) for table, to, _ in rows if to not in DISTRIBUTED | REFERENCE] == []
