"""Budgets when things go wrong: cancellations at every step, a ledger that is away, providers that tell half."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from waystation_guards.budget.budget import Budget
from waystation_guards.budget.estimates import completed_usage
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.budget.writing import Writing
from waystation_guards.calls import CallSite
from waystation_guards.errors import BudgetExceeded, GuardUnavailable
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Account, Entry, Ports
from waystation_guards.watching.watcher import ModelCall, ToolCall

pytestmark = pytest.mark.anyio

PRICES = Prices({"m": Rates.from_mapping({"input": 0, "output": 250_000}, of="m")})
SITE = CallSite(user="ada", run="r")
ACCOUNT = Account("default", "user", "ada", "usd")
DOLLAR = 1_000_000_000


class Shaky(MemoryLedger):
    """A ledger whose answers can be held back or refused, by the name of the method."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[str] = set()
        self.slow: set[str] = set()
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def step(self, name: str) -> None:
        if name in self.away:
            raise ConnectionError(name)
        if name in self.slow:
            self.reached.set()
            await self.go.wait()

    async def reserve(self, *given: Any, **named: Any) -> Any:
        await self.step("reserve")
        outcome = await super().reserve(*given, **named)
        await self.step("reserved")
        return outcome

    async def settle(self, *given: Any, **named: Any) -> Any:
        await self.step("settle")
        outcome = await super().settle(*given, **named)
        await self.step("settled")
        return outcome

    async def release(self, call: str) -> None:
        await self.step("release")
        await super().release(call)

    async def now(self) -> Any:
        await self.step("now")
        return await super().now()


class World:
    def __init__(self, *limits: Limit) -> None:
        self.ledger = Shaky()
        self.ports = Ports(self.ledger, MemoryState(), MemoryCache())
        self.budget = Budget(*(limits or (Limit(10, scope="user"),)), prices=PRICES, wait_s=60)

    def call(self, name: str = "c", **more: Any) -> ModelCall:
        params = {"max_tokens": 4}
        return ModelCall(name, SITE, self.ports, "m", "", [HumanMessage("hi")], params, **more)

    async def balance(self) -> tuple[int, int]:
        (found,) = await MemoryLedger.balances(self.ledger, [ACCOUNT])
        return found.spent, found.held

    @property
    def kinds(self) -> list[str]:
        return [entry.kind for _, _, entry in self.ledger.entries if "alert" not in entry.detail]


USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize("step", ["reserve", "reserved", "now"])
async def test_a_call_that_is_cancelled_while_it_is_admitted_leaves_no_hold(step: str) -> None:
    world = World()
    world.ledger.slow.add(step)
    task = asyncio.create_task(world.budget.before_model(world.call()))
    await world.ledger.reached.wait()
    task.cancel()
    world.ledger.go.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await world.balance() == (0, 0)


@pytest.mark.parametrize("step", ["settle", "settled"])
async def test_a_call_that_is_cancelled_while_it_is_settled_is_written_once(step: str) -> None:
    world, call = World(), None
    call = world.call()
    await world.budget.before_model(call)
    call.usage = USAGE
    world.ledger.slow.add(step)
    task = asyncio.create_task(world.budget.after_model(call, "made"))
    await world.ledger.reached.wait()
    task.cancel()
    world.ledger.slow.clear()
    world.ledger.go.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await world.balance() == (DOLLAR, 0)
    assert world.kinds == ["model"]


@pytest.mark.parametrize("step", ["reserve", "now"])
async def test_a_budget_that_fails_open_counts_what_it_let_through(step: str) -> None:
    world = World(Limit(10, scope="user", fail="open"))
    world.ledger.away.add(step)
    call = world.call()
    await world.budget.before_model(call)
    call.usage = USAGE
    world.ledger.away.clear()
    await world.budget.after_model(call, "made")
    assert await world.balance() == (DOLLAR, 0)
    ((_, _, entry),) = world.ledger.entries
    assert entry.detail["without_hold"] is True


async def test_one_limit_that_fails_closed_closes_the_budget() -> None:
    world = World(Limit(10, scope="user", fail="open"), Limit(10, scope="run"))
    world.ledger.away.add("reserve")
    with pytest.raises(GuardUnavailable, match="fails closed"):
        await world.budget.before_model(world.call())


async def test_an_entry_that_cannot_be_written_waits_for_the_next_one() -> None:
    world = World(Limit(10, scope="user", fail="open"))
    first, second = world.call("first"), world.call("second")
    for call in (first, second):
        await world.budget.before_model(call)
        call.usage = USAGE
    world.ledger.away.add("settle")
    await world.budget.after_model(first, "made")
    assert world.kinds == []
    world.ledger.away.clear()
    await world.budget.after_model(second, "made")
    assert await world.balance() == (2 * DOLLAR, 0)


