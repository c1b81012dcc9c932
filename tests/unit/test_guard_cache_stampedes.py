"""A cache over time: answers end and are renewed, many ask at once, and stores are in trouble."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

from cached_calls import ANY, HOW, Failing, State, World, gated
from scripted_calls import ScriptedModel
from scripted_targets import until
from waystation_guards.caching.rules import CacheRules

pytestmark = pytest.mark.anyio

# Time


async def test_an_answer_ends_with_its_time_which_differs_a_little() -> None:
    world = World(replace(ANY, ttl_s=100, jitter=0.5))
    for number in range(40):
        await world.ask(str(number))
    world.now[0] += 75
    for number in range(40):
        await world.ask(str(number))
    assert 40 < world.calls < 80
    world.now[0] += 26
    before = world.calls
    for number in range(40):
        await world.ask(str(number))
    assert world.calls > before


async def test_another_version_finds_nothing_from_before() -> None:
    world = World()
    await world.ask()
    world.answers.rules = replace(ANY, version="2")
    await world.ask()
    assert world.calls == 2


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_stale_answer_is_given_at_once_and_renewed_by_one(how: str) -> None:
    model = gated()
    world = World(replace(ANY, ttl_s=10, jitter=0, stale_s=100), model=model)
    model.go.set()
    await world.ask(how=how)
    model.go.clear()
    world.now[0] += 50
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(world.ask(how=how) for _ in range(5)))
    assert said == ["a b c d"] * 5
    assert world.happened[2:] == ["stale"] * 5
    model.go.set()
    await world.answers.aclose()
    assert world.calls == 2
    assert await world.ask(how=how) == "a b c d"
    assert world.happened[-1] == "hit"
    world.now[0] += 111
    await world.ask(how=how)
    assert world.calls == 3


async def test_code_that_blocks_renews_a_stale_answer_itself() -> None:
    world = World(replace(ANY, ttl_s=10, jitter=0, stale_s=100))
    await world.ask(how="invoke")
    world.now[0] += 50
    await world.ask(how="invoke")
    assert world.calls == 2
    await world.ask(how="invoke")
    assert (world.calls, world.happened[-1]) == (2, "hit")


async def test_a_stale_answer_stays_when_it_cannot_be_renewed() -> None:
    model = Failing(calls=[])
    world = World(replace(ANY, ttl_s=10, jitter=0, stale_s=100), model=model)
    await world.ask()
    world.now[0] += 50
    model.troubles.append("down")
    for _ in range(2):
        assert await world.ask() == "a b c d"
        await world.answers.aclose()
    assert world.calls == 3


# Stampedes


@pytest.mark.parametrize("how", HOW)
async def test_of_many_that_ask_the_same_at_once_one_pays(how: str) -> None:
    world = World(model=ScriptedModel(calls=[], pause_s=0.05))
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(world.ask(how=how) for _ in range(20)))
    assert said == ["a b c d"] * 20
    assert world.calls == 1


async def test_when_the_one_who_asks_is_cancelled_the_next_one_asks() -> None:
    model = gated()
    world = World(model=model)
    first = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await model.asked.wait()
        model.asked.clear()
        second = asyncio.create_task(world.ask())
        first.cancel()
        await asyncio.wait([first])
        await model.asked.wait()
        model.go.set()
        assert await second == "a b c d"
    assert world.calls == 1


async def test_when_the_one_who_asks_is_dead_the_next_one_asks() -> None:
    world = World(replace(ANY, wait_s=20))
    key = world.answers.asked(world.paid, [HumanMessage("hi")], stop=None, kwargs={}, config=world.config()).key
    await world.ports.cache.lock(key, holder="a process that is gone", ttl_s=20)
    waiting = asyncio.create_task(world.ask())
    while cast("Any", world.answers).rules and not waiting.done():
        await asyncio.sleep(0.01)
        world.now[0] += 1
    assert await waiting == "a b c d"
    assert world.calls == 1


async def test_who_has_waited_long_enough_asks_for_itself() -> None:
    model = gated()
    world = World(replace(ANY, wait_s=0), model=model)
    first = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await model.asked.wait()
        model.asked.clear()
        second = asyncio.create_task(world.ask())
        await model.asked.wait()
        model.go.set()
        await asyncio.gather(first, second)
    assert world.calls == 2


async def test_a_lock_is_renewed_while_its_holder_lives() -> None:
    model = gated()
    world = World(replace(ANY, lock_s=0.3), model=model)
    renewed = asyncio.Event()
    real = world.ports.cache.lock

    async def lock(key: str, *, holder: str, ttl_s: float) -> bool:
        if model.asked.is_set():
            renewed.set()
        return await real(key, holder=holder, ttl_s=ttl_s)

    world.ports = replace(world.ports, cache=cast("Any", Spied(world.ports.cache, lock=lock)))
    asking = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await renewed.wait()
        model.go.set()
        assert await asking == "a b c d"


async def test_of_those_who_wait_in_a_process_one_asks_the_store() -> None:
    model, asked = gated(), list[str]()
    world = World(model=model)
    real = world.ports.cache

    async def lock(key: str, *, holder: str, ttl_s: float) -> bool:
        asked.append(key)
        return await real.lock(key, holder=holder, ttl_s=ttl_s)

    world.ports = replace(world.ports, cache=cast("Any", Spied(real, lock=lock)))
    asking = [asyncio.create_task(world.ask()) for _ in range(20)]
    async with asyncio.timeout(60):
        await model.asked.wait()
        model.go.set()
        assert await asyncio.gather(*asking) == ["a b c d"] * 20
    assert (world.calls, len(asked)) == (1, 1)


async def test_who_waits_bears_with_a_store_that_is_late_once() -> None:
    model, late, looks = gated(), list[bool](), list[str]()
    world = World(model=model)
    real = world.ports.cache

    async def get(key: str) -> bytes | None:
        looks.append(key)
        if late:
            late.pop()
            raise TimeoutError
        return await real.get(key)

    asking = asyncio.create_task(world.ask())
    async with asyncio.timeout(60):
        await model.asked.wait()
        other = World(model=model)
        other.ports = replace(world.ports, cache=cast("Any", Spied(real, get=get)))
        waiting = asyncio.create_task(other.ask())
        await until(lambda: len(looks) > 2)  # it has found nothing, and waits for another's answer
        late.append(True)
        await until(lambda: not late)
        model.go.set()
        assert await asking == await waiting == "a b c d"
    assert (late, world.calls) == ([], 1)


async def test_without_single_flight_everybody_asks() -> None:
    world = World(replace(ANY, single_flight=False), model=ScriptedModel(calls=[], pause_s=0.05))
    await asyncio.gather(*(world.ask() for _ in range(3)))
    assert world.calls == 3


# The store's troubles


class Spied:
    """A cache of which some methods are replaced."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real, self._methods = real, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._real, name)


