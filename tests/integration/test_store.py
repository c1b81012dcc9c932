"""The long-term store on our pool: whole labels, filters, tenants, one bad operation, an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, Item, PutOp
from langgraph.store.postgres.aio import AsyncPostgresStore

from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate
from waystation_db.pool import Database
from waystation_db.store import PostgresStore, open_store
from waystation_db.store_filter import InvalidFilter

pytestmark = pytest.mark.anyio


async def keys(store: PostgresStore, *namespace: str, wanted: dict[str, Any] | None = None) -> list[str]:
    """The keys that a search finds, sorted."""
    return sorted(item.key for item in await store.asearch(namespace, filter=wanted, limit=100))


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


async def test_labels_are_compared_whole_and_exactly(db: Database) -> None:
    names = [("a",), ("a", "b"), ("a", "b_"), ("a", "bx"), ("a", "b%"), ("ab",), ("a-",), ("a!", "b"), ("a/", "b")]
    async with open_store(db) as store:
        await asyncio.gather(*(store.aput(name, "/".join(name), {}) for name in names))
        for name in names:
            below = sorted("/".join(one) for one in names if one[: len(name)] == name)
            assert await keys(store, *name) == below
            assert ["/".join(one) for one in await store.alist_namespaces(prefix=name)] == below
        assert await keys(store) == sorted("/".join(name) for name in names)
        assert await keys(store, "%") == await keys(store, "a", "_") == await keys(store, "A") == []


async def test_namespaces_are_listed_by_beginning_end_wildcard_and_depth(db: Database) -> None:
    names = [("u", "1", "notes"), ("u", "2", "notes"), ("u", "2"), ("t", "1", "notes"), ("notes",)]
    async with open_store(db) as store:
        await asyncio.gather(*(store.aput(name, "k", {}) for name in names))
        assert await store.alist_namespaces() == sorted(names)
        assert await store.alist_namespaces(suffix=("notes",)) == sorted(n for n in names if n[-1] == "notes")
        assert await store.alist_namespaces(prefix=("*", "1")) == [("t", "1", "notes"), ("u", "1", "notes")]
        assert await store.alist_namespaces(prefix=("u",), suffix=("*", "notes")) == [
            ("u", "1", "notes"),
            ("u", "2", "notes"),
        ]
        assert await store.alist_namespaces(max_depth=1) == [("notes",), ("t",), ("u",)]
        assert await store.alist_namespaces(max_depth=2, limit=2, offset=1) == [("t", "1"), ("u", "1")]
        assert await store.alist_namespaces(prefix=("u", "1", "notes", "deeper")) == []


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdef"),
    ({"n": 10}, "b"),
    ({"n": {"$gt": 9}}, "b"),
    ({"n": {"$gte": 9}}, "ab"),
    ({"n": {"$gt": 1, "$lt": 10}}, "a"),
    ({"n": {"$ne": 9}}, "bcdef"),
    ({"n": {"$lte": 9.0}}, "a"),
    ({"n": {"$gt": "1"}}, "c"),
    ({"n": None}, "def"),
    ({"missing": None}, "abcdef"),
    ({"missing": {"$ne": None}}, ""),
    ({"t": {"$gt": "B"}}, "b"),
    ({"t": "x'); drop table store; --"}, ""),
    ({"ok": True}, "d"),
    ({"ok": {"$gt": False}}, "d"),
    ({"by": {"name": "ada"}}, "e"),
    ({"by": {"age": {"$gte": 30}}}, "e"),
    ({"by": {"name": None}}, "f"),
    ({"by": {"$eq": {"name": "ada", "age": 36}}}, "e"),
    ({"by": {}}, "ef"),
    ({"tags": ["x", {"y": 1}]}, "f"),
    ({"tags": []}, ""),
    ({"n": 9, "t": "A"}, "a"),
    ({"n": 9, "t": "b"}, ""),
]


@pytest.mark.parametrize(("given", "expected"), FILTERS, ids=str)
async def test_filters_compare_values_of_one_kind(db: Database, given: dict[str, Any], expected: str) -> None:
    values: dict[str, dict[str, Any]] = {
        "a": {"n": 9, "t": "A"},
        "b": {"n": 10, "t": "b"},
        "c": {"n": "9"},
        "d": {"ok": True},
        "e": {"by": {"name": "ada", "age": 36}},
        "f": {"by": {"age": 3}, "tags": ["x", {"y": 1}]},
    }
    async with open_store(db) as store:
        await asyncio.gather(*(store.aput(("v",), key, value) for key, value in values.items()))
        assert "".join(await keys(store, "v", wanted=given)) == expected


@pytest.mark.parametrize("given", [{"n": {"$regex": "x"}}, {"n": {"$gt": 1, "m": 2}}])
async def test_a_filter_without_meaning_is_refused(db: Database, given: dict[str, Any]) -> None:
    async with open_store(db) as store:
        with pytest.raises(InvalidFilter, match=r"filter\.n"):
            await store.asearch(("v",), filter=given)


async def test_the_last_changed_come_first_and_pages_do_not_overlap(db: Database) -> None:
    async with open_store(db) as store:
        for n in (1, 2):
            await store.aput(("p",), f"old{n}", {})
        await asyncio.gather(*(store.aput(("p",), f"k{n}", {}) for n in range(5)))
        await store.aput(("p",), "old1", {"again": True})
        pages = [await store.asearch(("p",), limit=3, offset=offset) for offset in (0, 3, 6)]
    found = [item.key for page in pages for item in page]
    assert (found[0], found[-1]) == ("old1", "old2")
    assert sorted(found[1:-1]) == [f"k{n}" for n in range(5)]


async def test_replacing_keeps_when_an_item_was_made(db: Database) -> None:
    async with open_store(db) as store:
        await store.aput(("a",), "k", {"n": 1})
        first = await store.aget(("a",), "k")
        await store.aput(("a",), "k", {"n": 2})
        second = await store.aget(("a",), "k")
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert second.value == {"n": 2}


async def test_values_come_back_as_they_were_put(db: Database) -> None:
    value = {
        "big": 2**70,
        "float": 0.1,
        "huge": [1e300, -1.7e308, 1e60, 5e-324],
        "deep": {"a": [None, True, {"ü": "\U0001f600"}]},
        "": "",
    }
    async with open_store(db) as store:
        await store.aput(("a",), "k", value)
        item = await store.aget(("a",), "k")
    assert item is not None
    assert item.value == value


async def test_tenants_see_nothing_of_each_other(db: Database) -> None:
    async with open_store(db) as store:
        tenants = {name: store.of(name) for name in ("default", "acme", "acm", "a.b", "a%2Eb", "%", "_")}
        for name, one in tenants.items():
            await one.aput(("users", "u1"), "k", {"of": name})
            await one.aput(("own", name.replace(".", "-")), name, {})
        for name, one in tenants.items():
            item = await one.aget(("users", "u1"), "k")
            assert item is not None
            assert item.value == {"of": name}
            assert item.namespace == ("users", "u1")
            assert await keys(one) == sorted(["k", name])
            assert await one.alist_namespaces() == [("own", name.replace(".", "-")), ("users", "u1")]
            assert await one.alist_namespaces(suffix=("u1",), max_depth=1) == [("users",)]
            assert {item.namespace for item in await one.asearch(())} == {
                ("own", name.replace(".", "-")),
                ("users", "u1"),
            }
        await tenants["acme"].adelete(("users", "u1"), "k")
        assert await tenants["acm"].aget(("users", "u1"), "k") is not None
        assert await tenants["acme"].aget(("users", "u1"), "k") is None


@pytest.mark.parametrize(
    "name", [("",), ("", "acme", "users"), ("a.b",), (".acme",), ("a\0b",), (3,), ("langgraph",), ()]
)
async def test_no_name_leads_out_of_a_tenant(db: Database, name: Any) -> None:
    async with open_store(db) as store:
        await store.of("acme").aput(("users",), "k", {})
        with pytest.raises(InvalidNamespaceError):
            await store.aput(name, "k", {})
        with pytest.raises(InvalidNamespaceError):
            await store.abatch([PutOp(name, "k", {})])
        if name not in ((), ("langgraph",)):
            with pytest.raises(InvalidNamespaceError):
                await store.abatch([GetOp(name, "k")])
            with pytest.raises(InvalidNamespaceError):
                await store.asearch(name)


async def test_an_existing_langgraph_database_is_served_and_stays_usable(db: Database, database_uri: str) -> None:
    async with AsyncPostgresStore.from_conn_string(database_uri) as theirs, open_store(db) as ours:
        await theirs.setup()
        await theirs.aput(("users", "u1"), "theirs", {"n": 1}, ttl=60)
        await ours.aput(("users", "u1"), "ours", {"n": 2}, ttl=0.5)
        assert (
            await keys(ours, "users") == sorted(i.key for i in await theirs.asearch(("users",))) == ["ours", "theirs"]
        )
        await theirs.aput(("users", "u1"), "ours", {"n": 3}, ttl=60)
        item = await ours.aget(("users", "u1"), "ours")  # renews it for what they said, not for our half minute
        assert item is not None
        async with db.connection() as conn:
            left = await (await conn.execute("select min(expires_at - now()) > '59 min' from store")).fetchone()
        assert left == (True,)


async def test_bad_operation_fails_alone(db: Database) -> None:
    async with open_store(db) as store:
        outcomes = await asyncio.gather(
            store.aput(("a",), "1", {"n": 1}),
            store.aput(("a",), "2", {"n": "no\0string"}),
            store.aput(("a",), "3", {"n": object()}),
            store.aput(("a",), "4", {"n": 4}),
            store.aput(("a",), "5", {"n": "\ud800"}),
            store.aput(("a",), "6", {"n": float("nan")}),
            store.aput(("a",), "k" * 3000, {}),
            store.aput(("a",), "8", {}, ttl=-1),
            return_exceptions=True,
        )
        assert [isinstance(one, Exception) for one in outcomes] == [False, True, True, False, True, True, True, True]
        assert await keys(store, "a") == ["1", "4"]


async def test_a_batch_is_done_wholly_or_not_at_all(db: Database) -> None:
    async with open_store(db) as store:
        await store.aput(("a",), "old", {})
        with pytest.raises(Exception, match="unsupported Unicode"):
            await store.abatch(
                [PutOp(("a",), "old", None), PutOp(("a",), "new", {}), PutOp(("a",), "bad", {"n": "\0"})]
            )
        assert await keys(store, "a") == ["old"]
        got = await store.abatch([PutOp(("a",), "old", None), GetOp(("a",), "old"), PutOp(("a",), "new", {"n": 1})])
        assert (got[0], isinstance(got[1], Item), got[2]) == (None, True, None)
        assert await keys(store, "a") == ["new"]


async def test_many_writers_of_the_same_items_do_not_block_each_other(db: Database) -> None:
    async with open_store(db) as one, open_store(db) as other:
        puts = [store.aput(("a",), f"k{n % 7}", {"n": n}) for n in range(200) for store in (one, other)]
        deletes = [store.adelete(("a",), f"k{n % 7}") for n in range(50) for store in (one, other)]
        async with asyncio.timeout(60):
            await asyncio.gather(*puts, *deletes)
        await one.aput(("a",), "last", {})
        assert "last" in await keys(other, "a")


async def test_sync_form_works_from_a_thread_and_is_refused_on_the_loop(db: Database) -> None:
    async with open_store(db) as store:
        await asyncio.to_thread(store.put, ("a",), "1", {"n": 1})
        item = await asyncio.to_thread(store.get, ("a",), "1")
        assert item is not None
        assert item.value == {"n": 1}
        with pytest.raises(asyncio.InvalidStateError, match="aget"):
            store.get(("a",), "1")


async def test_async_form_works_on_another_loop(db: Database) -> None:
    async with open_store(db) as store:
        await asyncio.to_thread(lambda: asyncio.run(store.aput(("a",), "1", {"n": 1})))
        assert await keys(store, "a") == ["1"]


async def test_operations_outlive_a_crash_of_postgres(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = make_postgres()
    await migrate(server.conninfo)
    async with Database(server.conninfo) as db, open_store(db) as store:
        cast("Any", db)._timeout_s = 0.2  # opening it may take longer
        await store.aput(("a",), "1", {"n": 1})
        server.halt(immediate=True)
        putting = asyncio.ensure_future(store.aput(("a",), "2", {"n": 2}))
        getting = asyncio.ensure_future(store.aget(("a",), "1"))
        await asyncio.to_thread(server.revive)
        async with asyncio.timeout(60):
            await putting
            assert (await getting) is not None
            assert (await store.aget(("a",), "2")) is not None
