"""One suite for every implementation of the guards' ports: what a guard may rely on, whatever keeps its state.

Time is the implementation's own (`World.wait`): memory's is turned by hand, others' passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints
from uuid import uuid4

import pytest

from haste import within_its_time
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.calls import CallSite
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Account, BreakerRules, Cache, Draw, Drawn, Entry, Hold, Ledger, Rate, Refusal, State

pytestmark = pytest.mark.anyio

TTL_S = 60.0


@dataclass(frozen=True)
class World:
    """One implementation of the three ports, and how its time passes."""

    ledger: Ledger
    state: State
    cache: Cache
    wait: Callable[[float], Awaitable[None]]


@pytest.fixture(scope="module")
def shared_database(make_database: Callable[[], str]) -> str:
    """Names in this suite are their test's own."""
    return make_database()


@pytest.fixture(params=["memory", "postgres", "redis"])
async def world(request: pytest.FixtureRequest, shared_database: str, redis_url: str) -> AsyncIterator[World]:
    if request.param == "memory":
        yield world_in_memory()
        return
    async with Database(shared_database, name="guards", max_size=10) as db:
        stores = guard_stores(db, redis_url if request.param == "redis" else None, answer_s=20)
        ports = stores.ports_for("default")
        yield World(ports.ledger, ports.state, ports.cache, asyncio.sleep)
        await stores.close()


