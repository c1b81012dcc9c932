"""Results of tools that nobody edited are kept where rules name them, and not where somebody has a say in the call."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import replace
from typing import Annotated, Any, cast

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import InjectedToolCallId, Tool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command, interrupt

from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.caching.rules import CacheEvent
from waystation_guards.caching.tools import ToolCache, ToolRule, cached_tool
from waystation_guards.calls import PORTS_KEY
from waystation_guards.errors import BudgetExceeded, NotPermitted
from waystation_guards.guarded import guarded
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.permissions.permissions import ToolGuard, permissions_of
from waystation_guards.ports import use_ports
from waystation_guards.tool_layer import install, remembered
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio


class World:
    """Tools that note their calls, and one tenant's ports."""

    def __init__(self) -> None:
        install()
        self.made = list[Any]()
        self.events = list[CacheEvent]()
        self.ports = memory_ports()
        use_ports(self.ports)
        self.gate, self.began = asyncio.Event(), asyncio.Event()
        made, gate, began = self.made, self.gate, self.began

        @tool
        async def search(query: str) -> str:
            """Search."""
            made.append(query)
            if query == "broken":
                raise ValueError("broken")
            if query == "wait":
                began.set()
                await gate.wait()
            return f"found {query}"

        @tool
        def look(query: str) -> dict[str, Any]:
            """Look."""
            made.append(query)
            return {"found": query}

        self.search, self.look = search, look

    def keeping(self, *, by_graph: bool = False, **rules: ToolRule) -> AbstractContextManager[None]:
        """Rules by name; without any, one for all tools."""
        return remembered(ToolCache(rules or {"*": ToolRule()}, self.events.append, by_graph=by_graph))

    def config(self, tenant: str = "acme", **configurable: Any) -> Any:
        return {"configurable": {PORTS_KEY: replace(self.ports, tenant=tenant), **configurable}}

    def happened(self) -> list[str]:
        return [event.happened for event in self.events]

    def graph(self, *tools: Any, **compiled: Any) -> Any:
        """A graph of a prebuilt node alone."""
        node = ToolNode(list(tools), handle_tool_errors=False)
        builder: Any = StateGraph(MessagesState)
        return builder.add_node("tools", node).add_edge(START, "tools").add_edge("tools", END).compile(**compiled)


@pytest.fixture
def world() -> World:
    return World()


def call(name: str = "search", *, number: int = 1, **arguments: Any) -> Any:
    return {"name": name, "args": arguments, "id": f"call-{number}", "type": "tool_call"}


def asks(*calls: Any) -> dict[str, Any]:
    return {"messages": [AIMessage("", tool_calls=list(calls))]}


async def test_a_prebuilt_node_gives_the_kept_result_under_the_new_calls_id(world: World) -> None:
    graph = world.graph(world.search, world.look)
    with world.keeping():
        for number in (1, 2):
            state = await graph.ainvoke(
                asks(call(query="a", number=number), call("look", query="b", number=number + 10)), world.config()
            )
            told = [(one.content, one.name, one.tool_call_id) for one in state["messages"][1:]]
            assert told == [
                ("found a", "search", f"call-{number}"),
                ('{"found": "b"}', "look", f"call-{number + 10}"),
            ]
    assert sorted(world.made) == ["a", "b"]
    ledger = cast("MemoryLedger", world.ports.ledger)
    assert sorted((entry.kind, entry.model) for _, _, entry in ledger.entries) == [
        ("cache_hit", "look"),
        ("cache_hit", "search"),
    ]


async def test_calls_that_block_and_calls_that_wait_share_what_is_kept(world: World) -> None:
    with world.keeping():
        graph = world.graph(world.look)
        await asyncio.to_thread(graph.invoke, asks(call("look", query="a")), world.config())
        await graph.ainvoke(asks(call("look", query="a")), world.config())
        assert await asyncio.to_thread(world.look.run, {"query": "b"}) == {"found": "b"}
        assert await world.look.arun({"query": "b"}) == {"found": "b"}
        assert await world.look.abatch([{"query": "b"}] * 2) == [{"found": "b"}] * 2
    assert world.made == ["a", "b"]


async def test_threads_that_have_the_context_have_the_rules_and_others_have_not(world: World) -> None:
    def use(times: list[Any]) -> None:
        times.append(world.look.invoke({"query": "a"}))

    with world.keeping():
        said: list[Any] = []
        for context in (copy_context(), copy_context()):
            thread = threading.Thread(target=context.run, args=(use, said))
            thread.start()
            await asyncio.to_thread(thread.join)
        assert (said, world.made) == ([{"found": "a"}] * 2, ["a"])
        thread = threading.Thread(target=use, args=(said,))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert world.made == ["a", "a"]


