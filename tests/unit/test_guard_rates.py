"""Rate limits of models: waiting in order, refusing what would wait too long, giving back, concurrency, failures."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import Field

from scripted_calls import ScriptedModel
from scripted_targets import until
from virtual_time import VirtualTime
from waystation_guards.calls import CallSite
from waystation_guards.deadlines import within
from waystation_guards.errors import GuardUnavailable, RateLimited
from waystation_guards.memory.ports import memory_ports
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Drawn, Ports, Rate, State, use_ports
from waystation_guards.rates.guard import RateLimit
from waystation_guards.rates.places import Places
from waystation_guards.rates.rules import ModelRate
from waystation_guards.watching.watcher import ModelCall, watched

pytestmark = pytest.mark.anyio

TARGET = "test/model"


def ports_with(state: State) -> Ports:
    return replace(memory_ports(), state=state)


class World:
    """Some processes' limiters over one state, in a time of their own."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.state = MemoryState(self.time.clock)
        self.ports = ports_with(self.state)
        self.went: list[tuple[str, float]] = []

    def limiter(self, *rates: ModelRate, **options: Any) -> RateLimit:
        return RateLimit(*rates, sleep=self.time.sleep, clock=self.time.clock, **options)

    def call(self, name: str = "", *, chars: int = 0, site: CallSite | None = None, **params: Any) -> ModelCall:
        return ModelCall(
            id=name or str(uuid4()),
            site=site or CallSite(),
            ports=self.ports,
            model="model",
            provider="test",
            messages=[HumanMessage("x" * chars)] if chars else [],
            params=params,
        )

    async def go(self, limiter: RateLimit, call: ModelCall) -> ModelCall:
        """Make a call as far as it is waited for."""
        await limiter.before_model(call)
        self.went.append((call.id, self.time.clock() - 1000))
        return call

    async def all(self, *calls: tuple[RateLimit, ModelCall]) -> list[ModelCall | BaseException]:
        """Begin calls one after the other, and wait until all have gone or were refused."""

        async def work() -> list[ModelCall | BaseException]:
            return await asyncio.gather(*(self.go(*one) for one in calls), return_exceptions=True)

        return await self.time.run(work())


async def test_calls_beyond_the_rate_wait_in_the_order_in_which_they_came() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=2, seconds=10))
    await world.all(*((limiter, world.call(str(number))) for number in range(6)))
    assert [name for name, _ in world.went] == list("012345")
    assert [when for _, when in world.went] == pytest.approx([0, 0, 5, 10, 15, 20])


async def test_two_limiters_over_one_state_together_keep_the_rate() -> None:
    world = World()
    one, other = (world.limiter(ModelRate(requests=4, seconds=4)) for _ in range(2))
    await world.all(*((one if number % 2 else other, world.call(str(number))) for number in range(24)))
    # Four at once, and one a second from then on: whoever it belongs to.
    assert world.went[-1][1] == pytest.approx(20)


async def test_a_large_call_is_not_passed_by_small_ones_for_ever() -> None:
    world = World()
    rate = ModelRate(input_tokens=100, seconds=100)
    large, small = world.limiter(rate, wait_s=500), world.limiter(rate, wait_s=500)
    calls = [(small, world.call("first", chars=390))]
    calls += [(large, world.call("large", chars=380))]
    calls += [(small, world.call(f"small-{number}", chars=20)) for number in range(20)]
    await world.all(*calls)
    order = [name for name, _ in world.went]
    # Of another process at most the one that was next in line goes before it.
    assert order.index("large") <= 2


async def test_a_wait_that_would_be_too_long_is_refused_at_once_and_takes_nothing() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, seconds=60), wait_s=90)
    outcomes = await world.all(*((limiter, world.call(str(number))) for number in range(4)))
    assert [name for name, _ in world.went] == ["0", "1"]
    refused = [one for one in outcomes if isinstance(one, RateLimited)]
    assert len(refused) == 2
    assert all(one.retry_after_s is not None and one.retry_after_s > 30 for one in refused)
    # Time went on to the second call's turn: the next one is a minute later, as if the refused ones had not been.
    assert await world.state.take("shared:{model-rates}/test/model/requests", [Rate(1, 60.0)]) == pytest.approx(60)


async def test_the_refused_are_told_before_any_time_passes() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, seconds=60), wait_s=90)
    refused: list[float] = []

    async def one() -> None:
        try:
            await limiter.before_model(world.call())
        except RateLimited:
            refused.append(world.time.clock())

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(8)))

    await world.time.run(many())
    assert refused == [1000.0] * 6


async def test_nobody_waits_beyond_the_deadline_of_its_call() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, seconds=60), wait_s=90)
    await limiter.before_model(world.call())
    with within(30), pytest.raises(RateLimited):
        await limiter.before_model(world.call())
    assert world.time.clock() == 1000


