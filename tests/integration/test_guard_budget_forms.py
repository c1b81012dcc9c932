"""What happens at a budget's limit, in agents and in plain graphs, with the ledger in memory and in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypedDict, cast
from uuid import uuid4

import pytest
from langchain import agents
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from scripted_calls import AgentModel, ScriptedModel
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.budget.alerts import EVENT_TYPE, Alert
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.degrading import degrading
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.errors import BudgetExceeded
from waystation_guards.guarded.graph import guarded
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.budget import BudgetMiddleware
from waystation_guards.ports import Ports

pytestmark = pytest.mark.anyio

# A call of the scripted models is 1 $: 4 tokens out at 0.25 $; of the cheap one a tenth.
PRICES = Prices({"scripted": Rates(Decimal(0), Decimal(250_000)), "cheap": Rates(Decimal(0), Decimal(25_000))})
HI: Any = {"messages": [("user", "hi")]}
STOP = "I have to stop here: the budget of"


@pytest.fixture(scope="module")
def shared_database(make_database: Callable[[], str]) -> str:
    """Each test is a tenant of its own."""
    return make_database()


@pytest.fixture(params=["memory", "postgres"])
def database(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue("shared_database")


@pytest.fixture
async def ports(database: str | None) -> AsyncIterator[Ports]:
    if database is None:
        yield replace(memory_ports(), tenant="acme")
        return
    async with Database(database, name="guards", max_size=2) as db:
        stores = guard_stores(db, answer_s=20)
        yield stores.ports_for(str(uuid4()))
        await stores.close()


def ada(ports: Ports) -> CallSite:
    return CallSite(tenant=ports.tenant, user="ada", thread="t")


create_agent = cast("Any", agents).create_agent


@tool
def look() -> str:
    """Look around."""
    return "a wall"


def config_of(ports: Ports, thread: str = "t", **more: Any) -> Any:
    ids = {"thread_id": thread, "langgraph_auth_user_id": "ada"}
    return {"configurable": {**ids, PORTS_KEY: ports, **more}}


def budget_of(*limits: Limit, **options: Any) -> Budget:
    return Budget(*limits, prices=PRICES, wait_s=1.0, **options)


def agent_of(budget: Budget, model: AgentModel | None = None, **options: Any) -> Any:
    cheaper = options.pop("cheaper", None)
    return create_agent(
        model or AgentModel(), [look], middleware=[BudgetMiddleware(budget, cheaper=cheaper)], **options
    )


async def run(graph: Any, how: str, given: Any, config: Any) -> Any:
    """The state at the end."""
    match how:
        case "invoke":
            return await asyncio.to_thread(graph.invoke, given, config)
        case "stream":
            return (await asyncio.to_thread(lambda: [*graph.stream(given, config, stream_mode="values")]))[-1]
        case "ainvoke":
            return await graph.ainvoke(given, config)
        case _:
            return [part async for part in graph.astream(given, config, stream_mode="values")][-1]


HOW = pytest.mark.parametrize("how", ["ainvoke", "astream", "invoke", "stream"])


def is_whole(messages: list[AnyMessage]) -> bool:
    """Whether every tool call is answered, as providers demand of the next turn."""
    asked = {call["id"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls}
    return asked == {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}


async def spent(ports: Ports, budget: Budget) -> list[float]:
    return [one.spent for one in await budget.standing(ports, ada(ports))]


class TestAgents:
    @HOW
    async def test_raise_lets_the_refusal_out(self, ports: Ports, how: str) -> None:
        model = AgentModel()
        agent = agent_of(budget_of(Limit(1, unit="model_calls", scope="user")), model)
        with pytest.raises(BudgetExceeded, match="1 model calls per user is spent"):
            await run(agent, how, HI, config_of(ports))
        assert len(model.calls) == 1

    @HOW
    async def test_end_lets_the_agent_say_so(self, ports: Ports, how: str) -> None:
        model = AgentModel()
        agent = agent_of(budget_of(Limit(1, unit="model_calls", scope="user", on_limit="end")), model)
        state = await run(agent, how, HI, config_of(ports))
        assert state["messages"][-1].text.startswith(STOP)
        assert state["messages"][-1].response_metadata["guard"]["code"] == "budget_exceeded"
        assert is_whole(state["messages"])
        assert len(model.calls) == 1

    async def test_the_last_message_is_streamed_like_any_other(self, ports: Ports) -> None:
        agent = agent_of(budget_of(Limit(1, unit="model_calls", scope="user", on_limit="end")))
        parts = [part async for part in agent.astream(HI, config_of(ports), stream_mode=["messages", "updates"])]
        assert any(mode == "messages" and data[0].text.startswith(STOP) for mode, data in parts)
        assert parts[-1][0] == "updates"

    @pytest.mark.parametrize("how", ["ainvoke", "invoke"])
    async def test_end_at_a_tool_answers_the_others_first(self, ports: Ports, how: str) -> None:
        model = AgentModel(at_once=3, rounds=2)
        budget = budget_of(Limit(2, unit="tool_calls", scope="user", on_limit="end"))
        state = await run(agent_of(budget, model), how, HI, config_of(ports))
        answers = [message for message in state["messages"] if isinstance(message, ToolMessage)]
        assert sorted(message.status for message in answers) == ["error", "success", "success"]
        assert state["messages"][-1].text.startswith(STOP)
        assert is_whole(state["messages"])
        assert len(model.calls) == 1
        assert await spent(ports, budget) == [2]

    async def test_each_run_has_its_budget_also_where_runs_have_no_ids(self, ports: Ports) -> None:
        budget = budget_of(Limit(2, unit="model_calls", scope="run", on_limit="end"))
        agent = agent_of(budget, AgentModel(rounds=1), checkpointer=InMemorySaver())
        first = await agent.ainvoke(HI, config_of(ports))
        assert first["messages"][-1].text == "a b c d"
        second = await agent.ainvoke(HI, config_of(ports))
        assert second["messages"][-1].text == "a b c d"
        long = agent_of(budget, AgentModel(rounds=5))
        assert (await long.ainvoke(HI, config_of(ports)))["messages"][-1].text.startswith(STOP)

    @HOW
    async def test_interrupt_asks_a_human_and_goes_on_with_what_is_granted(self, ports: Ports, how: str) -> None:
        budget = budget_of(Limit(1.5, scope="user", window="day", on_limit="interrupt"))
        model, saver = AgentModel(rounds=2), InMemorySaver()
        agent = agent_of(budget, model, checkpointer=saver)
        asked = await run(agent, how, HI, config_of(ports))
        question = asked["__interrupt__"][0].value
        assert (question["type"], question["spent"], question["size"]) == ("waystation.budget", 1.0, 1.5)
        assert len(model.calls) == 1
        # Another process goes on with it: all it has is the checkpoint and the ledger.
        again = agent_of(budget_of(*budget.limits), model, checkpointer=saver)
        state = await run(again, how, Command(resume={"grant": 5}), config_of(ports))
        assert state["messages"][-1].text == "a b c d"
        assert len(model.calls) == 3
        assert await spent(ports, budget) == [3 - 5]

    @pytest.mark.parametrize("answer", [{"refuse": True}, False, None, "as you like", {"grant": -1}, {"grant": "5"}])
    async def test_a_refusal_ends_the_run_and_grants_nothing(self, ports: Ports, answer: Any) -> None:
        budget = budget_of(Limit(1.5, scope="user", on_limit="interrupt"))
        model = AgentModel()
        agent = agent_of(budget, model, checkpointer=InMemorySaver())
        config = config_of(ports)
        await agent.ainvoke(HI, config)
        (pending,) = (await agent.aget_state(config)).interrupts
        state = await agent.ainvoke(Command(resume={pending.id: answer}), config)
        assert "no more was granted" in state["messages"][-1].text
        assert len(model.calls) == 1
        assert await spent(ports, budget) == [1.0]

    async def test_only_a_role_that_may_grant_grants(self, ports: Ports) -> None:
        budget = budget_of(Limit(1.5, scope="user", on_limit="interrupt", grant_by=("accountant",)))
        for roles, ends in ((("user",), "no more was granted (only accountant may grant it)"), (("accountant",), "")):
            agent = agent_of(budget, AgentModel(), checkpointer=InMemorySaver())
            config = config_of(ports, langgraph_auth_permissions=roles)
            await agent.ainvoke(HI, config)
            state = await agent.ainvoke(Command(resume={"grant": 3}), config)
            assert ends in state["messages"][-1].text
            await budget.grant(ports, ada(ports), budget.limits[0], 1)

    async def test_too_little_granted_is_asked_for_again(self, ports: Ports) -> None:
        budget = budget_of(Limit(1.5, scope="user", on_limit="interrupt"))
        agent = agent_of(budget, AgentModel(), checkpointer=InMemorySaver())
        config = config_of(ports)
        await agent.ainvoke(HI, config)
        asked = await agent.ainvoke(Command(resume={"grant": 0.1}), config)
        assert asked["__interrupt__"]
        state = await agent.ainvoke(Command(resume={"grant": 2}), config)
        assert state["messages"][-1].text == "a b c d"
        assert await spent(ports, budget) == pytest.approx([2 - 2.1])

    async def test_without_a_checkpointer_nobody_can_be_asked(self, ports: Ports) -> None:
        agent = agent_of(budget_of(Limit(1.5, scope="user", on_limit="interrupt")))
        with pytest.raises(BudgetExceeded):
            await agent.ainvoke(HI, config_of(ports))

    @HOW
    async def test_degrade_calls_the_cheaper_model_inside_the_budget(self, ports: Ports, how: str) -> None:
        budget = budget_of(Limit(3, scope="user", on_limit="degrade", degrade_at=0.5))
        model, cheap = AgentModel(rounds=3), AgentModel(rounds=3, model="cheap")
        agent = agent_of(budget, model, cheaper=cheap)
        state = await run(agent, how, HI, config_of(ports))
        assert state["messages"][-1].text == "a b c d"
        assert (len(model.calls), len(cheap.calls)) == (1, 3)
        assert await spent(ports, budget) == pytest.approx([1.3])

    async def test_the_cheaper_model_stops_at_the_whole_limit(self, ports: Ports) -> None:
        budget = budget_of(Limit(1.5, scope="user", on_limit="degrade", degrade_at=0.9))
        cheap = AgentModel(rounds=90, model="cheap")
        agent = agent_of(budget, AgentModel(rounds=90), cheaper=cheap)
        with pytest.raises(BudgetExceeded, match=r"1\.5 \$ per user"):
            await agent.ainvoke(HI, config_of(ports))
        assert 2 <= len(cheap.calls) <= 5
        assert (await spent(ports, budget))[0] <= 1.5

    async def test_a_harder_limit_goes_before_one_that_degrades(self, ports: Ports) -> None:
        soft, hard = (
            Limit(1.5, scope="user", on_limit="degrade", degrade_at=0.5),
            Limit(1.5, scope="user", on_limit="end"),
        )
        agent = agent_of(budget_of(soft, hard), AgentModel(rounds=90), cheaper=AgentModel(rounds=90, model="cheap"))
        state = await agent.ainvoke(HI, config_of(ports))
        assert state["messages"][-1].text.startswith(STOP)

    def test_a_limit_that_degrades_needs_a_cheaper_model(self) -> None:
        with pytest.raises(ValueError, match="cheaper"):
            BudgetMiddleware(budget_of(Limit(1, on_limit="degrade")))

    async def test_a_cancelled_agent_pays_for_its_open_call_and_holds_nothing(self, ports: Ports) -> None:
        budget = budget_of(Limit(100, unit="tokens", scope="user"))
        agent = agent_of(budget, AgentModel(pause_s=60))
        task = asyncio.create_task(agent.ainvoke(HI, config_of(ports)))
        async with asyncio.timeout(60):
            while not (await budget.standing(ports, ada(ports)))[0].held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        (standing,) = await budget.standing(ports, ada(ports))
        assert standing.held == 0
        assert standing.spent > 0


class TestOneCallOfSeveralBudgets:
    async def test_a_policy_and_middleware_on_one_account_count_a_call_once(self, ports: Ports) -> None:
        alerts: list[Alert] = []
        policy = budget_of(Limit(10, scope="user", window="day", alerts=(0.1,)), on_alert=alerts.append)
        own = budget_of(Limit(5, scope="user", window="day", alerts=(0.2,)), on_alert=alerts.append)
        model = AgentModel()
        await guarded(agent_of(own, model), [policy]).ainvoke(HI, config_of(ports))
        assert len(model.calls) == 2
        assert await spent(ports, policy) == await spent(ports, own) == [2.0]
        (standing,) = await policy.standing(ports, ada(ports))
        assert standing.held == 0
        assert sorted(alert.limit.size for alert in alerts) == [5, 10]

    @pytest.mark.parametrize(("outer", "inner"), [(100, 1.5), (1.5, 100)])
    async def test_both_limits_hold(self, ports: Ports, outer: float, inner: float) -> None:
        policy, own = budget_of(Limit(outer, scope="user")), budget_of(Limit(inner, scope="user"))
        model = AgentModel()
        with pytest.raises(BudgetExceeded, match=r"1\.5 \$ per user is spent"):
            await guarded(agent_of(own, model), [policy]).ainvoke(HI, config_of(ports))
        assert len(model.calls) == 1
        (standing,) = await policy.standing(ports, ada(ports))
        assert (standing.spent, standing.held) == (1.0, 0)

    async def test_the_outer_budget_is_asked_first(self, ports: Ports) -> None:
        policy = budget_of(Limit(0, unit="model_calls", scope="user", name="policy"))
        own = budget_of(Limit(0, unit="model_calls", scope="user", name="own", on_limit="end"))
        with pytest.raises(BudgetExceeded) as refused:
            await guarded(agent_of(own), [policy]).ainvoke(HI, config_of(ports))
        assert refused.value.limit.name == "policy"

    async def test_parallel_calls_under_two_budgets_lock_nobody_out(self, ports: Ports) -> None:
        policy, own = budget_of(Limit(10.9, scope="user")), budget_of(Limit(10.5, scope="user"))
        graph = guarded(agent_of(own, AgentModel(rounds=0)), [policy])
        outcomes = await asyncio.gather(
            *(graph.ainvoke(HI, config_of(ports, thread=str(n))) for n in range(20)), return_exceptions=True
        )
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 10
        assert await spent(ports, policy) == [10.0]


def speaking(model: Any, *, blocking: bool = False, checkpointer: Any = None) -> Any:
    async def speak(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], max_tokens=4)]}

    def speak_in_a_thread(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"], max_tokens=4)]}

    builder: Any = StateGraph(MessagesState)
    for name in ("one", "two"):
        builder.add_node(name, speak_in_a_thread if blocking else speak)
    builder.add_edge(START, "one").add_edge("one", "two").add_edge("two", END)
    return builder.compile(checkpointer=checkpointer)


class TestPlainGraphs:
    @HOW
    async def test_end_is_a_message_of_the_node_that_was_refused(self, ports: Ports, how: str) -> None:
        model = ScriptedModel()
        budget = budget_of(Limit(0, unit="model_calls", scope="user", on_limit="end"))
        graph = guarded(speaking(model, blocking=how in ("invoke", "stream"), checkpointer=InMemorySaver()), [budget])
        state = await run(graph, how, HI, config_of(ports))
        assert [message.type for message in state["messages"]] == ["human", "ai"]
        assert state["messages"][-1].text.startswith(STOP)
        assert model.calls == []
        # Nothing is left to run: the thread goes on with its next input.
        assert (await graph.aget_state(config_of(ports))).next == ()
        state = await run(graph, how, HI, config_of(ports))
        assert [message.type for message in state["messages"]] == ["human", "ai", "human", "ai"]

    async def test_parallel_nodes_that_are_refused_say_so_once(self, ports: Ports) -> None:
        model = ScriptedModel()

        async def speak(state: MessagesState) -> Any:
            return {"messages": [await model.ainvoke(state["messages"], max_tokens=4)]}

        builder: Any = StateGraph(MessagesState)
        for name in ("one", "two", "three"):
            builder.add_node(name, speak).add_edge(START, name)
        budget = budget_of(Limit(0, unit="model_calls", scope="user", on_limit="end"))
        state = await guarded(builder.compile(), [budget]).ainvoke(HI, config_of(ports))
        assert [message.type for message in state["messages"]] == ["human", "ai"]

    async def test_an_agent_without_middleware_answers_its_tool_calls_before_it_ends(self, ports: Ports) -> None:
        budget = budget_of(Limit(0, unit="tool_calls", scope="user", on_limit="end"))
        agent = guarded(create_agent(AgentModel(at_once=2), [look]), [budget])
        state = await agent.ainvoke(HI, config_of(ports))
        assert is_whole(state["messages"])
        assert [message for message in state["messages"] if message.text.startswith(STOP)]

    async def test_without_messages_an_end_is_an_error(self, ports: Ports) -> None:
        class Words(TypedDict, total=False):
            said: str

        async def speak(_: Words) -> Words:
            return {"said": str((await ScriptedModel().ainvoke("hi")).content)}

        builder: Any = StateGraph(Words)
        builder.add_node("speak", speak).add_edge(START, "speak")
        budget = budget_of(Limit(0, unit="model_calls", scope="user", on_limit="end"))
        with pytest.raises(BudgetExceeded):
            await guarded(builder.compile(), [budget]).ainvoke({}, config_of(ports))

    async def test_errors_of_nodes_stay_errors(self, ports: Ports) -> None:
        budget = budget_of(Limit(5, scope="user", on_limit="end"))
        with pytest.raises(ValueError, match="no"):
            await guarded(speaking(ScriptedModel(fails=True)), [budget]).ainvoke(HI, config_of(ports))

    @pytest.mark.parametrize("blocking", [False, True])
    async def test_interrupt_asks_in_the_node_and_keeps_the_nodes_own_questions_apart(
        self, ports: Ports, blocking: bool
    ) -> None:
        model, saver = ScriptedModel(), InMemorySaver()

        def answer(state: MessagesState) -> Any:
            said = model.invoke(state["messages"], max_tokens=4).text
            return {"messages": [AIMessage(f"{said}, {interrupt('sure?')}, {interrupt('really?')}")]}

        async def answer_awaited(state: MessagesState) -> Any:
            said = (await model.ainvoke(state["messages"], max_tokens=4)).text
            return {"messages": [AIMessage(f"{said}, {interrupt('sure?')}, {interrupt('really?')}")]}

        builder: Any = StateGraph(MessagesState)
        builder.add_node("answer", answer if blocking else answer_awaited).add_edge(START, "answer")
        budget = budget_of(Limit(0.5, scope="user", on_limit="interrupt"))
        graph = guarded(builder.compile(checkpointer=saver), [budget])
        config = config_of(ports)
        asked = await graph.ainvoke(HI, config)
        assert asked["__interrupt__"][0].value["left"] == 0.5
        asked = await graph.ainvoke(Command(resume={"grant": 10}), config)
        assert asked["__interrupt__"][0].value == "sure?"
        asked = await graph.ainvoke(Command(resume="yes"), config)
        assert asked["__interrupt__"][0].value == "really?"
        state = await graph.ainvoke(Command(resume="indeed"), config)
        assert state["messages"][-1].text == "a b c d, yes, indeed"
        assert await spent(ports, budget) == [3 - 10]

    @HOW
    async def test_degrading_models_call_the_cheaper_one(self, ports: Ports, how: str) -> None:
        model, cheap = ScriptedModel(), ScriptedModel(model="cheap")
        budget = budget_of(Limit(3, scope="user", on_limit="degrade", degrade_at=0.5))
        graph = guarded(speaking(degrading(model, cheap), blocking=how in ("invoke", "stream")), [budget])
        state = await run(graph, how, HI, config_of(ports))
        assert [message.text for message in state["messages"]] == ["hi", "a b c d", "a b c d"]
        assert (len(model.calls), len(cheap.calls)) == (1, 1)
        assert await spent(ports, budget) == pytest.approx([1.1])

    async def test_a_subgraph_that_is_refused_ends_the_guarded_graph(self, ports: Ports) -> None:
        builder: Any = StateGraph(MessagesState)
        builder.add_node("talk", speaking(ScriptedModel())).add_edge(START, "talk").add_edge("talk", END)
        budget = budget_of(Limit(1, unit="model_calls", scope="user", on_limit="end"))
        state = await guarded(builder.compile(), [budget]).ainvoke(HI, config_of(ports))
        assert state["messages"][-1].text.startswith(STOP)


class TestAlerts:
    async def test_over_several_budgets_each_part_is_told_once(self, ports: Ports) -> None:
        told: list[float] = []

        def tell(alert: Alert) -> None:
            told.append(alert.part)

        budgets = [budget_of(Limit(8, scope="tenant"), on_alert=tell) for _ in range(4)]
        graphs = [guarded(speaking(ScriptedModel()), [budget]) for budget in budgets]
        await asyncio.gather(*(graph.ainvoke(HI, config_of(ports)) for graph in graphs))
        assert sorted(told) == [0.5, 0.75, 0.9, 1.0]

    async def test_the_client_of_the_run_sees_it_in_the_custom_stream(self, ports: Ports) -> None:
        graph = guarded(speaking(ScriptedModel()), [budget_of(Limit(4, scope="user", alerts=(0.25,)))])
        events = [event async for event in graph.astream(HI, config_of(ports), stream_mode="custom")]
        assert [event["type"] for event in events] == [EVENT_TYPE]
        assert (events[0]["part"], events[0]["size"], events[0]["scope"]) == (0.25, 4, "user")

    async def test_the_ports_hook_hears_of_every_budget_and_trouble_of_hooks_does_no_harm(self, ports: Ports) -> None:
        told: list[Alert] = []

        async def hook(alert: Alert) -> None:
            await asyncio.sleep(0)
            told.append(alert)

        def broken(alert: Alert) -> None:
            raise RuntimeError("no")

        bound = replace(ports, on_alert=hook)
        budget = budget_of(Limit(2, scope="user", alerts=(0.5,)), on_alert=broken)
        state = await guarded(speaking(ScriptedModel()), [budget]).ainvoke(HI, config_of(bound))
        assert state["messages"][-1].text == "a b c d"
        ((alert,), owner) = told, told[0].owner
        assert (alert.part, owner, alert.budget) == (0.5, "ada", budget.name)


class TestSelfTest:
    async def test_where_all_is_well_there_is_nothing_to_say(self, ports: Ports) -> None:
        budget = Budget(Limit(5, scope="user", window="month", timezone="Asia/Kolkata"))
        assert await budget.self_test(ports, models=["openai:gpt-4o-mini", "gpt-4o"]) == []

    async def test_a_model_without_a_price_is_named(self, ports: Ports) -> None:
        (problem,) = await Budget(Limit(5)).self_test(ports, models=["ours"])
        assert problem.startswith("ours has no price")
        assert await Budget(Limit(5, unpriced="flag")).self_test(ports, models=["ours"]) == []


def test_the_test_models_cost_what_the_tests_say() -> None:
    usage = {"input_tokens": 3, "output_tokens": 4}
    price, cheap = PRICES.cost("scripted", usage), PRICES.cost("cheap", usage)
    assert price is not None
    assert cheap is not None
    assert (price.nano_usd, cheap.nano_usd) == (1_000_000_000, 100_000_000)