async def test_tools_that_no_rule_names_are_called_each_time_and_of_rules_the_first_that_fits_holds(
    world: World,
) -> None:
    rules = {"lo?k": ToolRule(ignore=("query",)), "l*": ToolRule()}
    with remembered(ToolCache(rules)):
        for query in ("a", "b"):
            assert await world.look.ainvoke({"query": query}) == {"found": "a"}
            await world.search.ainvoke({"query": query})
    assert world.made == ["a", "a", "b"]


async def test_outside_of_the_block_and_without_rules_tools_are_as_ever(world: World) -> None:
    with world.keeping():
        await world.search.ainvoke({"query": "a"})
        with remembered(None):
            await world.search.ainvoke({"query": "a"})
    await world.search.ainvoke({"query": "a"})
    assert world.made == ["a"] * 3


async def test_what_is_kept_is_the_tenants_own_and_by_graph_the_graphs_and_the_assistants(world: World) -> None:
    graph = world.graph(world.search)
    with world.keeping(by_graph=True):
        for where in ({}, {"tenant": "rival"}, {"graph_id": "g"}, {"graph_id": "g", "assistant_id": "a"}):
            for _ in range(2):
                await graph.ainvoke(asks(call(query="a")), world.config(**where))
    assert len(world.made) == 4


async def test_tools_of_one_name_that_do_something_else_do_not_share(world: World) -> None:
    @tool("look")
    def other(query: str) -> dict[str, Any]:
        """Look elsewhere."""
        return {"elsewhere": query}

    with world.keeping():
        assert await world.look.ainvoke({"query": "a"}) == {"found": "a"}
        assert await other.ainvoke({"query": "a"}) == {"elsewhere": "a"}


@pytest.mark.parametrize("scope", ["user", "thread"])
async def test_a_scope_tells_callers_apart_and_nothing_is_kept_for_nobody(world: World, scope: Any) -> None:
    graph, member = world.graph(world.search), {"user": "user_id", "thread": "thread_id"}[scope]
    with world.keeping(search=ToolRule(scope=scope)):
        for who in ("ann", "bob", "ann", None, None):
            await graph.ainvoke(asks(call(query="a")), world.config(**({} if who is None else {member: who})))
    assert len(world.made) == 4


async def test_what_the_graph_puts_into_a_call_does_not_count(world: World) -> None:
    seen: list[Any] = []

    @tool
    def noted(
        query: str, state: Annotated[dict[str, Any], InjectedState], at: Annotated[str, InjectedToolCallId]
    ) -> str:
        """Note."""
        seen.append((query, at))
        return f"{query} of {len(state['messages'])}"

    graph = world.graph(noted)
    with world.keeping():
        for number in (1, 2):
            state = await graph.ainvoke(asks(call("noted", query="a", number=number)), world.config())
            assert state["messages"][-1].content == "a of 1"
    assert seen == [("a", "call-1")]


async def test_errors_commands_and_interrupts_are_not_kept(world: World) -> None:
    made: list[str] = []

    @tool
    def moves(query: str, at: Annotated[str, InjectedToolCallId]) -> Any:
        """Move."""
        made.append("moves")
        return Command(update={})

    @tool
    def told(query: str) -> str:
        """Fail, and say so."""
        made.append("told")
        raise ToolException("no")

    @tool
    def asked(query: str) -> str:
        """Ask."""
        made.append("asked")
        return str(interrupt("may I?"))

    told.handle_tool_error = True
    with world.keeping():
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                await world.graph(world.search).ainvoke(asks(call(query="broken")), world.config())
            failed = await world.graph(told).ainvoke(asks(call("told", query="a")), world.config())
            assert failed["messages"][-1].status == "error"
            assert await told.ainvoke({"query": "a"}) == "no"
            await moves.ainvoke(call("moves", query="a"))
            graph = world.graph(asked, checkpointer=InMemorySaver())
            state = await graph.ainvoke(asks(call("asked", query="a")), world.config(thread_id="t"))
            assert state["__interrupt__"][0].value == "may I?"
    assert world.made == ["broken"] * 2
    assert [made.count(name) for name in ("told", "moves", "asked")] == [4, 2, 2]
    assert "kept" not in world.happened()


