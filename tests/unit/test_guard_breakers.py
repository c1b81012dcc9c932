"""A target that keeps failing is left alone for a while, by all who share the state, and tried again by one of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langgraph.graph import END, START, MessagesState, StateGraph

from scripted_targets import Scripted, Status, until
from waystation_guards.errors import AllTargetsFailed
from waystation_guards.failover.breakers import BreakerChange
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Decision, FailoverPolicy
from waystation_guards.failover.targets import Target
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import BreakerRules, Ports, use_ports

pytestmark = pytest.mark.anyio

RULES = BreakerRules(minimum=4, cooldown_s=30, window_s=60, probe_s=10)
BROKEN = [Status(503)]
FINE = ["fine"]


class World:
    """Ports with a clock that is turned by hand, and what callbacks were told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[BreakerChange] = []
        self.state = MemoryState(lambda: self.now)
        use_ports(Ports(MemoryLedger(lambda: self.now), self.state, MemoryCache(clock=lambda: self.now)))

    def over(self, *models: Scripted, **members: Any) -> FailoverModel:
        rows: Any = {"overload": Decision(), "rate_limit": Decision()}
        policy = FailoverPolicy(breaker=RULES, decisions=rows, **members)
        targets = [Target(model, name=name) for model, name in zip(models, "abc", strict=False)]
        return FailoverModel(targets, policy, on_change=self.told.append)


@pytest.fixture
def world() -> World:
    return World()


def scripted(*scripts: list[Any]) -> Scripted:
    return Scripted(scripts=list(scripts))


async def answers(model: FailoverModel, times: int) -> list[str]:
    return [(await model.ainvoke("hi")).text for _ in range(times)]


async def test_a_target_that_keeps_failing_is_no_longer_asked(world: World) -> None:
    broken, fine = scripted(BROKEN), scripted(FINE)
    model = world.over(broken, fine)
    assert await answers(model, 20) == ["fine"] * 20
    assert len(broken.asked) == RULES.minimum
    assert world.told == [BreakerChange("a", "opened", "overload", 30.0)]
    last = await model.ainvoke("hi")
    assert last.response_metadata["failover"]["failures"] == [{"target": "a", "class": "open"}]


async def test_another_model_over_the_same_target_leaves_it_alone_too(world: World) -> None:
    await answers(world.over(scripted(BROKEN), scripted(FINE)), 4)
    other = scripted(FINE)
    assert await answers(world.over(other, scripted(["second"])), 1) == ["second"]
    assert other.asked == []


async def test_after_the_cooldown_one_call_probes_and_closes_it(world: World) -> None:
    broken = scripted(*([BROKEN] * 4), FINE)
    model = world.over(broken, scripted(["second"]))
    await answers(model, 6)
    world.now += 31
    assert await answers(model, 3) == ["fine"] * 3
    assert [change.event for change in world.told] == ["opened", "closed"]


async def test_while_one_probes_the_others_go_elsewhere(world: World) -> None:
    go = asyncio.Event()
    broken = scripted(*([BROKEN] * 4), [go, "fine"])
    model = world.over(broken, scripted(["second"]))
    await answers(model, 4)
    world.now += 31
    probe = asyncio.create_task(model.ainvoke("hi"))
    await until(lambda: len(broken.asked) == 5)
    assert await answers(model, 5) == ["second"] * 5
    go.set()
    assert (await probe).text == "fine"
    assert await answers(model, 1) == ["fine"]


async def test_a_failed_probe_opens_it_again(world: World) -> None:
    broken = scripted(BROKEN)
    model = world.over(broken, scripted(FINE))
    await answers(model, 4)
    world.now += 31
    await answers(model, 5)
    assert len(broken.asked) == 5
    world.now += 29
    await answers(model, 1)
    assert len(broken.asked) == 5


async def test_a_probe_that_only_shows_a_callers_mistake_closes_it(world: World) -> None:
    mistaken = scripted(*([BROKEN] * 4), [Status(400)], FINE)
    model = world.over(mistaken, scripted(["second"]))
    await answers(model, 4)
    world.now += 31
    with pytest.raises(Status):
        await model.ainvoke("hi")
    assert await answers(model, 1) == ["fine"]


async def test_callers_mistakes_open_no_breaker(world: World) -> None:
    mistaken = scripted([Status(400)])
    model = world.over(mistaken, scripted(FINE))
    for _ in range(10):
        with pytest.raises(Status):
            await model.ainvoke("hi")
    assert len(mistaken.asked) == 10
    assert world.told == []


async def test_a_targets_retry_after_prolongs_its_cooldown(world: World) -> None:
    limited = scripted([Status(429, retry_after_s=90)])
    model = world.over(limited, scripted(FINE))
    await answers(model, 4)
    world.now += 80
    await answers(model, 1)
    assert len(limited.asked) == 4
    world.now += 11
    await answers(model, 1)
    assert len(limited.asked) == 5


async def test_where_all_are_open_calls_fail_fast_and_say_when_to_try_again(world: World) -> None:
    first, second = scripted(BROKEN), scripted(BROKEN)
    model = world.over(first, second)
    for _ in range(4):
        with pytest.raises(AllTargetsFailed):
            await model.ainvoke("hi")
        world.now += 1
    asked = len(first.asked), len(second.asked)
    with pytest.raises(AllTargetsFailed, match="the earliest time to try again is in 29 s") as refused:
        await model.ainvoke("hi")
    assert refused.value.retry_after_s == pytest.approx(29)
    assert (len(first.asked), len(second.asked)) == asked == (4, 4)


async def test_graphs_streams_and_logs_tell_of_a_change(world: World, caplog: pytest.LogCaptureFixture) -> None:
    model = world.over(scripted(BROKEN), scripted(FINE))

    async def answer(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder: Any = StateGraph(MessagesState)
    graph = builder.add_node("answer", answer).add_edge(START, "answer").add_edge("answer", END).compile()
    events = [
        event for _ in range(5) async for event in graph.astream({"messages": [("user", "hi")]}, stream_mode="custom")
    ]
    assert events == [{"guard": "breaker", "target": "a", "event": "opened", "cause": "overload", "cooldown_s": 30.0}]
    records = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert [one.getMessage() for one in records] == ["the breaker of a target opened"]


async def test_whoever_is_told_cannot_fail_the_call(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: BreakerChange) -> None:
        raise RuntimeError("webhook")

    model = world.over(scripted(BROKEN), scripted(FINE)).model_copy(update={"on_change": fails})
    assert await answers(model, 6) == ["fine"] * 6
    assert "a callback for breakers failed" in caplog.text


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_without_the_state_calls_go_on(how: str, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr("waystation_guards.failover.breakers._STATE_S", 0.01)

    async def away(*_: object, **__: object) -> Any:
        if how == "raises":
            raise ConnectionError("redis is away")
        await asyncio.Event().wait()

    state: Any = type("Away", (), {"admit": away, "report": away})()
    use_ports(Ports(MemoryLedger(), state, MemoryCache()))
    assert await answers(world.over(scripted(BROKEN), scripted(FINE)), 6) == ["fine"] * 6


async def test_without_rules_there_is_no_breaker(world: World) -> None:
    broken = scripted(BROKEN)
    rows: Any = {"overload": Decision()}
    model = FailoverModel([broken, Scripted(model="b", scripts=[FINE])], FailoverPolicy(breaker=None, decisions=rows))
    assert await answers(model, 12) == ["fine"] * 12
    assert len(broken.asked) == 12