async def fails(*_: Any, **__: Any) -> Any:
    raise ConnectionError("away")


async def hangs(*_: Any, **__: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("trouble", [fails, hangs])
@pytest.mark.parametrize("method", ["get", "put", "lock", "unlock"])
async def test_a_cache_in_trouble_is_not_in_the_way(method: str, trouble: Any) -> None:
    world = World(replace(ANY, store_s=0.05))
    world.ports = replace(world.ports, cache=cast("Any", Spied(world.ports.cache, **{method: trouble})))
    async with asyncio.timeout(60):
        assert await world.ask() == "a b c d"
        assert await world.ask("more") == "a b c d"
    assert world.calls == 2


async def test_a_store_that_is_away_is_not_asked_for_each_call() -> None:
    asked: list[str] = []

    async def get(key: str) -> Any:
        asked.append(key)
        raise ConnectionError("away")

    world = World()
    world.ports = replace(world.ports, cache=cast("Any", Spied(world.ports.cache, get=get)))
    for _ in range(5):
        await world.ask()
    assert len(asked) == 1


async def test_a_ledger_in_trouble_does_not_keep_a_hit_back() -> None:
    world = World()
    await world.ask()
    world.ports = replace(world.ports, ledger=cast("Any", Spied(world.ports.ledger, settle=fails)))
    assert await world.ask() == "a b c d"
    assert world.calls == 1


async def test_what_somebody_else_wrote_into_the_cache_is_a_miss() -> None:
    for spoiled in (b"", b"{", b"[]", b'{"format": 1}', b'{"format": 0, "message": {}}', b"\xff\xfe"):
        world = World()
        asked = world.answers.asked(world.paid, [HumanMessage("hi")], stop=None, kwargs={}, config=world.config())
        await world.ports.cache.put(asked.key, spoiled, ttl_s=60)
        assert await world.ask() == "a b c d"
        assert world.calls == 1


async def test_a_call_without_await_on_the_caches_own_loop_is_made_without_it() -> None:
    world = World()
    world.ports = replace(world.ports, loop=asyncio.get_running_loop())

    async def node(state: State) -> State:
        return {"said": str(world.model.invoke("hi").text)}

    builder: Any = StateGraph(State)
    graph = builder.add_node("speaker", node).add_edge(START, "speaker").add_edge("speaker", END).compile()
    config: Any = {"configurable": world.config()["configurable"]}
    assert (await graph.ainvoke({}, config))["said"] == "a b c d"
    assert await world.ask(how="invoke") == "a b c d"
    assert world.calls == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": True}, "ttl_s"),
        ({"jitter": 2}, "jitter"),
        ({"scope": "world"}, "scope"),
        ({"temperature": "low"}, "temperature"),
        ({"stale_s": -1}, "stale_s"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_rules_that_make_no_sense_name_what_is_wrong(settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CacheRules(**settings)
