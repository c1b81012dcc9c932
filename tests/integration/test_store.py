"""The long-term store on our pool: whole segments, one bad operation, an outage, vectors where Postgres has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest
from langgraph.store.base import IndexConfig

from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate
from waystation_db.pool import Database
from waystation_db.store import open_store

pytestmark = pytest.mark.anyio

DIMS = 4


@pytest.fixture
async def vectors(db: Database) -> None:
    """The embedded wheel brings pgvector; a Postgres named by WAYSTATION_TEST_BINDIR may not."""
    async with db.connection() as conn:
        found = await conn.execute("select from pg_available_extensions where name = 'vector'")
        if await found.fetchone() is None:
            pytest.skip("this Postgres has no pgvector")


def _embed(texts: Sequence[str]) -> list[list[float]]:
    """Nearness by first letter is enough here."""
    return [[float(text[:1] == letter) for letter in "abcd"] for text in texts]


async def test_items_are_put_found_listed_and_deleted(db: Database) -> None:
    async with open_store(db) as store:
        await asyncio.gather(*(store.aput(("users", "1"), f"k{n}", {"n": n}) for n in range(5)))
        await store.aput(("users", "10"), "other", {"n": 1})

        found = await store.asearch(("users", "1"), filter={"n": {"$gte": 3}})
        assert sorted(item.key for item in found) == ["k3", "k4"]
        item = await store.aget(("users", "1"), "k2")
        assert item is not None
        assert item.value == {"n": 2}
        assert await store.alist_namespaces(prefix=("users",)) == [("users", "1"), ("users", "10")]
        await store.adelete(("users", "1"), "k2")
        assert await store.aget(("users", "1"), "k2") is None


async def test_bad_operation_fails_alone(db: Database) -> None:
    async with open_store(db) as store:
        outcomes = await asyncio.gather(
            store.aput(("a",), "1", {"n": 1}),
            store.aput(("a",), "2", {"n": "no\0string"}),
            store.aput(("a",), "3", {"n": object()}),
            store.aput(("a",), "4", {"n": 4}),
            return_exceptions=True,
        )
        assert [isinstance(one, Exception) for one in outcomes] == [False, True, True, False]
        assert sorted(item.key for item in await store.asearch(("a",))) == ["1", "4"]


async def test_sync_form_works_from_a_thread(db: Database) -> None:
    async with open_store(db) as store:
        await asyncio.to_thread(store.put, ("a",), "1", {"n": 1})
        item = await asyncio.to_thread(store.get, ("a",), "1")
        assert item is not None
        assert item.value == {"n": 1}


async def test_operations_outlive_a_crash_of_postgres(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = make_postgres()
    await migrate(server.conninfo)
    async with Database(server.conninfo, timeout_s=0.2) as db, open_store(db) as store:
        await store.aput(("a",), "1", {"n": 1})
        server.halt(immediate=True)
        putting = asyncio.ensure_future(store.aput(("a",), "2", {"n": 2}))
        getting = asyncio.ensure_future(store.aget(("a",), "1"))
        await asyncio.to_thread(server.revive)
        async with asyncio.timeout(20):
            await putting
            assert (await getting) is not None
            assert (await store.aget(("a",), "2")) is not None


@pytest.mark.usefixtures("vectors")
async def test_search_by_meaning_where_postgres_has_vectors(db: Database) -> None:
    index = IndexConfig(dims=DIMS, embed=_embed, fields=["text"])
    async with open_store(db, index=index) as store, open_store(db, index=index):
        assert store.index_config is not None
        await asyncio.gather(*(store.aput(("notes",), letter, {"text": f"{letter} note"}) for letter in "abcd"))
        found = await asyncio.gather(
            store.asearch(("notes",), query="b", limit=1), store.asearch(("notes",), query="d")
        )
        assert [item.key for item in found[0]] == ["b"]
        assert found[1][0].key == "d"


@pytest.mark.usefixtures("vectors")
async def test_no_connection_is_held_while_texts_are_embedded(db: Database) -> None:
    held: list[int] = []

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        held.append(db.in_use)
        return _embed(texts)

    async with open_store(db, index=IndexConfig(dims=DIMS, embed=embed, fields=["text"])) as store:
        await store.aput(("notes",), "a", {"text": "a"})
        await store.asearch(("notes",), query="a")
    assert held == [0, 0]


@pytest.mark.usefixtures("vectors")
async def test_without_the_right_to_install_vectors_the_store_works_without_them(
    db: Database, database_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with db.connection() as conn:
        await conn.execute("create role plain login")
        await conn.execute("grant all on all tables in schema public to plain")
    try:
        async with Database(database_uri.replace("//postgres@", "//plain@")) as plain:
            with caplog.at_level(logging.WARNING):
                async with open_store(plain, index=IndexConfig(dims=DIMS, embed=_embed)) as store:
                    assert store.index_config is None
                    await store.aput(("a",), "1", {"n": 1})
        assert "cannot be made" in caplog.text
    finally:
        async with db.connection() as conn:
            await conn.execute("drop owned by plain")
            await conn.execute("drop role plain")
