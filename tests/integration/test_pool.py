"""The pool: connections come back clean, callers wait no longer than they said, outages end when Postgres is back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from waystation_db.embedded import EmbeddedPostgres
from waystation_db.errors import DatabaseUnavailable
from waystation_db.pool import Database, normalize_conninfo

pytestmark = pytest.mark.anyio


async def _one(database: Database, *, timeout_s: float | None = None) -> int:
    async with database.connection(timeout_s=timeout_s) as conn:
        row = await (await conn.execute("select 1")).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def uri(empty_database_uri: str) -> str:
    return empty_database_uri


async def test_connection_commits_each_statement(uri: str) -> None:
    async with Database(uri) as database:
        async with database.connection() as conn:
            await conn.execute("create table t as select 1 as n")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await conn.execute("select 1 / 0")
        async with database.connection() as conn:
            assert await (await conn.execute("select n from t")).fetchone() == (1,)


async def test_open_transaction_is_rolled_back_when_the_block_ends(uri: str) -> None:
    async with Database(uri, max_size=1) as database:
        async with database.connection() as conn:
            await conn.execute("create table t (n int)")
            await conn.execute("begin")
            await conn.execute("insert into t values (1)")
        async with database.connection() as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert await (await conn.execute("select count(*) from t")).fetchone() == (0,)


async def test_connections_are_used_again(uri: str) -> None:
    async with Database(uri) as database:
        pids: set[int] = set()
        for _ in range(5):
            async with database.connection() as conn:
                pids.add(conn.info.backend_pid)
        assert len(pids) == 1


async def test_error_in_the_block_passes_through_and_the_connection_comes_back(uri: str) -> None:
    async with Database(uri, max_size=1) as database:
        with pytest.raises(RuntimeError, match="mine"):
            async with database.connection():
                raise RuntimeError("mine")
        assert await _one(database, timeout_s=30) == 1


async def test_caller_beyond_the_limit_gets_the_next_connection_that_comes_back(uri: str) -> None:
    async with Database(uri, max_size=1) as database:
        async with database.connection():
            second = asyncio.create_task(_one(database))
            await asyncio.sleep(0)
            assert database.waiting == 1
        assert await second == 1


async def test_caller_beyond_the_limit_is_refused_at_its_deadline(uri: str) -> None:
    async with Database(uri, max_size=1) as database, database.connection():
        with pytest.raises(DatabaseUnavailable, match="in use"):
            await _one(database, timeout_s=0.05)
        assert database.waiting == 0


async def test_cancelled_waiter_loses_no_connection(uri: str) -> None:
    async with Database(uri, max_size=2) as database:
        for _ in range(20):
            async with database.connection(), database.connection():
                waiters = [asyncio.create_task(_one(database)) for _ in range(4)]
                await asyncio.sleep(0)
                waiters[0].cancel()
            waiters[1].cancel()  # in the moment in which it may have been given one
            await asyncio.gather(*waiters, return_exceptions=True)
            assert [task.cancelled() for task in waiters] == [True, True, False, False]
        assert database.in_use == 0


async def test_cancelled_statement_loses_no_connection(uri: str) -> None:
    async with Database(uri, max_size=1) as database:
        started = asyncio.Event()

        async def sleep_in_postgres() -> None:
            async with database.connection() as conn, conn.transaction():
                started.set()
                await conn.execute("select pg_sleep(60)")

        task = asyncio.create_task(sleep_in_postgres())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _one(database, timeout_s=30) == 1
        assert database.in_use == 0


async def test_many_tasks_share_few_connections(uri: str) -> None:
    async with Database(uri, max_size=3) as database:
        assert await asyncio.gather(*(_one(database) for _ in range(200))) == [1] * 200
        assert database.in_use == 0


async def test_first_checkout_after_an_immediate_restart_succeeds(
    make_postgres: Callable[[], EmbeddedPostgres],
) -> None:
    server = make_postgres()
    async with Database(server.conninfo, min_size=5) as database:
        await asyncio.gather(*(_one(database) for _ in range(5)))
        await asyncio.to_thread(server.restart_immediate)
        assert await asyncio.gather(*(_one(database) for _ in range(10))) == [1] * 10


async def test_checkout_during_an_outage_waits_for_its_end(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = make_postgres()
    async with Database(server.conninfo, max_size=2) as database:
        await asyncio.to_thread(server.halt, immediate=True)
        waiting = [asyncio.create_task(_one(database)) for _ in range(4)]
        with pytest.raises(DatabaseUnavailable, match="cannot connect"):
            await _one(database, timeout_s=0.2)
        await asyncio.to_thread(server.revive)
        assert await asyncio.gather(*waiting) == [1] * 4


async def test_connection_lost_in_the_block_is_told_as_unavailable(
    make_postgres: Callable[[], EmbeddedPostgres],
) -> None:
    server = make_postgres()
    async with Database(server.conninfo) as database:

        async def restart_within() -> None:
            async with database.connection() as conn:
                await asyncio.to_thread(server.restart_immediate)
                await conn.execute("select 1")

        with pytest.raises(DatabaseUnavailable, match="lost"):
            await restart_within()
        assert await _one(database) == 1


async def test_load_through_restarts_and_cancellations_leaves_no_connection_lent(
    make_postgres: Callable[[], EmbeddedPostgres],
) -> None:
    server = make_postgres()
    async with Database(server.conninfo, max_size=5) as database:
        is_over = asyncio.Event()
        lost = 0

        async def query() -> None:
            nonlocal lost
            while not is_over.is_set():
                try:
                    async with asyncio.timeout(random.uniform(0.001, 0.05)):
                        await _one(database)
                except (DatabaseUnavailable, TimeoutError):
                    lost += 1

        async with asyncio.TaskGroup() as load:
            for _ in range(20):
                load.create_task(query())
            try:
                for _ in range(3):
                    await asyncio.to_thread(server.restart_immediate)
            finally:
                is_over.set()
        assert lost > 0
        assert (database.in_use, database.waiting) == (0, 0)
        assert await asyncio.gather(*(_one(database) for _ in range(10))) == [1] * 10


async def test_closed_pool_refuses(uri: str) -> None:
    database = await Database(uri).open()
    await database.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await _one(database)


async def test_connection_in_use_at_close_is_closed_when_it_comes_back(uri: str) -> None:
    database = await Database(uri).open()
    async with database.connection() as conn:
        await database.close()
        assert not conn.closed
    assert conn.closed


async def test_waiters_are_refused_at_close(uri: str) -> None:
    database = await Database(uri, max_size=1).open()
    async with database.connection():
        waiter = asyncio.create_task(_one(database))
        await asyncio.sleep(0)
        await database.close()
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await waiter


async def test_open_fails_in_time_without_a_server() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot connect"):
        await Database("postgresql://127.0.0.1:1/none", timeout_s=0.2).open()


async def test_prepare_false_prepares_nothing(uri: str) -> None:
    async with Database(uri, prepare=False) as database, database.connection() as conn:
        for _ in range(10):
            await conn.execute("select %s::int", (1,))
        assert await (await conn.execute("select count(*) from pg_prepared_statements")).fetchone() == (0,)


async def test_name_is_seen_in_pg_stat_activity(uri: str) -> None:
    async with Database(uri, name="my-worker") as database, database.connection() as conn:
        assert await (await conn.execute("show application_name")).fetchone() == ("my-worker",)


def test_addresses_of_other_libraries_are_understood() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"):
        conninfo = normalize_conninfo(f"{scheme}://u:p%40ss@h:1/d?connect_timeout=2")
        given = conninfo_to_dict(conninfo)
        assert (given["host"], given["password"], given["dbname"]) == ("h", "p@ss", "d")
        assert given["connect_timeout"] == "2"
        assert given["application_name"] == "waystation"


def test_address_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="address of a Postgres database"):
        normalize_conninfo("mysql://u:secret@h/d")
