"""A service offers less while it is in trouble, the same in all processes, and comes back step by step."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]: its checkpointer's type
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from scripted_targets import Scripted, Status
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.calls import CallSite
from waystation_guards.errors import AllTargetsFailed, InMaintenance
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Decision, FailoverPolicy
from waystation_guards.failover.targets import Target
from waystation_guards.levels.answers import Faq, RememberedAnswers, first_of
from waystation_guards.levels.levels import (
    Degradation,
    Level,
    LevelPolicy,
    LevelStanding,
    Rule,
    at_level,
    clear_level,
    current_level,
    set_level,
    worst,
)
from waystation_guards.levels.nodes import LevelState, answer_node, by_level, level_node
from waystation_guards.levels.signals import breakers_open, budget_spent, share, shared
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.middleware.levels import DegradationMiddleware, Offer
from waystation_guards.ports import BreakerRules, Ports, use_ports
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio

SITE = CallSite(user="ada")
ASKED: Any = {"messages": [HumanMessage("What are your opening hours?")]}


class World:
    """Ports on a clock that is turned by hand, a signal that is set by hand, and what was told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.value = 0.0
        self.told: list[tuple[Level, Level]] = []
        clock = self.clock
        self.ports = Ports(MemoryLedger(clock), MemoryState(clock), MemoryCache(clock=clock))
        use_ports(self.ports)

    def clock(self) -> float:
        return self.now

    def degradation(self, *rules: Rule, **members: Any) -> Degradation:
        async def load(_: Ports, __: CallSite) -> float:
            return self.value

        def on_level(before: LevelStanding, now: LevelStanding) -> None:
            self.told.append((before.level, now.level))

        policy = LevelPolicy(rules, hold_s=60, check_s=0.0, **members)
        return Degradation(policy, {"load": load}, on_level=on_level)

    async def level(self, degradation: Degradation) -> Level:
        return (await degradation.level(self.ports, SITE)).level

    async def set(self, level: Level, **members: Any) -> None:
        await set_level(self.ports, level, **members)


@pytest.fixture
def world() -> World:
    return World()


RULES = (Rule("load", "reduced", enter=10, leave=5), Rule("load", "minimal", enter=20, leave=15))


class TestRules:
    async def test_a_level_is_taken_up_at_once_and_left_with_hysteresis(self, world: World) -> None:
        degradation = world.degradation(*RULES)
        seen: list[tuple[float, Level]] = []
        for value in (0, 9, 10, 7, 5, 4):
            world.value = value
            seen.append((value, await world.level(degradation)))
            world.now += 59
        assert seen == [(0, "full"), (9, "full"), (10, "reduced"), (7, "reduced"), (5, "reduced"), (4, "reduced")]
        world.now += 2
        assert await world.level(degradation) == "full"
        world.value = 9
        assert await world.level(degradation) == "full"

    async def test_it_goes_back_step_by_step(self, world: World) -> None:
        degradation = world.degradation(*RULES)
        world.value = 25
        assert await world.level(degradation) == "minimal"
        world.value = 0
        world.now += 61
        assert await world.level(degradation) == "reduced"
        world.now += 60
        assert await world.level(degradation) == "full"
        assert world.told == [("full", "minimal"), ("minimal", "reduced"), ("reduced", "full")]

    async def test_a_value_that_swings_around_a_threshold_does_not_make_the_level_swing(self, world: World) -> None:
        degradation = world.degradation(*RULES)
        for step in range(40):
            world.value = 11 if step % 2 else 6
            await world.level(degradation)
            world.now += 30
        assert world.told == [("full", "reduced")]

    async def test_all_processes_have_the_level_that_one_of_them_found(self, world: World) -> None:
        one, other = world.degradation(*RULES), world.degradation()
        world.value = 12
        await world.level(one)
        assert await world.level(other) == "reduced"
        assert await current_level(world.ports) == LevelStanding("reduced", "rules", "load 12")

    async def test_callers_may_have_levels_of_their_own(self, world: World) -> None:
        degradation = world.degradation(*RULES, name="tenant:{tenant}")
        world.value = 12
        assert (await degradation.level(world.ports, CallSite(tenant="a"))).level == "reduced"
        world.value = 0
        assert (await degradation.level(world.ports, CallSite(tenant="b"))).level == "full"

    async def test_a_reading_is_good_for_its_time(self, world: World) -> None:
        degradation = Degradation(LevelPolicy(check_s=3600))
        assert await world.level(degradation) == "full"
        await world.set("minimal")
        assert await world.level(degradation) == "full"

    async def test_without_the_state_the_last_known_level_stands(self, world: World) -> None:
        degradation = world.degradation()
        await world.set("reduced")
        assert await world.level(degradation) == "reduced"

        async def away(*_: object) -> Any:
            raise ConnectionError("redis is away")

        state: Any = type("Away", (), {"read": away})()
        away_ports = Ports(world.ports.ledger, state, world.ports.cache)
        assert (await degradation.level(away_ports, SITE)).level == "reduced"

    async def test_a_signal_that_cannot_be_read_asks_for_nothing(self, world: World) -> None:
        async def broken(_: Ports, __: CallSite) -> float:
            raise ValueError("no such queue")

        degradation = Degradation(LevelPolicy((Rule("queue", "minimal", 1),), check_s=0), {"queue": broken})
        assert await world.level(degradation) == "full"


