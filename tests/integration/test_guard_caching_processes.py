"""Many callers in many processes ask the same at once: one call is paid for, also when the one who makes it dies."""

from __future__ import annotations

from asyncio import to_thread
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, TypedDict

import pytest
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from eventually import eventually
from guard_cache_worker import Askers
from providers import FaultServer, Plan
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.calls import PORTS_KEY


class State(TypedDict, total=False):
    said: str


PROCESSES = 4
CALLERS = 25

SAID = "one two six ten"


@pytest.fixture(scope="module")
def askers() -> Generator[Askers]:
    with Askers(PROCESSES) as running:
        yield running


@pytest.fixture
def provider() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(params=["redis", "postgres"])
def stores(request: pytest.FixtureRequest, database_uri: str, redis_url: str) -> dict[str, str]:
    return {"uri": database_uri, "redis": redis_url if request.param == "redis" else ""}


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
def test_a_hundred_callers_over_four_processes_pay_once(
    askers: Askers, provider: FaultServer, stores: dict[str, str], how: str
) -> None:
    provider.always(Plan("ok", first_s=0.3))
    task = {**stores, "base_url": provider.openai, "callers": CALLERS, "question": "why?", "how": how}
    heard = askers.all(task)
    assert [one["said"] for one in heard] == [[SAID] * CALLERS] * PROCESSES
    assert len(provider.settled().bill.charges) == 1
    happened = Counter(event for one in heard for event in one["events"])
    assert (happened["miss"], happened["kept"]) == (1, 1)
    assert happened["waited"] + happened["hit"] == PROCESSES * CALLERS - 1


def test_tenants_pay_for_themselves(askers: Askers, provider: FaultServer, stores: dict[str, str]) -> None:
    task = {**stores, "base_url": provider.openai, "callers": 5, "question": "why?"}
    for number in range(PROCESSES):
        askers.tell(number, {**task, "tenant": f"tenant-{number}"})
    assert [askers.hear(number)["said"] for number in range(PROCESSES)] == [[SAID] * 5] * PROCESSES
    assert len(provider.bill.charges) == PROCESSES


@pytest.mark.anyio
async def test_when_the_process_that_asks_is_killed_another_one_asks(
    askers: Askers, provider: FaultServer, stores: dict[str, str]
) -> None:
    async def asked() -> bool:
        return len(provider.requests) == 1

    provider.script(Plan("hang"))
    task = {**stores, "base_url": provider.openai, "callers": 3, "question": "why?", "lock_s": 1.0}
    with Askers(1) as doomed:
        doomed.tell(0, task)
        await eventually(asked)
        askers.tell(0, task)
        doomed.processes[0].kill()
        assert (await to_thread(askers.hear, 0))["said"] == [SAID] * 3
    assert len(provider.requests) == 2


@pytest.mark.anyio
async def test_code_that_blocks_asks_the_caches_home(provider: FaultServer, redis_url: str, db: Database) -> None:
    """Sync nodes run in threads; the cache's connections live on the loop."""
    key: Any = "k"
    events = list[str]()
    answers = ResponseCache(CacheRules(store_s=30.0), on_event=lambda event: events.append(event.happened))
    inner = ChatOpenAI(model="m", temperature=0, api_key=key, base_url=provider.openai, max_retries=0)
    model = CachedModel(inner=inner, answers=answers)

    def node(state: State) -> State:
        return {"said": "".join(str(chunk.text) for chunk in model.stream("why?"))}

    builder: Any = StateGraph(State)
    graph = builder.add_node("a", node).add_edge(START, "a").add_edge("a", END).compile()
    made = guard_stores(db, redis_url, answer_s=20)
    try:
        for _ in range(2):
            ports = made.ports_for("acme")
            assert (await graph.ainvoke({}, {"configurable": {PORTS_KEY: ports}}))["said"] == SAID
    finally:
        await made.close()
    assert events == ["miss", "kept", "hit"]
    assert len(provider.requests) == 1
