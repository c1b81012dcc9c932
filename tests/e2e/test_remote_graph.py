"""`RemoteGraph` on this server: on its own, and as a node of a graph elsewhere."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_client
from typing_extensions import TypedDict

from live_server import E2E, Client, LiveServer, server_process

pytestmark = pytest.mark.anyio

Remote = Any
"""RemoteGraph; its own types leave parameters open."""


class Log(TypedDict, total=False):
    log: list[str]
    n: int


Make = Callable[[str], Remote]


@pytest.fixture
def remote(sdk: Client, sync_sdk: Client) -> Make:
    """A graph of the live server, by name."""
    return lambda name: RemoteGraph(name, client=sdk, sync_client=sync_sdk)


@pytest.fixture
def steps(remote: Make) -> Remote:
    return remote("steps")


@pytest.fixture
def hitl(remote: Make) -> Remote:
    return remote("hitl")


@pytest.fixture(scope="module")
def remote_server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("remote") / "log"
    with server_process(make_database(), log=log, project=E2E.parent / "remote") as running:
        yield running


def a_thread() -> Any:
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


async def test_it_is_invoked_with_and_without_a_thread(steps: Remote) -> None:
    assert await steps.ainvoke({"n": 0}) == {"log": ["a", "b"], "n": 2}
    assert steps.invoke({"n": 0}) == {"log": ["a", "b"], "n": 2}
    thread = a_thread()
    await steps.ainvoke({"n": 0}, thread)
    assert (await steps.ainvoke({"n": 0}, thread))["log"] == ["a", "b", "a", "b"]


async def test_it_streams_in_every_mode_and_from_subgraphs(steps: Remote, remote: Make) -> None:
    updates = [part async for part in steps.astream({"n": 0}, stream_mode="updates")]
    assert updates == [{"a": {"log": ["a"], "n": 1}}, {"b": {"log": ["b"], "n": 2}}]
    assert list(steps.stream({"n": 0}, stream_mode="custom")) == [{"hello": "from a"}]
    several = [part async for part in steps.astream({"n": 0}, stream_mode=["values", "custom"])]
    assert [part.event for part in several] == ["values", "custom", "values", "values"]
    nested = remote("nested")
    given = {"messages": [{"role": "user", "content": "hi"}], "n": 1}
    spaces = {
        space for space, _ in [part async for part in nested.astream(given, stream_mode="updates", subgraphs=True)]
    }
    assert [tuple(name.split(":")[0] for name in space) for space in sorted(spaces, key=len)] == [
        (),
        ("child",),
        ("child", "grandchild"),
    ]
    chat = remote("chat")
    words = [m async for m in chat.astream({"messages": [("user", "tell me")]}, stream_mode="messages")]
    assert "".join(message["content"] for message, _ in words) == "You said: tell me"


async def test_it_stops_at_an_interrupt_and_is_resumed(hitl: Remote) -> None:
    thread = a_thread()
    stopped = await hitl.ainvoke({"n": 0}, thread)
    assert [one["value"] for one in stopped["__interrupt__"]] == [{"question": "go on?"}]
    state = await hitl.aget_state(thread)
    assert (state.next, state.interrupts[0].value) == (("ask",), {"question": "go on?"})
    done = await hitl.ainvoke(Command(resume="yes"), thread)
    assert done["log"] == ["answer=yes", "b"]


async def test_its_state_is_read_changed_and_has_a_history(steps: Remote) -> None:
    thread = a_thread()
    await steps.ainvoke({"n": 0}, thread)
    state = await steps.aget_state(thread)
    assert (state.values, state.next) == ({"log": ["a", "b"], "n": 2}, ())
    assert steps.get_state(thread).values == state.values
    history = [one async for one in steps.aget_state_history(thread)]
    assert [one.metadata["step"] for one in history] == [2, 1, 0, -1]
    assert [one.values for one in steps.get_state_history(thread, limit=1)] == [state.values]
    before = await steps.aget_state(history[1].config)
    assert (before.values, before.next) == ({"log": ["a"], "n": 1}, ("b",))
    await steps.aupdate_state(thread, {"n": 40}, as_node="b")
    assert (await steps.aget_state(thread)).values["n"] == 40
    forked = await steps.aupdate_state(history[1].config, {"n": 7}, as_node="a")
    assert forked["configurable"]["thread_id"] == thread["configurable"]["thread_id"]
    assert (await steps.ainvoke(None, thread))["log"] == ["a", "b"]
    steps.update_state(thread, {"n": 1})
    assert steps.get_state(thread).values["n"] == 1


async def test_its_graph_is_drawn(steps: Remote, remote: Make) -> None:
    assert list((await steps.aget_graph()).nodes) == ["__start__", "a", "b", "__end__"]
    nested = remote("nested")
    drawn = nested.get_graph(xray=True)
    assert "child:child_ask" in drawn.nodes
    assert "child" in drawn.draw_mermaid()


async def test_what_fails_there_fails_here(remote: Make) -> None:
    fail = remote("fail")
    with pytest.raises(RemoteException, match="boom went the node"):
        await fail.ainvoke({"n": 0})


async def test_a_node_elsewhere_is_this_graph(remote: Make) -> None:
    def end(state: Log) -> Any:
        return {"log": [*state.get("log", []), "here"]}

    builder: Any = StateGraph(Log)
    builder.add_node("there", remote("steps"))
    builder.add_node("end", end)
    graph = builder.add_edge(START, "there").add_edge("there", "end").add_edge("end", END).compile()
    assert (await graph.ainvoke({"n": 0}))["log"] == ["a", "b", "here"]
    assert graph.invoke({"n": 0})["log"] == ["a", "b", "here"]
    parts = [part async for part in graph.astream({"n": 0}, stream_mode=["updates", "custom"], subgraphs=True)]
    inside = [(mode, data) for space, mode, data in parts if space]
    assert ("custom", {"hello": "from a"}) in inside
    assert ("updates", {"a": {"log": ["a"], "n": 1}}) in inside


async def test_an_interrupt_goes_through_a_node_elsewhere(remote: Make) -> None:
    builder: Any = StateGraph(Log)
    builder.add_node("there", remote("hitl"))
    graph = builder.add_edge(START, "there").add_edge("there", END).compile(checkpointer=InMemorySaver())
    thread = a_thread()
    stopped = await graph.ainvoke({"n": 0}, thread)
    assert [one.value for one in stopped["__interrupt__"]] == [{"question": "go on?"}]
    # A plain value stays with the outer graph's checkpoint; by its id, RemoteGraph hands it on.
    [asked] = stopped["__interrupt__"]
    done = await graph.ainvoke(Command(resume={asked.id: "yes"}), thread)
    assert done["log"] == ["answer=yes", "b"]


async def test_a_graph_of_this_server_runs_another_one_of_it(remote_server: LiveServer) -> None:
    async with get_client(url=remote_server.url) as lg:
        client: Client = lg
        thread_id = (await client.threads.create())["thread_id"]
        result = await client.runs.wait(thread_id, "parent", input={"log": ["in"]})
        assert result["log"][-1] == "after"
        assert "second unasked" in result["log"]
        stopped = await client.runs.wait(thread_id, "parent", input={"log": [], "ask": True})
        assert stopped["__interrupt__"][0]["value"] == {"question": "go on?"}
        resume = {stopped["__interrupt__"][0]["id"]: "yes"}
        done = await client.runs.wait(thread_id, "parent", command={"resume": resume})
        assert done["log"][-1] == "after"
        assert "second yes" in done["log"]


async def test_a_run_that_would_wait_for_itself_is_told_so(remote_server: LiveServer) -> None:
    async with get_client(url=remote_server.url) as lg:
        client: Client = lg
        thread_id = (await client.threads.create())["thread_id"]
        with pytest.raises(Exception, match="would wait for itself"):
            await client.runs.wait(thread_id, "knot", input={"log": []})