async def test_entries_that_wait_are_bounded_and_the_oldest_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    writing, ledger = Writing(patient=False), Shaky()
    ledger.away.add("settle")

    def settle(number: int) -> Callable[[Any], Any]:
        return lambda ledger: ledger.settle(f"{number}/b", SITE, Entry("tool", spent={ACCOUNT: 1}))

    for number in range(1_001):
        await writing.write(ledger, f"call {number}", settle(number))
    assert writing.waiting == 1_000
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "an entry is missing in the budget's ledger: call 0"
    ]


async def test_a_call_waits_for_open_ones_that_may_turn_out_smaller() -> None:
    world = World(Limit(1.5, scope="user"))
    first, second = world.call("first"), world.call("second")
    await world.budget.before_model(first)
    waiting = asyncio.create_task(world.budget.before_model(second))
    await asyncio.sleep(0)
    first.usage = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
    await world.budget.after_model(first, "made")
    await waiting
    spent, held = await world.balance()
    assert spent == DOLLAR // 4
    assert 0 < held < DOLLAR  # less than before: of the first call it is learned that estimates are too high


async def test_a_call_that_cannot_fit_whatever_open_ones_cost_is_refused_at_once() -> None:
    world = World(Limit(1.5, scope="user"))
    first = world.call("first")
    await world.budget.before_model(first)
    first.usage = USAGE
    await world.budget.after_model(first, "made")
    async with asyncio.timeout(30):
        with pytest.raises(BudgetExceeded):
            await world.budget.before_model(world.call("second"))


async def test_nothing_is_learned_of_a_call_that_broke_off() -> None:
    world, call = World(), None
    call = world.call()
    await world.budget.before_model(call)
    call.streamed("tokens", 2)
    await world.budget.after_model(call, "cancelled")
    assert await world.ledger.ratio("default", "m") == 1.0
    ((_, _, entry),) = world.ledger.entries
    assert (entry.detail["outcome"], entry.usage["output_tokens"]) == ("cancelled", 1)


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (ConnectionRefusedError("no"), 0),
        (ValueError("no"), 0),
        (TimeoutError("too late"), DOLLAR),
    ],
)
async def test_a_failed_call_is_paid_for_where_its_provider_may_have_worked(error: Exception, spent: int) -> None:
    world = World()
    call = world.call()
    await world.budget.before_model(call)
    call.error = error
    await world.budget.after_model(call, "failed")
    assert await world.balance() == (spent, 0)


async def test_tools_are_counted_unless_they_were_not_made() -> None:
    world = World(Limit(2, unit="tool_calls", scope="user"))
    for made in ("not made", "made", "failed"):
        call = ToolCall(made, SITE, world.ports, "look", {})
        await world.budget.before_tool(call)
        await world.budget.after_tool(call, made)
    assert [one.spent for one in await world.budget.standing(world.ports, SITE)] == [2]
    with pytest.raises(BudgetExceeded):
        await world.budget.before_tool(ToolCall("more", SITE, world.ports, "look", {}))


async def test_a_tool_costs_nothing_where_no_limit_counts_tools() -> None:
    world = World()
    world.ledger.away.add("reserve")
    await world.budget.before_tool(ToolCall("t", SITE, world.ports, "look", {}))


async def test_self_test_says_what_does_not_work() -> None:
    world = World()
    assert await world.budget.self_test(world.ports) == []
    world.ledger.away.add("settle")
    (problem,) = await world.budget.self_test(world.ports)
    assert problem.startswith("the ledger does not answer: ConnectionError")

    class Lax(MemoryLedger):
        async def reserve(self, call: str, site: CallSite, holds: Any, *, ttl_s: float) -> Any:
            return []

    lax = Ports(Lax(), MemoryState(), MemoryCache())
    assert "the ledger let through what does not fit" in await world.budget.self_test(lax)


def reported(ins: int, outs: int) -> dict[str, Any]:
    return {"input_tokens": ins, "output_tokens": outs, "total_tokens": ins + outs}


@pytest.mark.parametrize(
    ("given", "chunks", "chars", "usage", "counted"),
    [
        # All is told.
        (reported(10, 60), 60, 240, (10, 60), ()),
        # Nothing is told: ChatOpenAI with a base_url.
        (None, 60, 240, (7, 60), ("input_tokens", "output_tokens")),
        # Zeros: ChatAnthropic.
        (reported(0, 0), 60, 240, (7, 60), ("input_tokens", "output_tokens")),
        # What Anthropic says when a message starts, of a stream that broke off.
        (reported(25, 1), 60, 240, (25, 60), ("output_tokens",)),
        # A small model with long words.
        (reported(10, 12), 10, 200, (10, 12), ()),
        # Reasoning that nobody sees.
        (reported(10, 900), 60, 240, (10, 900), ()),
        # Nothing was said.
        (reported(10, 0), 0, 0, (10, 0), ()),
    ],
)
def test_what_providers_leave_out_is_counted(
    given: Any, chunks: int, chars: int, usage: tuple[int, int], counted: tuple[str, ...]
) -> None:
    whole, names = completed_usage(given, 7, chunks=chunks, chars=chars)
    assert (whole["input_tokens"], whole["output_tokens"]) == usage
    assert whole["total_tokens"] == sum(usage)
    assert names == counted
