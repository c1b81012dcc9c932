"""Permissions at work: in agents (middleware), in tool nodes, and in graphs nobody edited (callbacks)."""

from __future__ import annotations

from typing import Any, cast

import pytest
from langchain import agents
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from waystation_guards.audit.memory import MemoryAuditLog
from waystation_guards.calls import PORTS_KEY
from waystation_guards.errors import NotPermitted
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.permissions import PermissionsMiddleware
from waystation_guards.permissions.arguments import ArgumentRule
from waystation_guards.permissions.node import PermittedToolNode
from waystation_guards.permissions.permissions import Permissions, ToolGuard, ToolRule
from waystation_guards.ports import Ports
from waystation_guards.watching.watcher import watched

create_agent = cast("Any", agents).create_agent  # its parameters have types that are not whole

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:.*allowed_objects")]

PERMISSIONS = Permissions(
    ToolRule(("refund",), roles=("service",), arguments=(ArgumentRule("amount", maximum=1000),)),
    ToolRule(
        ("refund",), "approve", roles=("service",), arguments=(ArgumentRule("amount", minimum=100, maximum=1000),)
    ),
    ToolRule(("search",)),
)


class World:
    """A program with two tools, what they were called with, and an audit log."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.log = MemoryAuditLog()
        memory = memory_ports()
        self.ports = Ports(memory.ledger, memory.state, memory.cache, audit=self.log)

        @tool
        def refund(amount: int) -> str:
            """Give money back."""
            self.done.append(("refund", amount))
            return f"refunded {amount}"

        @tool
        def search(query: str) -> str:
            """Search."""
            self.done.append(("search", query))
            return "found"

        self.tools = [refund, search]

    def config(self, *roles: str) -> Any:
        return {
            "configurable": {
                "thread_id": "t",
                "langgraph_auth_permissions": [f"role:{role}" for role in roles],
                PORTS_KEY: self.ports,
            }
        }

    def agent(self, *calls: tuple[str, dict[str, Any]], **options: Any) -> Any:
        self.model = Shown(messages=iter([turn(*calls), AIMessage("done")]), shown=[])
        middleware = PermissionsMiddleware(PERMISSIONS, **options)
        return create_agent(self.model, self.tools, middleware=[middleware], checkpointer=InMemorySaver())

    def graph(self, node: Any, *calls: tuple[str, dict[str, Any]]) -> Any:
        builder: Any = StateGraph(MessagesState)

        def model(state: MessagesState) -> Any:
            return {"messages": [turn(*calls)]}

        builder.add_node("model", model)
        builder.add_node("tools", node)
        return (
            builder.add_edge(START, "model")
            .add_edge("model", "tools")
            .add_edge("tools", END)
            .compile(checkpointer=InMemorySaver())
        )

    async def audited(self) -> list[tuple[str, str]]:
        return [(one.members["action"], one.members["tool"]) async for one in self.log.read("default")]


class Shown(GenericFakeChatModel):
    """Remembers which tools it was shown."""

    shown: list[list[str]]

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        self.shown.append([one.name for one in tools])
        return self


def turn(*calls: tuple[str, dict[str, Any]]) -> AIMessage:
    named = [{"name": name, "args": args, "id": f"call-{n}"} for n, (name, args) in enumerate(calls)]
    return AIMessage("", tool_calls=cast("Any", named))


def told(state: Any) -> list[str]:
    return [str(one.content) for one in state["messages"] if isinstance(one, ToolMessage)]


def decide(*decisions: dict[str, Any]) -> Any:
    return Command(resume={"decisions": list(decisions)})


ASK: Any = {"messages": [("user", "hi")]}
APPROVE = {"type": "approve"}


async def test_an_agent_is_not_shown_what_its_caller_may_not_call_and_is_told_where_it_calls_it_all_the_same() -> None:
    world = World()
    state = await world.agent(("refund", {"amount": 5})).ainvoke(ASK, world.config("user"))
    assert world.model.shown[0] == ["search"]
    assert told(state) == ["refund was refused: refund is not allowed for your role"]
    assert state["messages"][-1].content == "done"
    assert world.done == []
    assert await world.audited() == [("tool.refused", "refund")]


def test_a_refusal_raises_where_that_is_asked_for_and_in_sync_agents() -> None:
    world = World()
    with pytest.raises(NotPermitted, match="amount: at most 1000"):
        world.agent(("refund", {"amount": 5000}), on_refusal="raise").invoke(ASK, world.config("service"))


@pytest.mark.parametrize(
    ("decision", "done", "says"),
    [
        (APPROVE, [("refund", 200)], "refunded 200"),
        ({"type": "reject", "message": "no"}, [], "with reason: no"),
        (
            {"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 150}}},
            [("refund", 150)],
            "refunded 150",
        ),
        (
            {"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 9000}}},
            [],
            "refused: refund is allowed",
        ),
    ],
)
async def test_an_agent_asks_in_langchains_form(decision: Any, done: Any, says: str) -> None:
    world = World()
    agent, config = world.agent(("refund", {"amount": 200}), ("refund", {"amount": 7})), world.config("service")
    state = await agent.ainvoke(ASK, config)
    (question,) = state["__interrupt__"]
    (action,), (review,) = question.value["action_requests"], question.value["review_configs"]
    assert (action["name"], action["args"]) == ("refund", {"amount": 200})
    assert "refund needs approval" in action["description"]
    assert review == {"action_name": "refund", "allowed_decisions": ["approve", "edit", "reject"]}
    assert world.done == []
    state = await agent.ainvoke(decide(decision), config)
    assert [one for one in world.done if one[1] != 7] == done
    assert ("refund", 7) in world.done
    assert any(says in text for text in told(state))


async def test_an_agent_asks_about_each_call_by_itself_where_it_is_told_to() -> None:
    world = World()
    calls = (("refund", {"amount": 200}), ("refund", {"amount": 300}))
    agent, config = world.agent(*calls, interrupt_mode="per_call"), world.config("service")
    state = await agent.ainvoke(ASK, config)
    answers = {
        one.id: APPROVE if one.value["args"]["amount"] == 300 else {"type": "reject"} for one in state["__interrupt__"]
    }
    assert len(answers) == 2
    await agent.ainvoke(Command(resume=answers), config)
    assert world.done == [("refund", 300)]


async def test_a_call_that_nobody_approved_is_not_made_where_another_middleware_exchanges_it() -> None:
    from langchain.agents.middleware import AgentMiddleware

    class Exchanges(AgentMiddleware[Any, Any, Any]):
        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            call = request.tool_call
            return await handler(request.override(tool_call={**call, "args": {"amount": 999}}))

    world = World()
    model = Shown(messages=iter([turn(("refund", {"amount": 5})), AIMessage("done")]), shown=[])
    middleware: Any = [Exchanges(), PermissionsMiddleware(PERMISSIONS)]
    state = await create_agent(model, world.tools, middleware=middleware).ainvoke(ASK, world.config("service"))
    assert told(state) == ["refund was refused: refund needs approval, and nobody approved this call"]
    assert world.done == []


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_tool_node_asks_about_all_calls_before_it_makes_any(blocking: bool) -> None:
    world = World()
    calls: Any = (("refund", {"amount": 200}), ("search", {"query": "x"}), ("refund", {"amount": 300}), ("rm", {}))
    graph, config = world.graph(PermittedToolNode(world.tools, PERMISSIONS), *calls), world.config("service")

    async def go(given: Any) -> Any:
        return graph.invoke(given, config) if blocking else await graph.ainvoke(given, config)

    (question,) = (await go(ASK))["__interrupt__"]
    assert [one["args"]["amount"] for one in question.value["action_requests"]] == [200, 300]
    assert world.done == []
    edited = {"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 250}}}
    state = await go(decide(edited, {"type": "reject", "message": "twice"}))
    assert sorted(world.done, key=str) == [("refund", 250), ("search", "x")]
    assert told(state)[2:] == [
        "refund was rejected: twice",
        "rm was refused: rm is not among the tools that are allowed",
    ]
    assert sorted(await world.audited()) == [("tool.refused", "rm"), ("tool.rejected", "refund")]


async def test_a_tool_node_takes_no_decision_that_it_did_not_offer_and_can_be_answered_again() -> None:
    world = World()
    node = PermittedToolNode(world.tools, PERMISSIONS)
    graph, config = world.graph(node, ("refund", {"amount": 200})), world.config("service")
    await graph.ainvoke(ASK, config)
    for wrong, says in (
        (decide({"type": "respond", "message": "ok"}), "decisions.0 is 'respond'; expected is one of approve, edit"),
        (decide({"type": "edit"}), "decisions.0.edited_action"),
        (decide(APPROVE, APPROVE), "expected are 1 decisions"),
        (Command(resume={"type": "approve"}), "expected are 1 decisions"),
    ):
        with pytest.raises(ValueError, match=says):
            await graph.ainvoke(wrong, config)
    assert world.done == []
    await graph.ainvoke(decide(APPROVE), config)
    assert world.done == [("refund", 200)]


async def test_a_graph_that_nobody_edited_refuses() -> None:
    world = World()
    graph = world.graph(ToolNode(world.tools), ("refund", {"amount": 5}))
    with pytest.raises(NotPermitted, match="not allowed for your role"):
        await graph.ainvoke(ASK, watched(world.config("user"), [ToolGuard(PERMISSIONS)]))
    assert world.done == []


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_graph_that_nobody_edited_asks_and_each_answer_counts_for_its_own_question(blocking: bool) -> None:
    world = World()
    amounts = [200, 300, 400]
    graph = world.graph(ToolNode(world.tools), *(("refund", {"amount": one}) for one in amounts))

    async def go(given: Any) -> Any:
        # Each time with new guards: another process may go on.
        config = watched(world.config("service"), [ToolGuard(PERMISSIONS)])
        return graph.invoke(given, config) if blocking else await graph.ainvoke(given, config)

    async def answer(decision: Any) -> Any:
        (question,) = state["__interrupt__"]
        (action,) = question.value["action_requests"]
        asked.append(action["args"]["amount"])
        assert question.value["review_configs"][0]["allowed_decisions"] == ["approve", "reject"]
        return await go(decide(decision))

    asked: list[int] = []
    state = await go(ASK)
    for _ in amounts[1:]:
        state = await answer(APPROVE)
    with pytest.raises(NotPermitted, match="refund was rejected: not this one"):
        await answer({"type": "reject", "message": "not this one"})
    assert sorted(asked) == amounts
    assert ("refund", asked[-1]) not in world.done
    assert {amount for _, amount in world.done} == set(asked[:-1])


async def test_without_a_checkpointer_nobody_can_be_asked() -> None:
    world = World()
    graph = world.graph(ToolNode(world.tools), ("refund", {"amount": 200}))
    graph.checkpointer = None
    with pytest.raises(NotPermitted, match="without a checkpointer nobody can be asked"):
        await graph.ainvoke(ASK, watched(world.config("service"), [ToolGuard(PERMISSIONS)]))
    graph.checkpointer = InMemorySaver()
    with pytest.raises(NotPermitted, match="refund needs approval"):
        await graph.ainvoke(ASK, watched(world.config("service"), [ToolGuard(PERMISSIONS, asks=False)]))
