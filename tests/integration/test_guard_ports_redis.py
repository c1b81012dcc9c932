"""The guards' state and cache in Redis: away, empty again, of several tenants, in a cluster, encrypted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis.crc import key_slot

from eventually import eventually
from services import Valkey
from waystation.guarding.guard_names import LARGEST_VALUE, RedisNames
from waystation.guarding.ports import GuardStores, guard_stores
from waystation_db.aes import AesCipher
from waystation_db.pool import Database
from waystation_guards.ports import SHARED, BreakerRules, Draw, Ports, PortUnavailable, Rate

pytestmark = pytest.mark.anyio

RULES = BreakerRules(minimum=2)


@asynccontextmanager
async def opened(
    db: Database, redis_url: str | None = None, key_prefix: str = "", answer_s: float | None = 20.0
) -> AsyncGenerator[GuardStores]:
    made = guard_stores(db, redis_url, key_prefix=key_prefix, answer_s=answer_s)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def stores(db: Database, redis_url: str) -> AsyncIterator[GuardStores]:
    async with opened(db, redis_url, key_prefix="app:") as made:
        yield made


def everything(ports: Ports) -> list[Callable[[], Awaitable[Any]]]:
    """Every question that goes to Redis alone."""
    state, cache = ports.state, ports.cache
    return [
        lambda: state.take("n", [Rate(5, 60)]),
        lambda: state.draw([Draw("n", Rate(5, 60))]),
        lambda: state.give_back("n", [Rate(5, 60)], 1),
        lambda: state.pause("n", 0.001),
        lambda: state.enter("n", limit=3, holder="h", ttl_s=5),
        lambda: state.leave("n", holder="h"),
        lambda: state.admit("n", RULES),
        lambda: state.report("n", RULES, ok=True),
        lambda: cache.get("k"),
        lambda: cache.put("k", b"v", ttl_s=5),
        lambda: cache.lock("k", holder="h", ttl_s=5),
        lambda: cache.unlock("k", holder="h"),
    ]


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_without_redis_every_question_is_refused_soon_and_answered_again_later(
    db: Database, make_redis: Callable[[], Valkey], how: str
) -> None:
    server = make_redis()
    async with opened(db, server.url, answer_s=None) as stores:
        ports = stores.ports_for("default")

        async def answers() -> bool:
            try:
                for ask in everything(ports):
                    await ask()
            except PortUnavailable:
                return False
            return True

        await eventually(answers)
        getattr(server, how)()
        async with asyncio.timeout(30):  # the first one finds out, the others are told at once
            for ask in everything(ports):
                with pytest.raises(PortUnavailable):
                    await ask()
        server.unpause() if how == "pause" else server.resume()
        await eventually(answers)


async def test_a_redis_that_is_full_counts_as_away(db: Database, make_redis: Callable[[], Valkey]) -> None:
    server = make_redis()
    with server.client() as client:
        client.config_set("maxmemory", "1")  # pyright: ignore[reportUnknownMemberType]  # redis leaves it untyped
    async with opened(db, server.url) as stores:
        with pytest.raises(PortUnavailable, match="maxmemory"):
            await stores.ports_for("default").cache.put("k", b"v", ttl_s=5)
        assert stores.redis is not None
        assert not stores.redis.is_up


async def test_values_outlive_redis_and_removed_ones_stay_removed(stores: GuardStores, valkey: Valkey) -> None:
    state = stores.ports_for("default").state
    await state.write("level", "reduced")
    await state.write("gone", "x")
    await state.write("gone", None)
    await state.write("soon", "x", ttl_s=60)
    for _ in range(2):
        assert [await state.read(name) for name in ("level", "gone", "soon", "never")] == ["reduced", None, "x", None]
        valkey.flush()


async def test_an_older_copy_never_replaces_a_newer_value(stores: GuardStores) -> None:
    """As when the process that wrote first is the last to reach Redis."""
    state: Any = stores.ports_for("default").state
    await state.write("level", "old")
    kept = await state._durable.values("level")
    await state.write("level", "new")
    for one in kept:
        await state._copy(one.name, one.value, one.version, one.left_ms)
    assert await state.read("level") == "new"


async def test_tenants_share_only_what_is_named_so(stores: GuardStores, db: Database) -> None:
    for one in (stores, guard_stores(db, answer_s=20)):
        mine, theirs = one.ports_for("mine"), one.ports_for("theirs")
        for name, shared in ((f"n-{uuid4()}", False), (f"{SHARED}n-{uuid4()}", True)):
            await mine.state.write(name, "x")
            assert (await theirs.state.read(name) == "x") is shared
            await mine.cache.put(name, b"x", ttl_s=60)
            assert (await theirs.cache.get(name) == b"x") is shared
            assert await mine.cache.lock(name, holder="a", ttl_s=60)
            assert await theirs.cache.lock(name, holder="b", ttl_s=60) is not shared
            assert await mine.state.take(name, [Rate(1, 3600)]) == 0
            assert (await theirs.state.take(name, [Rate(1, 3600)]) > 0) is shared
            for _ in range(2):
                await mine.state.report(name, RULES, ok=False)
            assert (await theirs.state.admit(name, RULES)).allowed is not shared
            assert await mine.state.enter(name, limit=1, holder="a", ttl_s=60)
            assert await theirs.state.enter(name, limit=1, holder="b", ttl_s=60) is not shared


async def test_all_keys_are_below_the_prefix_and_end_by_themselves(stores: GuardStores, redis_url: str) -> None:
    ports = stores.ports_for("default")
    for ask in everything(ports):
        await ask()
    await ports.state.report("n", RULES, ok=False)
    await ports.state.report("n", RULES, ok=False)
    await ports.cache.put("k", b"v", ttl_s=5)
    client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    with client:
        keys = client.keys("*")
        assert len(keys) >= 4
        assert all(key.startswith(b"app:waystation:guard:") for key in keys)
        lasting = [key for key in keys if client.ttl(key) == -1]
    assert lasting == []


@pytest.mark.parametrize("tenant", ["default", "", "a{b}c", "}{"])
@pytest.mark.parametrize("name", ["gpt", "{tag}/requests", "a}b", f"{SHARED}gpt", "x" * 5000, "ü\0", "{", "{}", "}{x}"])
def test_the_keys_of_a_script_are_in_one_slot_of_a_cluster(tenant: str, name: str) -> None:
    names = RedisNames("app:", tenant)
    kinds = [names.of("bucket", name, 1, 2.0), names.of("pause", name), names.of("breaker", name)]
    kinds += [names.of("breaker", name, "outcomes", 60.0), names.of("bucket", name, 5, 2.0)]
    assert len({key_slot(key.encode()) for key in kinds}) == 1
    assert len({key_slot(key.encode()) for key in (names.value(name), names.restored(name))}) == 1


@pytest.mark.parametrize("kind", ["redis", "postgres"])
async def test_what_is_cached_is_encrypted_where_content_is(db: Database, redis_url: str, kind: str) -> None:
    db.cipher = AesCipher({"k1": b"0" * 32})
    address = redis_url if kind == "redis" else None
    async with opened(db, address) as stores:
        cache = stores.ports_for("default").cache
        await cache.put("k", b"a secret answer", ttl_s=60)
        assert await cache.get("k") == b"a secret answer"
    if kind == "redis":
        client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        with client:
            stored = client.get(client.keys("*cache*")[0])
    else:
        async with db.connection() as conn:
            row = await (await conn.execute("select value from guard_cache")).fetchone()
        assert row is not None
        stored = bytes(row[0])
    assert b"secret" not in stored
    db.cipher = AesCipher({"k2": b"1" * 32})
    async with opened(db, address) as other:
        assert await other.ports_for("default").cache.get("k") is None


async def test_too_large_a_value_is_not_kept(stores: GuardStores, db: Database) -> None:
    for one in (stores, guard_stores(db, answer_s=20)):
        cache = one.ports_for("default").cache
        await cache.put("k", b"x" * (LARGEST_VALUE + 1), ttl_s=60)
        assert await cache.get("k") is None
