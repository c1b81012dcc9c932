"""Breakers and levels are one thing for all processes, over Postgres and over Redis: not one for each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from scripted_targets import Scripted, Status
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.failover.breakers import BreakerChange
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Decision, FailoverPolicy
from waystation_guards.failover.targets import Target
from waystation_guards.levels.levels import Degradation, LevelPolicy, Rule, clear_level, current_level, set_level
from waystation_guards.levels.signals import share, shared
from waystation_guards.ports import BreakerRules, Ports

pytestmark = pytest.mark.anyio

RULES = BreakerRules(minimum=8, window_s=600, cooldown_s=600, probe_s=60)
ROWS: Any = {"overload": Decision()}
PROCESSES = 4


@pytest.fixture(scope="module")
def shared_database(make_database: Callable[[], str]) -> str:
    """Names in this suite are their test's own."""
    return make_database()


@pytest.fixture(params=["postgres", "redis"])
async def processes(
    request: pytest.FixtureRequest, shared_database: str, redis_url: str
) -> AsyncIterator[list[Callable[[str], Ports]]]:
    """What four processes have of the stores: connections of their own."""
    async with AsyncExitStack() as stack:
        made: list[Callable[[str], Ports]] = []
        for number in range(PROCESSES):
            db = await stack.enter_async_context(Database(shared_database, name=f"guards-{number}", max_size=3))
            stores = guard_stores(db, redis_url if request.param == "redis" else None, answer_s=20)
            stack.push_async_callback(stores.close)
            made.append(stores.ports_for)
        yield made


class Service:
    """The same two targets in each process: one whose provider is down until told otherwise, and one that is well."""

    def __init__(self, processes: list[Callable[[str], Ports]], *, rules: BreakerRules = RULES) -> None:
        self.name = f"broken-{uuid4()}"
        self.broken = Scripted(scripts=[[Status(503)]])
        self.fine = Scripted(scripts=[["fine"]])
        self.told: list[BreakerChange] = []
        self.processes = processes
        policy = FailoverPolicy(breaker=rules, decisions=ROWS)
        targets = [Target(self.broken, name=self.name), Target(self.fine, name=f"fine-{uuid4()}")]
        self.models = [FailoverModel(targets, policy, on_change=self.told.append) for _ in processes]

    def config(self, number: int, tenant: str = "default") -> Any:
        return {"configurable": {PORTS_KEY: self.processes[number % PROCESSES](tenant)}}

    async def ask(self, number: int, tenant: str = "default") -> str:
        answer = await self.models[number % PROCESSES].ainvoke("hi", self.config(number, tenant))
        return answer.response_metadata["failover"]["target"]

    def heals(self) -> None:
        self.broken.scripts[:] = [["fine again"]]


async def test_a_target_is_given_up_after_as_many_failures_as_one_process_would_need(processes: Any) -> None:
    service = Service(processes)
    for number in range(5 * PROCESSES):
        await service.ask(number)
    assert len(service.broken.asked) == RULES.minimum
    assert [(change.target, change.event) for change in service.told] == [(service.name, "opened")]


async def test_one_call_of_all_processes_probes_and_closes_it_for_all(processes: Any) -> None:
    rules = replace(RULES, cooldown_s=0.5)
    service = Service(processes, rules=rules)
    for number in range(rules.minimum):
        await service.ask(number)
    service.heals()
    await asyncio.sleep(rules.cooldown_s + 0.2)  # the stores' own clocks
    asked = len(service.broken.asked)
    answered = Counter(await asyncio.gather(*(service.ask(number) for number in range(5 * PROCESSES))))
    assert answered[service.name] == len(service.broken.asked) - asked
    assert [change.event for change in service.told] == ["opened", "closed"]
    assert {await service.ask(number) for number in range(PROCESSES)} == {service.name}


async def test_tenants_share_what_is_known_of_a_target(processes: Any) -> None:
    service = Service(processes)
    for number in range(RULES.minimum):
        await service.ask(number, tenant="a")
    await service.ask(0, tenant="b")
    assert len(service.broken.asked) == RULES.minimum


async def test_threads_that_block_ask_the_same_breakers(processes: Any) -> None:
    service = Service(processes)
    for number in range(RULES.minimum):
        model, config = service.models[number % PROCESSES], service.config(number)
        await asyncio.to_thread(model.invoke, "hi", config)
    await service.ask(0)
    assert len(service.broken.asked) == RULES.minimum
    assert [change.event for change in service.told] == ["opened"]


async def test_an_operators_level_and_a_queues_age_are_known_to_all(processes: Any) -> None:
    first, *_, last = (process("default") for process in processes)
    policy = LevelPolicy((Rule("queue", "reduced", 30),), name=f"levels-{uuid4()}", hold_s=60, check_s=0)
    age = f"queue_age_s-{uuid4()}"
    site = CallSite()
    levels = Degradation(policy, {"queue": shared(age)})
    assert (await levels.level(last, site)).level == "full"
    await share(first, age, 45)
    assert (await levels.level(last, site)).level == "reduced"
    assert (await current_level(first, name=policy.name)).level == "reduced"
    await set_level(first, "maintenance", for_s=60, by="ada", name=policy.name)
    other = processes[1]("another tenant")
    assert (await levels.level(other, CallSite(tenant="another tenant"))).by == "ada"
    await clear_level(last, name=policy.name)
    assert (await levels.level(first, site)).level == "reduced"