class TestOperators:
    async def test_an_operators_word_goes_over_the_rules_until_it_ends(self, world: World) -> None:
        degradation = world.degradation(*RULES)
        world.value = 25
        standing = await set_level(world.ports, "full", for_s=300, by="ada", reason="a false alarm")
        assert standing.until
        assert (await degradation.level(world.ports, SITE)) == standing
        world.now += 301
        assert await world.level(degradation) == "minimal"

    async def test_it_stands_until_it_is_cleared(self, world: World) -> None:
        await world.set("maintenance", by="ada")
        world.now += 1e6
        assert (await current_level(world.ports)).level == "maintenance"
        await clear_level(world.ports)
        assert await current_level(world.ports) == LevelStanding()

    @pytest.mark.parametrize(
        ("level", "for_s", "said"), [("off", None, "level is 'off'"), ("full", 0, "for_s is 0"), ("full", -1, "for_s")]
    )
    async def test_what_is_wrong_is_named(self, world: World, level: Any, for_s: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            await set_level(world.ports, level, for_s=for_s)


class TestSignals:
    async def test_open_breakers_lower_the_level_without_taking_their_probe(self, world: World) -> None:
        broken = Scripted(scripts=[[Status(503)]] * 4 + [["fine"]])
        rows: Any = {"overload": Decision()}
        policy = FailoverPolicy(breaker=BreakerRules(minimum=4, cooldown_s=30), decisions=rows)
        model = FailoverModel([Target(broken, name="a")], policy)
        signal = breakers_open("a", "b")
        for _ in range(4):
            with pytest.raises(AllTargetsFailed):
                await model.ainvoke("hi")
        assert await signal(world.ports, SITE) == 0.5
        world.now += 31
        assert await signal(world.ports, SITE) == 0.5
        assert (await model.ainvoke("hi")).text == "fine"
        assert await signal(world.ports, SITE) == 0.0

    async def test_a_budgets_standing_is_the_part_of_its_most_used_limit(self, world: World) -> None:
        budget = Budget(Limit(4, "model_calls", "user"), Limit(100, "model_calls", "tenant"))
        signal = budget_spent(budget)
        config = watched({"configurable": {"user_id": "ada"}}, [budget])
        for _ in range(3):
            await Scripted(scripts=[["fine"]]).ainvoke("hi", config)
        assert await signal(world.ports, SITE) == 0.75
        assert await signal(world.ports, CallSite(user="bob")) == 0.03

    async def test_a_shared_number_is_there_for_its_time(self, world: World) -> None:
        signal = shared("queue_age_s")
        assert await signal(world.ports, SITE) == 0
        await share(world.ports, "queue_age_s", 12.5, ttl_s=30)
        assert await signal(world.ports, SITE) == 12.5
        world.now += 31
        assert await signal(world.ports, SITE) == 0


class TestAsGuard:
    async def test_maintenance_lets_no_call_through_in_graphs_that_nobody_edited(self, world: World) -> None:
        model, degradation = Scripted(scripts=[["fine"]]), world.degradation()
        config = watched(None, [degradation])
        assert (await model.ainvoke("hi", config)).text == "fine"
        await world.set("maintenance", for_s=60)
        with pytest.raises(InMaintenance, match="in maintenance until"):
            await model.ainvoke("hi", config)
        assert len(model.asked) == 1


FAQ = Faq({"opening hours": "From 9 to 17 h.", "delivery cost": "4 euros."}, otherwise="Please call us.")


class TestAnswers:
    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("What are your OPENING hours?", "From 9 to 17 h."),
            ("delivery: what does it cost", "4 euros."),
            ("Who are you?", "Please call us."),
        ],
    )
    async def test_an_entry_answers_by_its_words(self, world: World, question: str, answer: str) -> None:
        assert await FAQ(world.ports, SITE, [HumanMessage(question)]) == answer

    async def test_what_one_user_was_answered_is_nobody_elses(self, world: World) -> None:
        remembered = RememberedAnswers()
        await remembered.remember(world.ports, SITE, [HumanMessage("my  Balance?")], "12 euros")
        asked = [HumanMessage("My balance?")]
        assert await remembered(world.ports, SITE, asked) == "12 euros"
        assert await remembered(world.ports, CallSite(user="bob"), asked) is None
        assert await first_of(remembered, FAQ)(world.ports, CallSite(user="bob"), asked) == "Please call us."


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