async def test_tokens_that_were_not_used_go_back_and_more_use_is_drawn() -> None:
    world = World()
    limiter = world.limiter(ModelRate(tokens=1000, seconds=1000), wait_s=0)
    call = world.call(max_tokens=400)
    await limiter.before_model(call)
    call.usage = {"input_tokens": 50, "output_tokens": 50}
    await limiter.after_model(call, "made")
    name, rates = "shared:{model-rates}/test/model/tokens", [Rate(1000, 1000.0)]
    assert await world.state.take(name, rates, 900) == 0
    await world.state.give_back(name, rates, 900)
    call = world.call(max_tokens=100)
    await limiter.before_model(call)
    call.usage = {"input_tokens": 800, "output_tokens": 50}
    await limiter.after_model(call, "made")
    assert await world.state.take(name, rates, 50) == 0
    assert await world.state.take(name, rates, 1) > 0


async def test_what_answers_are_like_is_learned() -> None:
    world = World()
    limiter = world.limiter(ModelRate(output_tokens=10_000, seconds=3600), wait_s=0)
    for _ in range(30):
        call = world.call()
        await limiter.before_model(call)
        call.usage = {"input_tokens": 1, "output_tokens": 20}
        await limiter.after_model(call, "made")
    before = (await world.state.draw([])).wait_s
    call = world.call()
    await limiter.before_model(call)
    assert before == 0
    left = await world.state.take("shared:{model-rates}/test/model/output_tokens", [Rate(10_000, 3600.0)], 10_000 - 630)
    assert left == 0


@pytest.mark.parametrize("made", ["not made", "failed"])
async def test_a_call_that_used_no_tokens_gives_them_all_back(made: Any) -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=10, tokens=1000, seconds=1000), wait_s=0)
    call = world.call(max_tokens=400)
    await limiter.before_model(call)
    await limiter.after_model(call, made)
    assert await world.state.take("shared:{model-rates}/test/model/tokens", [Rate(1000, 1000.0)], 1000) == 0
    requests = "shared:{model-rates}/test/model/requests", [Rate(10, 1000.0)]
    assert await world.state.take(*requests, 9) == 0
    assert (await world.state.take(*requests) == 0) == (made == "not made")


async def test_a_call_that_is_cancelled_while_it_waits_gives_back_and_lets_the_next_go() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, seconds=60), wait_s=600)

    async def work() -> None:
        await world.go(limiter, world.call("first"))
        waiting = [asyncio.ensure_future(world.go(limiter, world.call(name))) for name in ("a", "b", "c")]
        await world.time.settle()
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    await world.time.run(work())
    assert [name for name, _ in world.went] == ["first", "c"]
    assert world.went[1][1] == pytest.approx(60)


async def test_a_pause_that_begins_while_calls_wait_holds_them_too() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, seconds=10), wait_s=600)

    async def work() -> None:
        await world.go(limiter, world.call("first"))
        waiting = asyncio.ensure_future(world.go(limiter, world.call("second")))
        await world.time.settle()
        await world.state.pause("shared:{model-rates}/test/model/pause", 100)
        await waiting

    await world.time.run(work())
    assert world.went[1][1] == pytest.approx(100)


async def test_no_more_calls_are_open_than_there_are_places() -> None:
    world = World()
    limiter = world.limiter(ModelRate(concurrent=3), wait_s=600)
    is_open, most = 0, 0

    async def one() -> None:
        nonlocal is_open, most
        call = world.call()
        await limiter.before_model(call)
        is_open += 1
        most = max(most, is_open)
        await world.time.sleep(10)
        is_open -= 1
        await limiter.after_model(call, "made")

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(9)))

    await world.time.run(many())
    assert most == 3
    assert 1030 <= world.time.clock() < 1031


async def test_who_waits_too_long_for_a_place_is_refused_and_holds_none() -> None:
    world = World()
    limiter = world.limiter(ModelRate(concurrent=1, requests=100), wait_s=5)
    first, second = world.call(), world.call()
    await limiter.before_model(first)
    with pytest.raises(RateLimited, match="1 calls at a time"):
        await world.time.run(limiter.before_model(second))
    await limiter.after_model(first, "made")
    await limiter.before_model(world.call())


async def test_rules_count_for_the_targets_they_match() -> None:
    world = World()
    limiter = world.limiter(ModelRate(target="test/*", requests=1, seconds=60), wait_s=0)
    await limiter.before_model(world.call())
    with pytest.raises(RateLimited):
        await limiter.before_model(world.call())
    await limiter.before_model(world.call(waystation_target="other/region"))
    await limiter.before_model(world.call(waystation_target="test/eu"))
    with pytest.raises(RateLimited):
        await limiter.before_model(world.call(waystation_target="test/eu"))


