"""Items that expire: not there at once, swept later, renewed by reading."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.store.base import TTLConfig

from waystation_db.pool import Database
from waystation_db.store import PostgresStore, open_store

pytestmark = pytest.mark.anyio


async def left(db: Database, key: str) -> float | None:
    """The seconds that an item has, None if it does not expire."""
    async with db.connection() as conn:
        query = "select extract(epoch from expires_at - now())::float8 from store where key = %s"
        row = await (await conn.execute(query, [key])).fetchone()
    assert row is not None, f"there is no {key}"
    return row[0]


async def age(db: Database, seconds: float) -> None:
    """Let time pass for all items."""
    async with db.connection() as conn:
        await conn.execute("update store set expires_at = expires_at - make_interval(secs => %s)", [seconds])


async def rows(db: Database) -> int:
    async with db.connection() as conn:
        row = await (await conn.execute("select count(*) from store")).fetchone()
    assert row is not None
    return row[0]


async def seen(store: PostgresStore) -> Sequence[Any]:
    """What get, search and listing show."""
    item = await store.aget(("a",), "k", refresh_ttl=False)
    found = await store.asearch(("a",), refresh_ttl=False)
    return [item is not None, [one.key for one in found], await store.alist_namespaces()]


async def test_an_expired_item_is_gone_at_once(db: Database) -> None:
    async with open_store(db) as store:
        await store.aput(("a",), "k", {"n": 1}, ttl=0.5)
        first = await store.aget(("a",), "k", refresh_ttl=False)
        assert first is not None
        assert await seen(store) == [True, ["k"], [("a",)]]
        await age(db, 31)
        assert await seen(store) == [False, [], []]
        await store.aget(("a",), "k", refresh_ttl=True)
        await store.asearch(("a",), refresh_ttl=True)
        assert await seen(store) == [False, [], []]
        await store.aput(("a",), "k", {"n": 2})
        again = await store.aget(("a",), "k")
        assert again is not None
        assert again.created_at > first.created_at


async def test_ttl_is_the_items_own_or_the_default_or_none(db: Database) -> None:
    async with open_store(db, ttl=TTLConfig(default_ttl=120)) as store:
        await store.aput(("a",), "default", {})
        await store.aput(("a",), "own", {}, ttl=1.5)
        await store.aput(("a",), "never", {}, ttl=None)
    assert await left(db, "default") == pytest.approx(7200, abs=30)
    assert await left(db, "own") == pytest.approx(90, abs=30)
    assert await left(db, "never") is None


@pytest.mark.parametrize(
    ("on_read", "asked", "renewed"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
async def test_reading_renews_as_configured_unless_asked_otherwise(
    on_read: bool, asked: bool | None, renewed: bool, db: Database
) -> None:
    async with open_store(db, ttl=TTLConfig(refresh_on_read=on_read)) as store:
        for key in ("got", "found", "other"):
            await store.aput((key,), key, {}, ttl=10)
        await age(db, 300)
        await store.aget(("got",), "got", refresh_ttl=asked)
        await store.asearch(("found",), refresh_ttl=asked)
    expected = [600 if renewed else 300] * 2 + [300]
    assert [await left(db, key) for key in ("got", "found", "other")] == pytest.approx(expected, abs=30)


async def test_sweeping_deletes_what_has_expired_of_all_tenants(db: Database) -> None:
    async with open_store(db) as store:
        puts = [store.of(tenant).aput((f"n{n}",), "k", {}, ttl=1) for tenant in ("default", "t") for n in range(600)]
        await asyncio.gather(*puts, store.aput(("a",), "kept", {}), store.aput(("a",), "later", {}, ttl=10))
        assert await store.sweep() == 0
        await age(db, 61)
        swept = await asyncio.gather(*(store.sweep() for _ in range(4)))
        assert sum(swept) == 1200
        assert await rows(db) == 2