def world_in_memory() -> World:
    now = [1000.0]

    async def wait(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        return now[0]

    return World(MemoryLedger(clock), MemoryState(clock), MemoryCache(clock=clock), wait)


def an_account(scope: str = "run") -> Account:
    return Account("default", scope, str(uuid4()), "usd")


SITE = CallSite(run=str(uuid4()))


async def reserve(world: World, *holds: Hold, call: str | None = None) -> str | None:
    """The call's id if it got its holds."""
    call = call or str(uuid4())
    outcome = await world.ledger.reserve(call, SITE, holds, ttl_s=TTL_S)
    return None if isinstance(outcome, Refusal) else call


async def balance(world: World, account: Account) -> tuple[int, int]:
    (found,) = await world.ledger.balances([account])
    return found.spent, found.held


class TestLedger:
    @pytest.mark.parametrize("kind", get_args(get_type_hints(Entry)["kind"]))
    async def test_every_kind_of_entry_is_taken(self, world: World, kind: Any) -> None:
        account = an_account()
        entry = Entry(kind, "m", cost_nano_usd=0, spent={account: 3}, detail={"saved_nano_usd": 7, "what": "context"})
        (after,) = await world.ledger.settle(f"{uuid4()}/saving", SITE, entry)
        assert (after.spent, after.held) == (3, 0)

    async def test_parallel_reserves_never_pass_the_limit(self, world: World) -> None:
        account = an_account()
        calls = await asyncio.gather(*(reserve(world, Hold(account, 10, 100)) for _ in range(50)))
        assert sum(call is not None for call in calls) == 10
        assert await balance(world, account) == (0, 100)

    async def test_parallel_calls_pass_the_limit_by_at_most_one_calls_error(self, world: World) -> None:
        account, expected, worst, limit = an_account(), 10, 35, 100
        open_calls: list[str] = []
        spent = 0
        for _ in range(40):
            while (call := await reserve(world, Hold(account, expected, limit, worst=worst))) is not None:
                open_calls.append(call)
            if not open_calls:
                break
            # All that run in parallel turn out as bad as they can.
            await world.ledger.settle(open_calls.pop(), SITE, Entry("model", spent={account: worst}))
            spent, _held = await balance(world, account)
        assert limit - expected < spent <= limit + worst - expected
        assert await balance(world, account) == (spent, 0)

    async def test_a_refusal_says_whether_waiting_for_open_calls_may_help(self, world: World) -> None:
        account = an_account()
        call = await reserve(world, Hold(account, 10, 100, worst=95))
        assert call is not None
        refusal = await world.ledger.reserve(str(uuid4()), SITE, [Hold(account, 10, 100)], ttl_s=TTL_S)
        assert isinstance(refusal, Refusal)
        assert refusal.may_fit_later
        assert (refusal.balance.held, refusal.balance.at_risk) == (10, 95)
        await world.ledger.settle(call, SITE, Entry("model", spent={account: 95}))
        refusal = await world.ledger.reserve(str(uuid4()), SITE, [Hold(account, 10, 100)], ttl_s=TTL_S)
        assert isinstance(refusal, Refusal)
        assert not refusal.may_fit_later

    async def test_holds_on_several_accounts_are_set_aside_together_or_not_at_all(self, world: World) -> None:
        wide, narrow = an_account("tenant"), an_account()
        assert await reserve(world, Hold(wide, 10, 100), Hold(narrow, 10, 15))
        refusal = await world.ledger.reserve(
            str(uuid4()), SITE, [Hold(wide, 10, 100), Hold(narrow, 10, 15)], ttl_s=TTL_S
        )
        assert isinstance(refusal, Refusal)
        assert refusal.hold.account == narrow
        assert (refusal.balance.spent, refusal.balance.held) == (0, 10)
        assert await balance(world, wide) == (0, 10)

    async def test_two_limits_on_one_account_hold_once(self, world: World) -> None:
        account, call = an_account(), f"{uuid4()}/b"
        assert await reserve(world, Hold(account, 40, 100, worst=60), Hold(account, 40, 200, worst=60), call=call)
        (found,) = await world.ledger.balances([account])
        assert (found.held, found.at_risk) == (40, 60)
        assert await reserve(world, Hold(account, 20, 200), Hold(account, 50, 100)) is None
        await world.ledger.release(call)
        assert await balance(world, account) == (0, 0)

    async def test_settling_turns_the_hold_into_what_was_spent_once(self, world: World) -> None:
        account = an_account()
        call = await reserve(world, Hold(account, 40, 100))
        assert call is not None
        entry = Entry("model", "m", cost_nano_usd=25, spent={account: 25})
        (after,) = await world.ledger.settle(call, SITE, entry)
        assert (after.spent, after.held) == (25, 0)
        assert list(await world.ledger.settle(call, SITE, entry)) == []
        assert await balance(world, account) == (25, 0)

    async def test_of_parallel_settles_of_one_id_one_gets_balances(self, world: World) -> None:
        account, call = an_account(), f"alert/{uuid4()}"
        entry = Entry("correction", spent={account: 0})
        settled = await asyncio.gather(*(world.ledger.settle(call, SITE, entry) for _ in range(8)))
        assert sorted(len(balances) for balances in settled) == [0] * 7 + [1]
        assert await balance(world, account) == (0, 0)

    async def test_of_several_who_settle_a_call_one_hears_the_balances(self, world: World) -> None:
        account, call = an_account(), f"{uuid4()}/b"
        entry = Entry("correction", spent={account: 5})
        told = await asyncio.gather(*(world.ledger.settle(call, SITE, entry) for _ in range(10)))
        assert sorted(len(one) for one in told) == [0] * 9 + [1]
        assert await balance(world, account) == (5, 0)

    async def test_a_call_asked_about_twice_is_held_once(self, world: World) -> None:
        account, call = an_account(), f"{uuid4()}/b"
        assert await reserve(world, Hold(account, 40, 100), call=call)
        assert await reserve(world, Hold(account, 40, 100), call=call)
        assert await balance(world, account) == (0, 40)

    async def test_what_was_spent_counts_against_the_limit(self, world: World) -> None:
        account = an_account()
        call = await reserve(world, Hold(account, 10, 100))
        assert call is not None
        await world.ledger.settle(call, SITE, Entry("model", spent={account: 95}))
        assert await reserve(world, Hold(account, 6, 100)) is None
        assert await reserve(world, Hold(account, 5, 100)) is not None

    async def test_a_released_hold_is_free_again(self, world: World) -> None:
        account = an_account()
        call = await reserve(world, Hold(account, 100, 100))
        assert call is not None
        await world.ledger.release(call)
        await world.ledger.release(call)
        assert await balance(world, account) == (0, 0)
        assert await reserve(world, Hold(account, 100, 100)) is not None

    @within_its_time(0.5)
    async def test_a_hold_whose_call_never_came_back_ends_by_itself(self, world: World) -> None:
        account = an_account()
        outcome = await world.ledger.reserve(str(uuid4()), SITE, [Hold(account, 100, 100)], ttl_s=0.2)
        assert not isinstance(outcome, Refusal)
        assert await reserve(world, Hold(account, 1, 100)) is None
        await world.wait(0.3)
        assert await reserve(world, Hold(account, 100, 100)) is not None

    async def test_a_call_that_comes_back_after_its_hold_ended_is_still_paid_for(self, world: World) -> None:
        account = an_account()
        call = str(uuid4())
        await world.ledger.reserve(call, SITE, [Hold(account, 10, 100)], ttl_s=0.2)
        await world.wait(0.3)
        await world.ledger.settle(call, SITE, Entry("model", spent={account: 12}))
        assert await balance(world, account) == (12, 0)

    async def test_accounts_of_two_tenants_are_two_accounts(self, world: World) -> None:
        mine = an_account()
        theirs = Account("other", mine.scope, mine.owner, mine.unit)
        assert await reserve(world, Hold(mine, 100, 100))
        assert await reserve(world, Hold(theirs, 100, 100))

    async def test_the_ratio_of_actual_to_estimate_is_learned_per_model(self, world: World) -> None:
        model, tenant = f"model-{uuid4()}", f"tenant-{uuid4()}"
        site = CallSite(tenant=tenant)
        assert await world.ledger.ratio(tenant, model) == 1.0
        for _ in range(30):
            entry = Entry("model", model, cost_nano_usd=250, estimate_nano_usd=1000)
            await world.ledger.settle(str(uuid4()), site, entry)
        assert 0.2 < await world.ledger.ratio(tenant, model) < 0.35
        assert await world.ledger.ratio("another", model) == 1.0


class TestRates:
    async def test_as_many_as_the_rate_allows_and_no_more(self, world: World) -> None:
        name = str(uuid4())
        waits = [await world.state.take(name, [Rate(10, 3600)]) for _ in range(11)]
        assert waits[:10] == [0.0] * 10
        assert 300 < waits[10] <= 360

    @within_its_time(0.95)
    async def test_the_bucket_refills_evenly(self, world: World) -> None:
        name, rates = str(uuid4()), [Rate(4, 2)]
        for _ in range(4):
            assert await world.state.take(name, rates) == 0
        await world.wait(0.5)
        assert await world.state.take(name, rates) == 0
        assert await world.state.take(name, rates) > 0

    async def test_of_two_rates_both_or_neither_are_taken_from(self, world: World) -> None:
        name, few, many = str(uuid4()), Rate(2, 3600), Rate(100, 3600)
        assert await world.state.take(name, [few, many], 2) == 0
        assert await world.state.take(name, [few, many]) > 0
        assert await world.state.take(name, [many], 98) == 0

    async def test_a_cost_above_the_whole_bucket_passes_once_it_is_full(self, world: World) -> None:
        name, rates = str(uuid4()), [Rate(10, 3600)]
        assert await world.state.take(name, rates, 25) == 0
        assert await world.state.take(name, rates) > 3600 * 1.5

    async def test_what_was_not_used_can_be_taken_again_and_more_use_leaves_a_debt(self, world: World) -> None:
        name, rates = str(uuid4()), [Rate(10, 3600)]
        assert await world.state.take(name, rates, 10) == 0
        await world.state.give_back(name, rates, 6)
        assert await world.state.take(name, rates, 6) == 0
        await world.state.give_back(name, rates, -10)
        assert await world.state.take(name, rates) > 3600

    async def test_of_several_buckets_each_gives_its_own_cost_or_none_gives_any(self, world: World) -> None:
        requests = f"{{{uuid4()}}}/requests"
        tokens = requests.replace("requests", "tokens")
        few, many = Rate(3, 3600), Rate(100, 3600)
        drawn = await world.state.draw([Draw(requests, few), Draw(tokens, many, 60)])
        assert drawn == Drawn(True, 0.0, (2, 40))
        drawn = await world.state.draw([Draw(requests, few), Draw(tokens, many, 60)])
        assert not drawn.taken
        assert 600 < drawn.wait_s <= 720
        assert drawn.left[0] == 2
        assert await world.state.take(requests, [few], 2) == 0
        assert (await world.state.draw([Draw(tokens, many, 40), Draw(requests, few)])).wait_s > 1000
        assert await world.state.take(tokens, [many], 40) == 0

    async def test_a_draw_waits_for_the_pauses_of_all_its_names(self, world: World) -> None:
        first = f"{{{uuid4()}}}/requests"
        second = first.replace("requests", "tokens")
        await world.state.pause(second, 300)
        drawn = await world.state.draw([Draw(first, Rate(5, 1)), Draw(second, Rate(5, 1))])
        assert 250 < drawn.wait_s <= 300
        assert await world.state.take(first, [Rate(5, 1)], 5) == 0

    async def test_parallel_draws_never_take_more_than_there_is(self, world: World) -> None:
        name, rate = f"{{{uuid4()}}}/requests", Rate(10, 36000)
        other = Draw(name.replace("requests", "tokens"), Rate(1000, 36000), 7)
        drawn = await asyncio.gather(*(world.state.draw([Draw(name, rate), other]) for _ in range(50)))
        assert sum(one.taken for one in drawn) == 10
        assert sorted(one.left[0] for one in drawn if one.taken) == [*range(10)]

    async def test_who_has_patience_takes_on_credit_and_those_who_ask_later_come_after(self, world: World) -> None:
        name, rate = f"{{{uuid4()}}}/requests", Rate(10, 3600)
        assert (await world.state.draw([Draw(name, rate, 10)], patience_s=2160)).wait_s == 0
        large = await world.state.draw([Draw(name, rate, 4)], patience_s=2160)
        small = await world.state.draw([Draw(name, rate, 1)], patience_s=2160)
        assert large.taken
        assert small.taken
        assert 1400 < large.wait_s <= 1440
        assert 1760 < small.wait_s <= 1800
        assert small.left == (-5,)
        too_long = await world.state.draw([Draw(name, rate, 9)], patience_s=2160)
        assert not too_long.taken
        assert too_long.wait_s > 4680
        await world.state.give_back(name, [rate], 5)
        assert 300 < (await world.state.draw([Draw(name, rate)], patience_s=2160)).wait_s <= 360

    async def test_a_pause_longer_than_the_patience_refuses(self, world: World) -> None:
        name, rate = f"{{{uuid4()}}}/requests", Rate(10, 100)
        await world.state.pause(name, 300)
        assert not (await world.state.draw([Draw(name, rate)], patience_s=200)).taken
        drawn = await world.state.draw([Draw(name, rate, 10)], patience_s=400)
        assert drawn.taken
        assert 250 < drawn.wait_s <= 300

    async def test_a_pause_only_grows(self, world: World) -> None:
        name = str(uuid4())
        await world.state.pause(name, 300)
        await world.state.pause(name, 50)
        assert 250 < await world.state.take(name, [Rate(10, 1)]) <= 300

    @within_its_time(0.5)
    async def test_places_are_held_until_they_are_left_or_time_out(self, world: World) -> None:
        name = str(uuid4())
        enter = world.state.enter
        assert await enter(name, limit=2, holder="a", ttl_s=60)
        assert await enter(name, limit=2, holder="b", ttl_s=0.2)
        assert not await enter(name, limit=2, holder="c", ttl_s=60)
        assert await enter(name, limit=2, holder="a", ttl_s=60)
        await world.wait(0.3)
        assert await enter(name, limit=2, holder="c", ttl_s=60)
        assert not await enter(name, limit=2, holder="d", ttl_s=60)
        await world.state.leave(name, holder="a")
        assert await enter(name, limit=2, holder="d", ttl_s=60)


RULES = BreakerRules(failure_rate=0.5, minimum=4, window_s=5, cooldown_s=0.4, probe_s=0.4)


class TestBreakers:
    async def opened(self, world: World) -> str:
        target = str(uuid4())
        outcomes = [await world.state.report(target, RULES, ok=False) for _ in range(4)]
        assert outcomes == [False, False, False, True]
        return target

    @within_its_time(0.4)
    async def test_it_opens_at_the_failure_rate_and_not_below_the_minimum(self, world: World) -> None:
        target = await self.opened(world)
        refused = await world.state.admit(target, RULES)
        assert not refused.allowed
        assert 0 < refused.retry_after_s <= 0.4

    @within_its_time(5)
    async def test_it_stays_closed_below_the_failure_rate(self, world: World) -> None:
        target = str(uuid4())
        for number in range(30):
            assert not await world.state.report(target, RULES, ok=number % 3 != 2)
        assert (await world.state.admit(target, RULES)).allowed

    async def test_old_outcomes_do_not_count(self, world: World) -> None:
        target, rules = str(uuid4()), BreakerRules(minimum=4, window_s=0.3)
        for _ in range(3):
            await world.state.report(target, rules, ok=False)
        await world.wait(0.4)
        assert not await world.state.report(target, rules, ok=False)

    @within_its_time(0.9)
    async def test_after_the_cooldown_exactly_one_caller_probes(self, world: World) -> None:
        target = await self.opened(world)
        await world.wait(0.5)
        admissions = await asyncio.gather(*(world.state.admit(target, RULES) for _ in range(20)))
        assert [one for one in admissions if one.allowed] == [one for one in admissions if one.is_probe]
        assert sum(one.is_probe for one in admissions) == 1

    @within_its_time(0.9)
    async def test_a_good_probe_closes_it(self, world: World) -> None:
        target = await self.opened(world)
        await world.wait(0.5)
        assert (await world.state.admit(target, RULES)).is_probe
        assert await world.state.report(target, RULES, ok=True, is_probe=True)
        admission = await world.state.admit(target, RULES)
        assert admission.allowed
        assert not admission.is_probe

    @within_its_time(0.9)
    async def test_a_failed_probe_starts_a_new_cooldown(self, world: World) -> None:
        target = await self.opened(world)
        await world.wait(0.5)
        assert (await world.state.admit(target, RULES)).is_probe
        await world.state.report(target, RULES, ok=False, is_probe=True)
        assert not (await world.state.admit(target, RULES)).allowed

    @within_its_time(1.4)
    async def test_a_probe_that_never_reports_is_followed_by_another(self, world: World) -> None:
        target = await self.opened(world)
        await world.wait(0.5)
        assert (await world.state.admit(target, RULES)).is_probe
        assert not (await world.state.admit(target, RULES)).allowed
        await world.wait(0.5)
        assert (await world.state.admit(target, RULES)).is_probe

    @within_its_time(0.4)
    async def test_only_the_probe_closes_it(self, world: World) -> None:
        target = await self.opened(world)
        assert not await world.state.report(target, RULES, ok=True)
        assert not (await world.state.admit(target, RULES)).allowed

    @within_its_time(0.4)
    async def test_the_cooldown_only_grows(self, world: World) -> None:
        target = await self.opened(world)
        await world.state.report(target, RULES, ok=False, retry_after_s=30)
        await world.state.report(target, RULES, ok=False, retry_after_s=1)
        assert (await world.state.admit(target, RULES)).retry_after_s > 25


class TestSharedValues:
    @within_its_time(0.5)
    async def test_a_value_is_there_until_it_is_removed_or_times_out(self, world: World) -> None:
        name = str(uuid4())
        assert await world.state.read(name) is None
        await world.state.write(name, "reduced")
        assert await world.state.read(name) == "reduced"
        await world.state.write(name, "minimal", ttl_s=0.2)
        assert await world.state.read(name) == "minimal"
        await world.wait(0.3)
        assert await world.state.read(name) is None
        await world.state.write(name, "full")
        await world.state.write(name, None)
        assert await world.state.read(name) is None


class TestCache:
    @within_its_time(0.5)
    async def test_a_value_is_there_for_its_time(self, world: World) -> None:
        key = str(uuid4())
        assert await world.cache.get(key) is None
        await world.cache.put(key, b"\x00value", ttl_s=0.2)
        assert await world.cache.get(key) == b"\x00value"
        await world.wait(0.3)
        assert await world.cache.get(key) is None

    async def test_one_computes_while_the_others_wait(self, world: World) -> None:
        key = str(uuid4())
        taken = await asyncio.gather(*(world.cache.lock(key, holder=str(n), ttl_s=60) for n in range(10)))
        assert sum(taken) == 1
        holder = str(taken.index(True))
        await world.cache.unlock(key, holder="somebody else")
        assert not await world.cache.lock(key, holder="x", ttl_s=60)
        await world.cache.unlock(key, holder=holder)
        assert await world.cache.lock(key, holder="x", ttl_s=60)

    async def test_the_lock_of_one_who_died_runs_out(self, world: World) -> None:
        key = str(uuid4())
        assert await world.cache.lock(key, holder="dead", ttl_s=0.2)
        await world.wait(0.3)
        assert await world.cache.lock(key, holder="next", ttl_s=60)