async def test_targets_that_share_an_account_count_together() -> None:
    world = World()
    limiter = world.limiter(ModelRate(target="test/*", requests=1, together=True), wait_s=0)
    await limiter.before_model(world.call(waystation_target="test/a"))
    with pytest.raises(RateLimited):
        await limiter.before_model(world.call(waystation_target="test/b"))


async def test_a_rule_per_tenant_counts_each_tenant_for_itself() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, per="tenant"), wait_s=0)
    for tenant in ("a", "b"):
        await limiter.before_model(world.call(site=CallSite(tenant=tenant)))
    with pytest.raises(RateLimited):
        await limiter.before_model(world.call(site=CallSite(tenant="a")))


async def test_users_of_the_same_name_in_two_tenants_are_two() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, per="user"), wait_s=0)
    for tenant in ("a", "b"):
        await limiter.before_model(world.call(site=CallSite(tenant=tenant, user="kim")))
    with pytest.raises(RateLimited):
        await limiter.before_model(world.call(site=CallSite(tenant="b", user="kim")))


async def test_a_tenant_with_many_waiting_calls_does_not_hold_up_another() -> None:
    world = World()
    limiter = world.limiter(ModelRate(requests=1, seconds=10), wait_s=6000)
    crowd = [(limiter, world.call(f"many-{number}", site=CallSite(tenant="many"))) for number in range(20)]
    few = [(limiter, world.call(f"few-{number}", site=CallSite(tenant="few"))) for number in range(2)]
    await world.all(*crowd, *few)
    order = [name for name, _ in world.went]
    assert order.index("few-0") <= 3
    assert order.index("few-1") <= 5


class AwayState(MemoryState):
    async def draw(self, draws: Any, *, patience_s: float = 0.0) -> Drawn:
        raise ConnectionError("away")


async def test_while_the_state_is_away_it_fails_as_it_was_told() -> None:
    world = World()
    world.ports = ports_with(AwayState())
    call = world.call()
    await world.limiter(ModelRate(requests=1)).before_model(call)
    with pytest.raises(GuardUnavailable):
        await world.limiter(ModelRate(requests=1), fail="closed").before_model(world.call())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"requests": 0}, "requests of a model rate is 0"),
        ({}, "limits nothing"),
        ({"tokens": True}, "tokens of a model rate"),
        ({"requests": 1, "seconds": 0}, "seconds of a model rate"),
        ({"requests": 1, "burst": 2}, "burst of a model rate"),
        ({"requests": 1, "per": "planet"}, "per of a model rate"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ModelRate(**wrong)


def config_with(state: State, limiter: RateLimit) -> RunnableConfig:
    use_ports(ports_with(state))
    return watched(None, [limiter])


def test_blocking_calls_in_a_plain_script_are_limited_too() -> None:
    model, config = ScriptedModel(), config_with(MemoryState(), RateLimit(ModelRate(requests=2), wait_s=0))
    assert [str(model.invoke("hi", config).content) for _ in range(2)] == ["a b c d"] * 2
    with pytest.raises(RateLimited, match="try again in"):
        model.invoke("hi", config)
    assert len(model.calls) == 2


class SlowModel(ScriptedModel):
    """Takes a moment, and knows how many callers were there at a time at most."""

    inside: list[int] = Field(default_factory=lambda: [0, 0])

    def _generate(self, *given: Any, **more: Any) -> ChatResult:
        with _LOCK:
            self.inside[0] += 1
            self.inside[1] = max(self.inside)
        threading.Event().wait(0.01)
        with _LOCK:
            self.inside[0] -= 1
        return super()._generate(*given, **more)


_LOCK = threading.Lock()


def test_calls_in_many_threads_never_pass_the_number_of_places() -> None:
    model, state = SlowModel(), MemoryState()
    config = config_with(state, RateLimit(ModelRate(concurrent=2), wait_s=30))

    def call(_: int) -> str:
        return str(model.invoke("hi", config).content)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(16))) == ["a b c d"] * 16
    assert model.inside == [0, 2]


async def test_a_place_is_renewed_while_its_call_lasts_and_free_after_a_crash() -> None:
    now, renewed = [1000.0], list[str]()

    class Renewed(MemoryState):
        async def enter(self, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
            renewed.append(holder)
            return await super().enter(name, limit=limit, holder=holder, ttl_s=ttl_s)

    state = Renewed(lambda: now[0])
    places = Places(renew_s=0.02, ttl_s=0.2)
    assert await places.enter(state, "p", limit=1, holder="a")
    for _ in range(20):  # longer than the place would last unrenewed
        times = renewed.count("a")
        await until(lambda times=times: renewed.count("a") > times)
        now[0] += 0.15
        assert not await state.enter("p", limit=1, holder="b", ttl_s=1)
    await places.leave(state, "p", holder="a")
    assert await state.enter("p", limit=1, holder="b", ttl_s=0.01)