async def test_what_permissions_refuse_is_refused_although_it_is_kept(world: World) -> None:
    graph = world.graph(world.search)
    rules = permissions_of({"default": "allow", "rules": [{"tools": ["search"], "effect": "deny"}]})
    with world.keeping():
        await graph.ainvoke(asks(call(query="a")), world.config())
        for refusing in (
            graph.ainvoke(asks(call(query="a")), watched(world.config(), [ToolGuard(rules)])),
            guarded(graph, [ToolGuard(rules)]).ainvoke(asks(call(query="a")), world.config()),
        ):
            with pytest.raises(NotPermitted):
                await refusing
        allowed = watched(world.config(), [ToolGuard(permissions_of({"default": "allow", "rules": []}))])
        await graph.ainvoke(asks(call(query="a")), allowed)
    assert world.made == ["a"]


async def test_a_kept_result_depends_on_the_callers_roles_and_the_calls_arguments(world: World) -> None:
    rule = {"tools": ["search"], "roles": ["staff"], "arguments": {"query": {"one_of": ["a"]}}}
    rules = permissions_of({"default": "deny", "rules": [rule]})
    graph = world.graph(world.search)
    with world.keeping():
        for query in ("a", "b"):
            await graph.ainvoke(asks(call(query=query)), world.config())
        staff = world.config(langgraph_auth_permissions=["staff"])
        await graph.ainvoke(asks(call(query="a")), watched(staff, [ToolGuard(rules)]))
        assert world.made == ["a", "b"]
        for config, query in ((world.config(), "a"), (staff, "b")):
            with pytest.raises(NotPermitted):
                await graph.ainvoke(asks(call(query=query)), watched(config, [ToolGuard(rules)]))


async def test_what_needs_approval_is_asked_about_and_then_made_although_it_is_kept(world: World) -> None:
    rules = permissions_of({"default": "allow", "rules": [{"tools": ["search"], "effect": "approve"}]})
    graph = world.graph(world.search, checkpointer=InMemorySaver())
    with world.keeping():
        await graph.ainvoke(asks(call(query="a")), world.config(thread_id="one"))
        config = watched(world.config(thread_id="two"), [ToolGuard(rules)])
        asked = await graph.ainvoke(asks(call(query="a")), config)
        assert asked["__interrupt__"]
        assert world.made == ["a"]
        done = await graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert done["messages"][-1].content == "found a"
    assert world.made == ["a", "a"]


async def test_a_hit_is_no_call_for_a_budget_and_a_miss_is_one(world: World) -> None:
    graph = world.graph(world.search)
    config = watched(world.config(), [Budget(Limit(1, "tool_calls", scope="tenant", alerts=()))])
    with world.keeping():
        for _ in range(3):
            await graph.ainvoke(asks(call(query="a")), config)
        with pytest.raises(BudgetExceeded):
            await graph.ainvoke(asks(call(query="b")), config)
    assert world.made == ["a"]


async def test_of_many_who_call_at_once_one_does_and_a_cancelled_one_lets_the_next_one_try(world: World) -> None:
    graph = world.graph(world.search)

    async def ask() -> Any:
        return (await graph.ainvoke(asks(call(query="wait")), world.config()))["messages"][-1].content

    with world.keeping():
        first = asyncio.create_task(ask())
        await world.began.wait()
        others = [asyncio.create_task(ask()) for _ in range(5)]
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        world.gate.set()
        assert await asyncio.gather(*others) == ["found wait"] * 5
    assert world.made == ["wait"] * 2
    assert world.happened().count("kept") == 1


async def test_a_tool_that_the_graph_keeps_itself_does_not_wait_for_itself(world: World) -> None:
    own = cached_tool(world.search, ToolRule(wait_s=3600, lock_s=3600))
    with world.keeping(search=ToolRule(wait_s=3600, lock_s=3600)):
        async with asyncio.timeout(60):
            assert await own.ainvoke({"query": "a"}) == "found a"
            assert await own.ainvoke({"query": "a"}) == "found a"
    assert world.made == ["a"]


async def test_an_old_tool_that_takes_a_text_is_kept_too(world: World) -> None:
    def shout(text: str) -> str:
        world.made.append(text)
        return text.upper()

    old = Tool(name="shout", func=shout, description="Say it loudly.")
    with world.keeping():
        assert [old.run("a"), await old.arun("a"), old.run("b")] == ["A", "A", "B"]
    assert world.made == ["a", "b"]
