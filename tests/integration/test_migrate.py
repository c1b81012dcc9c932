"""Migrations: once each whatever runs at the same time, never edited, and clear about what to do."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from waystation_db.errors import DatabaseUnavailable, MigrationError
from waystation_db.migrate import Migration, check, migrate, migrations, pending
from waystation_db.migration_plan import plan

pytestmark = pytest.mark.anyio

_TABLE = Migration("0001_table.pre", "pre", "create table t (n int); insert into t values (1);")
_INDEX = Migration(
    "0002_index.pre",
    "pre",
    "-- no-transaction\n-- Two statements.\ndrop index if exists t_n;\ncreate index concurrently t_n on t (n);\n",
)
_POST = Migration("0002_index.post", "post", "alter table t add column m int;")
_LANGGRAPH = ["langgraph-checkpoints", "langgraph-store"]


async def _rows(uri: str, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as conn:
        cursor = await conn.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


async def test_package_migrations_are_applied_in_order_and_recorded(empty_database_uri: str) -> None:
    names = [one.name for one in migrations()]
    assert await pending(empty_database_uri) == _LANGGRAPH + names
    assert await migrate(empty_database_uri) == _LANGGRAPH + names
    assert await migrate(empty_database_uri) == []
    await check(empty_database_uri)
    recorded = await _rows(empty_database_uri, "select name from waystation_migration order by applied_at, name")
    assert sorted(recorded) == sorted((name,) for name in names)


async def test_twenty_at_once_apply_each_file_once(empty_database_uri: str) -> None:
    results = await asyncio.gather(*(migrate(empty_database_uri, known=[_TABLE, _INDEX]) for _ in range(20)))
    assert sorted(results, key=len)[-1] == [*_LANGGRAPH, _TABLE.name, _INDEX.name]
    assert sum(map(len, results)) == 4
    assert await _rows(empty_database_uri, "select n from t") == [(1,)]


async def test_database_of_langgraph_is_taken_over_as_it_is(empty_database_uri: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(empty_database_uri) as saver:
        await saver.setup()
    await _rows(
        empty_database_uri,
        "insert into checkpoints (thread_id, checkpoint_id, checkpoint) values ('t', 'c', '{}')",
    )
    assert "langgraph-checkpoints" not in await migrate(empty_database_uri)
    assert await _rows(empty_database_uri, "select thread_id from checkpoints") == [("t",)]


async def test_phases_are_applied_apart(empty_database_uri: str) -> None:
    known = [_TABLE, _POST]
    assert await migrate(empty_database_uri, phase="pre", known=known) == [*_LANGGRAPH, _TABLE.name]
    await check(empty_database_uri, known=known)
    assert await pending(empty_database_uri, known=known) == [_POST.name]
    assert await migrate(empty_database_uri, phase="post", known=known) == [_POST.name]


async def test_tables_of_post_files_are_not_missed_before_they_ran(empty_database_uri: str) -> None:
    known = [_TABLE, Migration("0002_more.post", "post", "create table u (n int);")]
    await migrate(empty_database_uri, phase="pre", known=known)
    await check(empty_database_uri, known=known)
    await migrate(empty_database_uri, known=known)
    await _rows(empty_database_uri, "drop table u")
    with pytest.raises(MigrationError, match=r"there is no u\."):
        await check(empty_database_uri, known=known)


async def test_concurrent_index_is_built_outside_of_a_transaction(empty_database_uri: str) -> None:
    await migrate(empty_database_uri, known=[_TABLE, _INDEX])
    assert await _rows(empty_database_uri, "select indisvalid from pg_index where indexrelid = 't_n'::regclass") == [
        (True,)
    ]


async def test_failed_file_leaves_nothing_and_is_named(empty_database_uri: str) -> None:
    broken = Migration("0002_broken.pre", "pre", "create table half (n int); select 1 / 0;")
    with pytest.raises(MigrationError, match=r"0002_broken.pre failed: division by zero"):
        await migrate(empty_database_uri, known=[_TABLE, broken])
    assert await _rows(empty_database_uri, "select to_regclass('half')") == [(None,)]
    assert await pending(empty_database_uri, known=[_TABLE, broken]) == [broken.name]


async def test_edited_file_is_refused(empty_database_uri: str) -> None:
    await migrate(empty_database_uri, known=[_TABLE])
    edited = Migration(_TABLE.name, "pre", "create table t (n bigint)")
    for look in (migrate, pending, check):
        with pytest.raises(MigrationError, match=r"0001_table.pre.sql was changed after"):
            await look(empty_database_uri, known=[edited])


async def test_older_version_serves_beside_the_next_until_its_post_files_ran(empty_database_uri: str) -> None:
    await migrate(empty_database_uri, known=[_TABLE, _INDEX])
    await check(empty_database_uri, known=[_TABLE])
    assert await migrate(empty_database_uri, known=[_TABLE]) == []
    await migrate(empty_database_uri, known=[_TABLE, _INDEX, _POST])
    for look in (migrate, check):
        with pytest.raises(MigrationError, match=r"newer version .*0002_index.post"):
            await look(empty_database_uri, known=[_TABLE])


@pytest.mark.parametrize("table", ["t", "checkpoint_blobs", "store"])
async def test_tables_of_somebody_else_are_left_alone(empty_database_uri: str, table: str) -> None:
    await _rows(empty_database_uri, f"create table {table} (theirs text)")
    for look in (migrate, check, plan):
        with pytest.raises(MigrationError, match=rf"did not make: {table}\. Nothing was changed"):
            await look(empty_database_uri, known=[_TABLE])
    found = await _rows(
        empty_database_uri, "select relname::text from pg_class where relnamespace = 'public'::regnamespace"
    )
    assert found == [(table,)]


async def test_check_of_an_empty_database_names_the_command(empty_database_uri: str) -> None:
    with pytest.raises(MigrationError, match="Run `waystation migrate`"):
        await check(empty_database_uri)


async def test_migration_waits_for_the_one_that_runs(empty_database_uri: str) -> None:
    """The lock is free again when its holder is gone, however it went."""
    from waystation_db.sql import load

    holder = await psycopg.AsyncConnection.connect(empty_database_uri)
    await holder.execute(load("migrate")["try_lock"])
    with pytest.raises(MigrationError, match="Another process"):
        await migrate(empty_database_uri, known=[_TABLE], timeout_s=0.1)
    waiting = asyncio.create_task(migrate(empty_database_uri, known=[_TABLE]))
    await _rows(empty_database_uri, f"select pg_terminate_backend({holder.info.backend_pid})")
    async with asyncio.timeout(60):
        assert _TABLE.name in await waiting
    await holder.close()


async def test_table_in_use_is_waited_for_in_short_turns(empty_database_uri: str) -> None:
    await migrate(empty_database_uri, known=[_TABLE])
    async with await psycopg.AsyncConnection.connect(empty_database_uri) as reader:
        await reader.execute("select * from t")
        migrating = asyncio.create_task(migrate(empty_database_uri, known=[_TABLE, _POST]))
        await _until_waiting_for_t(empty_database_uri, 1)
        await _until_waiting_for_t(empty_database_uri, 0)  # it gave up, and others may pass
        await reader.rollback()
        assert await migrating == [_POST.name]


async def test_statements_outside_of_a_transaction_wait_in_short_turns_too(empty_database_uri: str) -> None:
    slow = Migration("0003_m.pre", "pre", "-- no-transaction\nalter table t add column if not exists m int;\n")
    await migrate(empty_database_uri, known=[_TABLE])
    async with await psycopg.AsyncConnection.connect(empty_database_uri) as reader:
        await reader.execute("select * from t")
        migrating = asyncio.create_task(migrate(empty_database_uri, known=[_TABLE, slow]))
        await _until_waiting_for_t(empty_database_uri, 1)
        assert await _rows(empty_database_uri, "select n from t") == [(1,)]  # behind it, and then past it
        await _until_waiting_for_t(empty_database_uri, 0)
        await reader.rollback()
        assert await migrating == [slow.name]


async def test_plan_tells_sizes_and_what_locks_may_wait_for(empty_database_uri: str) -> None:
    await migrate(empty_database_uri, known=[_TABLE])
    await _rows(empty_database_uri, "insert into t select generate_series(1, 500); analyze t")
    async with await psycopg.AsyncConnection.connect(empty_database_uri) as reader:
        await reader.execute("select pg_sleep(1.1)")
        told = await plan(empty_database_uri, known=[_TABLE, _INDEX, _POST])
    assert [(one.name, one.verdict) for one in told.steps] == [
        (_INDEX.name, "safe under load"),
        (_POST.name, "safe under load"),
    ]
    assert told.rows["t"] == 501
    assert told.long_transactions == 1
    assert told.oldest_s > 1
    assert await pending(empty_database_uri, known=[_TABLE, _INDEX, _POST]) == [_INDEX.name, _POST.name]


async def test_plan_of_an_empty_database_has_everything(empty_database_uri: str) -> None:
    told = await plan(empty_database_uri)
    assert [one.name for one in told.steps] == await pending(empty_database_uri)
    assert "checkpoints" in told.steps[0].makes


async def test_a_schema_without_its_tables_is_refused(database_uri: str) -> None:
    await _rows(database_uri, "drop table event_chunk")
    with pytest.raises(MigrationError, match=r"schema is broken: .* no event_chunk\. Restore"):
        await check(database_uri)


async def _until_waiting_for_t(uri: str, count: int) -> None:
    async with asyncio.timeout(60):
        waiting = "select count(*) from pg_locks where not granted and relation = 't'::regclass"
        while await _rows(uri, waiting) != [(count,)]:  # noqa: ASYNC110  # Postgres cannot tell us
            await asyncio.sleep(0.01)


async def test_no_server_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate("postgresql://127.0.0.1:1/none")
