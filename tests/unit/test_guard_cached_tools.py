"""Results of tools are kept for who makes the same call again, and for nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, cast

import pytest
from langchain import agents
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState
from langgraph.types import Command

from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.caching.rules import CacheEvent
from waystation_guards.caching.tools import ToolRule, cached_tool
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.caches import ToolCacheMiddleware
from waystation_guards.ports import use_ports
from waystation_guards.watching.watcher import Watcher

pytestmark = pytest.mark.anyio


class World:
    """A tool that notes its calls, and the ports of one tenant."""

    def __init__(self) -> None:
        self.now, self.made = [1000.0], list[Any]()
        self.ports = replace(memory_ports(), cache=MemoryCache(clock=lambda: self.now[0]))
        use_ports(self.ports)
        made = self.made

        @tool
        async def search(query: str, page: int = 1) -> str:
            """Search."""
            made.append((query, page))
            await asyncio.sleep(0)
            if query == "broken":
                raise ValueError("broken")
            return f"{query}/{page}"

        @tool
        def look(query: str) -> dict[str, Any]:
            """Look."""
            made.append(query)
            return {"found": [query]}

        self.search: BaseTool = search
        self.look: BaseTool = look

    def config(self, tenant: str = "acme", **configurable: Any) -> Any:
        return {"configurable": {PORTS_KEY: replace(self.ports, tenant=tenant), **configurable}}


def call(arguments: dict[str, Any], *, name: str = "search", number: int = 1) -> Any:
    return {"name": name, "args": arguments, "id": f"call-{number}", "type": "tool_call"}


async def test_the_same_call_is_made_once() -> None:
    world, events = World(), list[CacheEvent]()
    search = cached_tool(world.search, ToolRule(), on_event=events.append)
    for _ in range(3):
        assert await search.ainvoke({"query": "a"}) == "a/1"
    assert await search.ainvoke({"query": "a", "page": 2}) == "a/2"
    assert world.made == [("a", 1), ("a", 2)]
    assert [event.happened for event in events] == ["miss", "kept", "hit", "hit", "miss", "kept"]
    ledger = cast("MemoryLedger", world.ports.ledger)
    assert [(entry.kind, entry.model, entry.cost_nano_usd) for _, _, entry in ledger.entries] == [
        ("cache_hit", "search", 0)
    ] * 2


async def test_the_tool_that_was_given_is_left_as_it_is() -> None:
    world = World()
    search = cached_tool(world.search)
    assert (search.name, search.description, search.args) == (
        world.search.name,
        world.search.description,
        world.search.args,
    )
    for _ in range(2):
        await world.search.ainvoke({"query": "a"})
    assert len(world.made) == 2
    assert type(world.search).__name__ == "StructuredTool"


async def test_a_message_has_the_id_of_the_call_that_asks_now() -> None:
    world = World()
    search = cached_tool(world.search)
    first = await search.ainvoke(call({"query": "a"}, number=1))
    hit = await search.ainvoke(call({"query": "a"}, number=2))
    assert isinstance(hit, ToolMessage)
    assert (first.tool_call_id, hit.tool_call_id) == ("call-1", "call-2")
    assert (hit.content, hit.name, hit.status) == (first.content, "search", "success")
    assert len(world.made) == 1


async def test_values_that_are_no_text_are_given_as_they_were() -> None:
    world = World()
    look = cached_tool(world.look)
    for _ in range(2):
        assert look.invoke({"query": "a"}) == {"found": ["a"]}
    message = look.invoke(call({"query": "a"}, name="look"))
    assert message.content == look.invoke(call({"query": "a"}, name="look", number=2)).content
    assert len(world.made) == 2


async def test_errors_are_not_kept() -> None:
    world = World()
    search = cached_tool(world.search)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await search.ainvoke({"query": "broken"})
    assert len(world.made) == 2
    asks = [AIMessage("", tool_calls=[call({"query": "broken"}, number=number)]) for number in (1, 2)]
    result = await agent_of([search], *asks).ainvoke({"messages": [("user", "x")]})
    answered = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert [message.status for message in answered] == ["error", "error"]
    assert len(world.made) == 4


def agent_of(tools: list[BaseTool], *answers: AIMessage, middleware: Any = ()) -> Any:
    return cast("Any", agents).create_agent(bindable(*answers), tools, middleware=[Forgiving(), *middleware])


class Forgiving(ToolCacheMiddleware):
    """Turns what tools raise into messages, as agents often do."""

    def __init__(self) -> None:
        super().__init__({})

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        try:
            return await handler(request)
        except ValueError as error:
            return ToolMessage(str(error), tool_call_id=request.tool_call["id"], status="error")


async def test_results_end_with_their_time() -> None:
    world = World()
    search = cached_tool(world.search, ToolRule(ttl_s=10))
    await search.ainvoke({"query": "a"})
    world.now[0] += 11
    await search.ainvoke({"query": "a"})
    assert len(world.made) == 2


async def test_arguments_that_do_not_matter_do_not_count() -> None:
    world = World()
    search = cached_tool(world.search, ToolRule(fold=("query",), ignore=("page",)))
    await search.ainvoke({"query": "Big  Cats"})
    assert await search.ainvoke({"query": " big cats ", "page": 7}) == "Big  Cats/1"
    await search.ainvoke({"query": "bigcats"})
    assert len(world.made) == 2


@pytest.mark.parametrize(
    ("scope", "others", "calls"),
    [
        ("tenant", {"user_id": "bob", "thread_id": "t2"}, 1),
        ("user", {"user_id": "bob", "thread_id": "t1"}, 2),
        ("user", {"user_id": "ada", "thread_id": "t2"}, 1),
        ("thread", {"user_id": "ada", "thread_id": "t2"}, 2),
        ("tenant", {"tenant": "globex", "user_id": "ada", "thread_id": "t1"}, 2),
        ("thread", {"tenant": "globex", "user_id": "ada", "thread_id": "t1"}, 2),
        ("shared", {"tenant": "globex"}, 1),
    ],
)
async def test_results_are_given_to_whom_the_scope_says(scope: Any, others: dict[str, str], calls: int) -> None:
    world = World()
    search = cached_tool(world.search, ToolRule(scope=scope))
    await search.ainvoke({"query": "a"}, world.config(user_id="ada", thread_id="t1"))
    await search.ainvoke({"query": "a"}, world.config(**others))
    assert len(world.made) == calls


@pytest.mark.parametrize("scope", ["user", "thread"])
async def test_what_belongs_to_nobody_is_not_kept(scope: Any) -> None:
    world = World()
    search = cached_tool(world.search, ToolRule(scope=scope))
    for _ in range(2):
        await search.ainvoke({"query": "a"}, world.config())
    assert len(world.made) == 2


async def test_what_langgraph_injects_is_no_argument_and_reaches_the_tool() -> None:
    made = list[Any]()

    @tool
    def count(word: str, state: Annotated[Any, InjectedState], call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Count."""
        made.append((word, len(state["messages"]), call_id))
        return word

    World()
    asks = [AIMessage("", tool_calls=[call({"word": "a"}, name="count", number=number)]) for number in (1, 2)]
    result = await agent_of([cached_tool(count)], *asks).ainvoke({"messages": [("user", "x")]})
    answered = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert [message.tool_call_id for message in answered] == ["call-1", "call-2"]
    assert made == [("a", 2, "call-1")]


