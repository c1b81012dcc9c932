"""Limiters and breakers that several processes share: the effective limit is the configured one, not a multiple.

Each store has connections of its own, as processes have; time is the store's, and is read from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic
from uuid import uuid4

import pytest

from eventually import eventually
from waystation.guarding.ports import GuardStores, guard_stores
from waystation_db.pool import Database
from waystation_guards.ports import BreakerRules, Rate

pytestmark = pytest.mark.anyio

PROCESSES = 4


@pytest.fixture(params=["postgres", "redis"])
async def stores(request: pytest.FixtureRequest, database_uri: str, redis_url: str) -> AsyncIterator[list[GuardStores]]:
    async with AsyncExitStack() as stack:
        made: list[GuardStores] = []
        for number in range(PROCESSES):
            db = await stack.enter_async_context(Database(database_uri, name=f"p{number}", max_size=3))
            made.append(guard_stores(db, redis_url if request.param == "redis" else None, answer_s=20))
            stack.push_async_callback(made[-1].close)
        yield made


async def test_the_effective_rate_is_the_configured_one(stores: list[GuardStores]) -> None:
    name, rate = str(uuid4()), Rate(1000, 10)
    states = [one.ports_for("default").state for one in stores]
    # What is in the full bucket is taken at once; from then on it is what flows in.
    assert await states[0].take(name, [rate], 1000) == 0
    began = monotonic()
    until = began + 1.5

    async def taker(number: int) -> int:
        taken = 0
        while monotonic() < until:
            wait_s = await states[number % PROCESSES].take(name, [rate])
            taken += wait_s == 0
            await asyncio.sleep(min(wait_s, 0.05))
        return taken

    taken = sum(await asyncio.gather(*(taker(number) for number in range(3 * PROCESSES))))
    last = monotonic()
    while await states[0].take(name, [rate]) == 0:  # what a slow machine left in it
        taken += 1
        last = monotonic()
    assert taken <= 1.02 * 100 * (last - began) + 1
    assert taken >= 0.98 * 100 * (until - began) - 2


async def test_one_of_all_opens_the_breaker_and_one_probes_it(stores: list[GuardStores]) -> None:
    target, rules = str(uuid4()), BreakerRules(minimum=20, window_s=60, cooldown_s=5, probe_s=60)
    states = [one.ports_for("default").state for one in stores]
    called = 0

    async def caller(number: int) -> int:
        nonlocal called
        opened = 0
        while (await states[number].admit(target, rules)).allowed:
            called += 1
            opened += await states[number].report(target, rules, ok=False)
        return opened

    opened = await asyncio.gather(*(caller(number) for number in range(PROCESSES)))
    assert sum(opened) == 1
    assert 20 <= called < 20 + PROCESSES  # those that were under way when it opened

    async def is_probe() -> bool:
        return (await states[0].admit(target, rules)).is_probe

    await eventually(is_probe)
    admissions = await asyncio.gather(*(state.admit(target, rules) for state in states for _ in range(5)))
    assert not any(one.allowed for one in admissions)
    assert await states[3].report(target, rules, ok=True, is_probe=True)
    for state in states:
        assert (await state.admit(target, rules)).allowed


async def test_places_are_as_many_as_there_are(stores: list[GuardStores]) -> None:
    name = str(uuid4())
    states = [one.ports_for("default").state for one in stores]
    entered = await asyncio.gather(
        *(
            state.enter(name, limit=7, holder=f"{number}/{n}", ttl_s=60)
            for number, state in enumerate(states)
            for n in range(10)
        )
    )
    assert sum(entered) == 7


async def test_a_key_is_computed_by_one_of_all(stores: list[GuardStores]) -> None:
    key = str(uuid4())
    caches = [one.ports_for("default").cache for one in stores]
    locked = await asyncio.gather(
        *(cache.lock(key, holder=f"{number}/{n}", ttl_s=60) for number, cache in enumerate(caches) for n in range(10))
    )
    assert sum(locked) == 1
