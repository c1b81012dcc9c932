"""Budgets around real model calls, with the ledger in memory: limits, what is written, what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest

from scripted_calls import ScriptedModel
from waystation_guards.budget.alerts import Alert
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.budget.windows import Window, window_end, window_start
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.errors import BudgetExceeded, GuardUnavailable, PriceUnknown
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Account, Ports
from waystation_guards.watching.watcher import Watcher, watched

pytestmark = pytest.mark.anyio

# A call of the scripted model: 3 tokens in at 0.1 $, 4 out at 0.175 $, so 1 $; some tenths more are expected before
# anything is learned of it.
PRICES = Prices({"scripted": Rates(Decimal(100_000), Decimal(175_000))})
CALL = 1_000_000_000


class Program:
    """Calls a model under a budget, as a run of some user."""

    def __init__(self, *limits: Limit, **options: Any) -> None:
        self.ledger = MemoryLedger()
        self.ports = Ports(self.ledger, MemoryState(), MemoryCache())
        self.alerts: list[Alert] = []
        self.budget = Budget(
            *limits, **cast("Any", {"prices": PRICES, "on_alert": self.alerts.append, "wait_s": 5.0, **options})
        )
        self.model = ScriptedModel(calls=[])

    def config(self, *, user: str = "ada", thread: str = "t", run: str = "r", tenant: str = "") -> Any:
        ports = Ports(self.ports.ledger, self.ports.state, self.ports.cache, tenant=tenant)
        ids = {"thread_id": thread, "run_id": run, "langgraph_auth_user_id": user}
        return watched({"configurable": {**ids, PORTS_KEY: ports}}, [self.budget])

    async def call(self, **who: Any) -> str:
        # As in a node: LangGraph's config is what a call is attributed by.
        return str((await _in_a_node(self.model, self.config(**who))).content)

    @property
    def spent(self) -> int:
        return sum(entry.cost_nano_usd or 0 for _, _, entry in self.ledger.entries)


async def _in_a_node(model: ScriptedModel, config: Any) -> Any:
    from langgraph.graph import END, START, MessagesState, StateGraph

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], max_tokens=4)]}

    builder: Any = StateGraph(MessagesState)
    graph = builder.add_node("speaker", node).add_edge(START, "speaker").add_edge("speaker", END).compile()
    return (await graph.ainvoke({"messages": [("user", "hi")]}, config))["messages"][-1]


async def test_calls_pass_until_the_money_is_spent() -> None:
    program = Program(Limit(3.5, scope="user"))
    for _ in range(3):
        assert await program.call() == "a b c d"
    with pytest.raises(BudgetExceeded, match=r"3\.5 \$ per user is spent") as refused:
        await program.call()
    assert refused.value.limit == program.budget.limits[0]
    assert len(program.model.calls) == 3
    assert program.spent == 3 * CALL


async def test_parallel_calls_pass_a_check_only_as_far_as_the_money_goes() -> None:
    program = Program(Limit(10.5, scope="tenant"))
    program.model.pause_s = 0.01
    outcomes = await asyncio.gather(*(program.call(run=str(n)) for n in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, BudgetExceeded) for outcome in outcomes) == 40
    assert program.spent == 10 * CALL
    (balance,) = await program.ledger.balances([Account("default", "tenant", "default", "usd")])
    assert (balance.spent, balance.held, balance.at_risk) == (10 * CALL, 0, 0)


async def test_users_have_budgets_of_their_own() -> None:
    program = Program(Limit(1.5, scope="user"))
    await program.call(user="ada")
    await program.call(user="bob")
    with pytest.raises(BudgetExceeded):
        await program.call(user="ada")


async def test_tenants_with_users_of_the_same_name_do_too() -> None:
    program = Program(Limit(1.5, scope="user"))
    await program.call(tenant="acme")
    await program.call(tenant="other")
    with pytest.raises(BudgetExceeded):
        await program.call(tenant="acme")


async def test_all_limits_have_to_fit() -> None:
    program = Program(Limit(100, scope="user"), Limit(2, unit="model_calls", scope="run"))
    await program.call(run="one")
    await program.call(run="one")
    with pytest.raises(BudgetExceeded, match="2 model calls per run"):
        await program.call(run="one")
    await program.call(run="two")


async def test_tokens_are_limited() -> None:
    program = Program(Limit(20, unit="tokens", scope="thread"))
    await program.call()
    await program.call()
    with pytest.raises(BudgetExceeded, match="20 tokens per thread"):
        await program.call()


async def test_a_failed_call_costs_nothing_and_gives_its_hold_back() -> None:
    program = Program(Limit(1.5, scope="user"))
    program.model.fails = True
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await program.call()
    program.model.fails = False
    assert await program.call() == "a b c d"
    assert program.spent == CALL


async def test_a_provider_that_reports_nothing_is_counted() -> None:
    program = Program(Limit(100, scope="user"))
    program.model.silent = True
    await program.call()
    ((_, _, entry),) = program.ledger.entries
    assert entry.detail["counted"] == ["input_tokens", "output_tokens"]
    assert entry.usage["output_tokens"] > 0
    assert entry.cost_nano_usd


async def test_a_stream_that_is_cut_off_is_paid_for_as_far_as_it_came() -> None:
    program = Program(Limit(100, scope="user"))
    program.model.fails = True
    with pytest.raises(ValueError, match="no"):
        async for _ in program.model.astream("hi", program.config()):
            pass
    # Also a call outside of a graph belongs to whom the watched config names.
    ((_, site, entry),) = program.ledger.entries
    assert site.user == "ada"
    assert entry.detail["outcome"] == "failed"
    assert entry.usage["output_tokens"] == 2


async def test_a_cancelled_call_is_paid_for_and_leaves_no_hold() -> None:
    program = Program(Limit(100, scope="user"))
    program.model.pause_s = 60
    ports = program.ports
    watcher = Watcher([program.budget])
    config: Any = {"configurable": {PORTS_KEY: ports, "langgraph_auth_user_id": "ada"}, "callbacks": watcher.handlers}
    task = asyncio.create_task(_in_a_node(program.model, config))
    account = Account("default", "user", "ada", "usd")
    async with asyncio.timeout(60):
        while not (await ports.ledger.balances([account]))[0].held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await watcher.close()
    (balance,) = await ports.ledger.balances([account])
    assert balance.held == 0
    assert balance.spent > 0


async def test_a_model_without_a_price_is_refused_passed_with_a_flag_or_priced_flat() -> None:
    denied = Program(Limit(5), prices=Prices())
    with pytest.raises(PriceUnknown, match="scripted"):
        await denied.call()
    assert denied.model.calls == []
    flagged = Program(Limit(5, unpriced="flag"), prices=Prices())
    await flagged.call()
    ((_, _, entry),) = flagged.ledger.entries
    assert (entry.cost_nano_usd, entry.detail["unpriced"]) == (None, True)
    flat = Program(Limit(5, unpriced=Rates(Decimal(100_000), Decimal(175_000))), prices=Prices())
    await flat.call()
    assert flat.spent == CALL


async def test_each_threshold_is_told_once() -> None:
    program = Program(Limit(5, scope="user", alerts=(0.4, 0.8)))
    await asyncio.gather(*(program.call(run=str(n)) for n in range(4)))
    assert [alert.part for alert in program.alerts] == [0.4, 0.8]
    assert program.alerts[0].text == "40% of 5 $ per user are spent (ada: 2)"


class Away(MemoryLedger):
    async def reserve(self, *_: Any, **__: Any) -> Any:
        raise ConnectionError("away")


async def test_without_its_ledger_a_budget_fails_as_it_was_told() -> None:
    closed, opened = Program(Limit(5)), Program(Limit(5, fail="open"))
    for program in (closed, opened):
        program.ports = Ports(Away(), MemoryState(), MemoryCache())
    with pytest.raises(GuardUnavailable):
        await closed.call()
    assert closed.model.calls == []
    assert await opened.call() == "a b c d"


async def test_a_grant_lets_a_user_go_on() -> None:
    program = Program(Limit(1.5, scope="user", window="day"))
    site = CallSite(user="ada", thread="t", run="r")
    await program.call()
    with pytest.raises(BudgetExceeded, match="there is more from"):
        await program.call()
    await program.budget.grant(program.ports, site, program.budget.limits[0], 1, by="grace")
    await program.call()
    (standing,) = await program.budget.standing(program.ports, site)
    assert (standing.spent, standing.held, standing.left) == (1.0, 0.0, 0.5)


async def test_two_budgets_with_the_same_limits_count_a_call_once() -> None:
    program = Program(Limit(5, scope="user"))
    twin = Budget(Limit(5, scope="user"), prices=PRICES)
    config = watched(program.config(), [twin])
    await _in_a_node(program.model, config)
    (standing,) = await program.budget.standing(program.ports, CallSite(user="ada"))
    assert standing.spent == 1
    assert program.spent == CALL


async def test_two_budgets_with_different_limits_bill_a_call_once() -> None:
    program = Program(Limit(5, scope="user"))
    config = watched(program.config(), [Budget(Limit(5, scope="thread"), prices=PRICES)])
    await _in_a_node(program.model, config)
    assert len(program.ledger.entries) == 2
    assert program.spent == CALL


@pytest.mark.parametrize(
    ("window", "zone", "now", "start", "end"),
    [
        ("hour", "UTC", "2026-11-21T13:45:10", "2026-11-21T13:00", "2026-11-21T14:00"),
        ("hour", "Asia/Kolkata", "2026-11-21T13:45:10", "2026-11-21T13:30", "2026-11-21T14:30"),
        # Clocks are set back: 02:30 comes twice, in two windows.
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T00:00", "2026-10-25T01:00"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30:00", "2026-10-25T01:00", "2026-10-25T02:00"),
        ("hour", "Asia/Kathmandu", "2026-10-25T01:30:00", "2026-10-25T01:15", "2026-10-25T02:15"),
        # A day whose midnight does not exist, and one whose midnight comes twice.
        ("day", "Africa/Cairo", "2026-04-24T10:00:00", "2026-04-23T22:00", "2026-04-24T21:00"),
        ("day", "America/Havana", "2026-11-01T12:00:00", "2026-11-01T04:00", "2026-11-02T05:00"),
        ("week", "America/New_York", "2026-03-08T12:00:00", "2026-03-02T05:00", "2026-03-09T04:00"),
        ("day", "Europe/Berlin", "2026-11-21T23:30:00", "2026-11-21T23:00", "2026-11-22T23:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("week", "UTC", "2026-11-22T23:59:59", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("month", "America/New_York", "2026-12-01T04:59:00", "2026-11-01T04:00", "2026-12-01T05:00"),
        ("month", "UTC", "2026-12-15T00:00:00", "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_windows_begin_and_end_where_people_say(window: Window, zone: str, now: str, start: str, end: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    began, ends = window_start(window, moment, zone), window_end(window, moment, zone)
    assert began is not None
    assert ends is not None
    assert (f"{began:%Y-%m-%dT%H:%M}", f"{ends:%Y-%m-%dT%H:%M}") == (start, end)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"unit": "euros"}, "unit of a limit is 'euros'"),
        ({"scope": "planet"}, "scope of a limit is 'planet'"),
        ({"window": "year"}, "window of a limit is 'year'"),
        ({"size": -1}, "size of a limit is -1"),
        ({"timezone": "Mars/Olympus"}, "timezone of a limit is 'Mars/Olympus'"),
        ({"unpriced": "maybe"}, "unpriced of a limit is 'maybe'"),
        ({"degrade_at": 0}, "degrade_at of a limit is 0"),
        ({"alerts": (0.5, -1)}, "alerts of a limit are"),
    ],
)
def test_a_wrong_limit_says_what_is_wrong(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Limit(**cast("Any", {"size": 1, **wrong}))


def test_a_limit_is_made_of_json() -> None:
    limit = Limit.from_mapping(
        {"size": 5, "scope": "user", "alerts": [0.5], "grant_by": ["boss"], "unpriced": {"input": 1, "output": 2}}
    )
    assert (limit.alerts, limit.grant_by) == ((0.5,), ("boss",))
    assert limit.unpriced == Rates(Decimal(1), Decimal(2))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "size of a limit is missing"),
        ({"size": 1, "per": "day"}, "per of a limit is not known"),
        ({"size": "much"}, "a limit has a member of the wrong type"),
        ({"size": 1, "unpriced": {"input": 1}}, "price of an unpriced model: output is missing"),
    ],
)
def test_wrong_json_of_a_limit_says_what_is_wrong(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Limit.from_mapping(wrong)


def test_windows_follow_each_other_without_gaps_over_a_year_of_every_hour() -> None:
    for zone in ("Europe/Berlin", "America/Havana", "Africa/Cairo", "Australia/Lord_Howe", "Asia/Kathmandu"):
        for window in ("day", "week", "month"):
            moment = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
            while moment.year == 2026:
                start, end = window_start(window, moment, zone), window_end(window, moment, zone)
                assert start is not None
                assert end is not None
                assert start <= moment < end, (zone, window, moment)
                assert window_start(window, end, zone) == end, (zone, window, moment)
                moment += timedelta(hours=7)