async def test_an_agents_tools_are_cached_tool_by_tool() -> None:
    world = World()
    asks = [
        AIMessage("", tool_calls=[call({"query": "a"}, number=number), call({"query": "a"}, name="look", number=10)])
        for number in (1, 2)
    ]
    cache = ToolCacheMiddleware({"search": ToolRule()})
    agent = agent_of([world.search, world.look], *asks, middleware=[cache])
    result = await agent.ainvoke({"messages": [("user", "x")]}, world.config())
    answered = [str(message.content) for message in result["messages"] if isinstance(message, ToolMessage)]
    assert answered[0] == answered[2] == "a/1"
    assert world.made.count(("a", 1)) == 1
    assert world.made.count("a") == 2


def test_an_agent_that_blocks_is_given_kept_results_too() -> None:
    world = World()
    asks = [AIMessage("", tool_calls=[call({"query": "a"}, name="look", number=number)]) for number in (1, 2)]
    agent = cast("Any", agents).create_agent(
        bindable(*asks), [world.look], middleware=[ToolCacheMiddleware({"look": ToolRule()})]
    )
    result = agent.invoke({"messages": [cast("Any", ("user", "x"))]})
    answered = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert answered[0].content == answered[1].content
    assert world.made == ["a"]


def bindable(*answers: AIMessage) -> Any:
    class Bindable(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    return Bindable(messages=iter([*answers, AIMessage("done")]))


async def test_commands_are_not_kept() -> None:
    made = list[str]()

    @tool
    def go(call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Go."""
        made.append(call_id)
        return Command(update={"messages": [ToolMessage("gone", tool_call_id=call_id)]})

    World()
    asks = [AIMessage("", tool_calls=[call({}, name="go", number=number)]) for number in (1, 2)]
    await agent_of([cached_tool(go)], *asks).ainvoke({"messages": [("user", "x")]})
    assert made == ["call-1", "call-2"]


async def test_of_many_calls_at_once_one_is_made() -> None:
    world = World()
    search = cached_tool(world.search)
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(search.ainvoke({"query": "a"}) for _ in range(20)))
    assert said == ["a/1"] * 20
    assert len(world.made) == 1


async def test_a_hit_uses_no_budget_of_tool_calls() -> None:
    world, budget = World(), Budget(Limit(1, "tool_calls", scope="tenant"), wait_s=0)
    search = cached_tool(world.search)
    config: Any = {"callbacks": Watcher([budget]).handlers}
    for _ in range(3):
        assert await search.ainvoke({"query": "a"}, config) == "a/1"
    (standing,) = await budget.standing(world.ports, CallSite())
    assert (standing.spent, standing.held) == (1, 0)


async def test_a_cache_that_is_away_is_not_in_the_way() -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError("away")

    for method in ("get", "put", "lock", "unlock"):
        world = World()
        cache: Any = type("Away", (), {name: getattr(world.ports.cache, name) for name in ("get", "put", "lock")})()
        for name in ("get", "put", "lock", "unlock"):
            setattr(cache, name, away if name == method else getattr(world.ports.cache, name))
        use_ports(replace(world.ports, cache=cache))
        search = cached_tool(world.search)
        assert await search.ainvoke({"query": "a"}) == "a/1"
        assert len(world.made) == 1


@pytest.mark.parametrize(
    ("settings", "named"), [({"ttl_s": 0}, "ttl_s"), ({"scope": "x"}, "scope"), ({"jitter": 2}, "jitter")]
)
def test_rules_that_make_no_sense_name_what_is_wrong(settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ToolRule(**settings)