@tool
def buy(thing: str) -> str:
    """Buy."""
    return f"bought {thing}"


def calls(*made: tuple[str, str]) -> AIMessageChunk:
    parts: list[Any] = [
        {"name": name, "args": f'{{"{"query" if name == "search" else "thing"}": "{what}"}}', "id": what, "index": at}
        for at, (name, what) in enumerate(made)
    ]
    return AIMessageChunk(content="", tool_call_chunks=parts)


class TestMiddleware:
    @pytest.fixture(autouse=True, params=[True, False], ids=["async", "sync"])
    def _how(self, request: pytest.FixtureRequest) -> None:
        self.awaits = request.param

    async def run(self, agent: Any) -> Any:
        return await agent.ainvoke(ASKED) if self.awaits else agent.invoke(ASKED)

    async def test_a_reduced_service_has_a_cheaper_model_fewer_tools_and_no_fan_out(self, world: World) -> None:
        fan_out = calls(("search", "x"), ("search", "y"), ("buy", "z"))
        dear, cheap = Scripted(model="dear", scripts=[["dear"]]), Scripted(model="cheap", scripts=[[fan_out], ["ok"]])
        offers: Any = {"reduced": Offer(model=cheap, tools=["search"], tool_calls=1)}
        agent = create_agent(dear, [search, buy], middleware=[DegradationMiddleware(world.degradation(), offers)])
        await world.set("reduced")
        state = await self.run(agent)
        assert dear.asked == []
        assert cheap.tools == [["search"], ["search"]]
        done = {one.tool_call_id: (one.status, one.text) for one in state["messages"] if isinstance(one, ToolMessage)}
        assert done["x"] == ("success", "found x")
        assert [done[call][0] for call in "yz"] == ["error", "error"]
        assert state["level"] == "reduced"
        assert state["messages"][-1].response_metadata["level"] == "reduced"

    async def test_a_full_service_is_as_it_would_be_without(self, world: World) -> None:
        model = Scripted(scripts=[[calls(("search", "x"), ("buy", "z"))], ["ok"]])
        agent = create_agent(model, [search, buy], middleware=[DegradationMiddleware(world.degradation())])
        state = await self.run(agent)
        assert [one.text for one in state["messages"]][2:] == ["found x", "bought z", "ok"]
        assert "level" not in state["messages"][-1].response_metadata

    async def test_a_minimal_service_answers_without_a_model(self, world: World) -> None:
        model, remembered = Scripted(scripts=[["From 9."]]), RememberedAnswers()
        middleware = DegradationMiddleware(world.degradation(), remembered=remembered)
        agent = create_agent(model, middleware=[middleware])
        await self.run(agent)
        await world.set("minimal")
        assert (await self.run(agent))["messages"][-1].text == "From 9."
        agent = create_agent(
            model, middleware=[DegradationMiddleware(world.degradation(), {"minimal": Offer(answers=FAQ)})]
        )
        assert (await self.run(agent))["messages"][-1].text == "From 9 to 17 h."
        assert len(model.asked) == 1

    async def test_maintenance_refuses_or_says_what_is_offered(self, world: World) -> None:
        model = Scripted(scripts=[["no"]])
        await world.set("maintenance")
        with pytest.raises(InMaintenance):
            await self.run(create_agent(model, middleware=[DegradationMiddleware(world.degradation())]))
        closed: Any = {"maintenance": Offer(answers=Faq({}, otherwise="Back at noon."))}
        agent = create_agent(model, middleware=[DegradationMiddleware(world.degradation(), closed)])
        assert (await self.run(agent))["messages"][-1].text == "Back at noon."
        assert model.asked == []

    async def test_a_change_is_in_the_graphs_stream_and_the_log(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent: Any = create_agent(Scripted(scripts=[["ok"]]), middleware=[DegradationMiddleware(world.degradation())])
        await world.set("reduced", by="ada", reason="costs")
        if self.awaits:
            events = [event async for event in agent.astream(ASKED, stream_mode="custom")]
        else:
            events = list(agent.stream(ASKED, stream_mode="custom"))
        (event,) = events
        assert (event["guard"], event["level"], event["by"], event["reason"]) == ("level", "reduced", "ada", "costs")
        assert "the level changed" in [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]

    def test_an_offer_for_no_level_is_refused(self, world: World) -> None:
        offers: Any = {"full": Offer()}
        with pytest.raises(ValueError, match="an offer is for 'full'"):
            DegradationMiddleware(world.degradation(), offers)


class TestNodes:
    def graph(self, degradation: Degradation, **routes: str) -> Any:
        class State(MessagesState, LevelState):
            pass

        def agent(_: State) -> Any:
            return {"messages": [AIMessage("from the model")]}

        nodes: Any = {"full": "agent", **routes}
        builder: Any = StateGraph(State)
        builder.add_node("level", level_node(degradation)).add_edge(START, "level")
        builder.add_node("agent", agent).add_edge("agent", END)
        builder.add_node("faq", answer_node(FAQ)).add_edge("faq", END)
        builder.add_conditional_edges("level", by_level(degradation, nodes), ["agent", "faq"])
        return builder.compile()

    @pytest.mark.parametrize(
        ("level", "said"),
        [("full", "from the model"), ("reduced", "from the model"), ("minimal", "From 9 to 17 h.")],
    )
    async def test_the_level_routes(self, world: World, level: Level, said: str) -> None:
        graph = self.graph(world.degradation(), minimal="faq")
        await world.set(level)
        for state in (await graph.ainvoke(ASKED), graph.invoke(ASKED)):
            assert (state["level"], state["messages"][-1].text) == (level, said)

    async def test_maintenance_needs_a_route_of_its_own(self, world: World) -> None:
        await world.set("maintenance")
        with pytest.raises(InMaintenance):
            await self.graph(world.degradation(), minimal="faq").ainvoke(ASKED)
        graph = self.graph(world.degradation(), maintenance="faq")
        assert (await graph.ainvoke(ASKED))["messages"][-1].text == "From 9 to 17 h."
        with pytest.raises(ValueError, match="none for 'full'"):
            by_level(world.degradation(), {"minimal": "faq"})


class TestSettings:
    def test_levels_are_in_order(self) -> None:
        assert worst() == "full"
        assert worst("reduced", "maintenance", "minimal") == "maintenance"
        assert at_level({"full": 1, "reduced": 2}, "minimal") == 2
        assert at_level({"minimal": 1}, "reduced") is None

    def test_a_policy_comes_from_plain_values(self) -> None:
        rule = {"signal": "load", "level": "reduced", "enter": 3}
        made = LevelPolicy.from_mapping({"rules": [rule], "hold_s": 5})
        assert made == LevelPolicy((Rule("load", "reduced", 3),), hold_s=5)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"rule": []}, "levels.rule is unknown"),
            ({"rules": [{"signal": "load"}]}, r"levels.rules\[0\]"),
            ({"rules": [{"signal": "load", "level": "off", "enter": 1}]}, "level of a rule is 'off'"),
            ({"rules": [{"signal": "load", "level": "full", "enter": 1}]}, "level of a rule is 'full'"),
            ({"rules": [{"signal": "x", "level": "minimal", "enter": 1, "leave": 2}]}, "leave of a rule is 2"),
            ({"name": "{nobody}"}, "name of levels is '{nobody}'"),
        ],
    )
    def test_what_is_wrong_is_named(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            LevelPolicy.from_mapping(given)

    def test_a_rule_about_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="signal of a rule is 'load'; expected is one of none"):
            Degradation(LevelPolicy((Rule("load", "reduced", 1),)))
