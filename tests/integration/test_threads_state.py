"""The state of threads over HTTP, as the contract's transcript 04 shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from integration.thread_world import World, world
from waystation.auth import ANONYMOUS
from waystation.runs.graph_access import open_graph, state_config
from waystation.runs.snapshot import thread_face
from waystation_db.json import loads
from waystation_db.threads import ThreadGraph

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-0000-0000-000000000000"
STEPS = {"log": ["a", "b"], "n": 2}


@pytest.fixture
async def w(database_uri: str) -> AsyncGenerator[World]:
    async with world(database_uri) as made:
        yield made


async def update(w: World, thread_id: str, *, status: int = 200, **body: Any) -> Any:
    return await w.ask("POST", f"/threads/{thread_id}/state", body, status=status)


async def state(w: World, thread_id: str, query: str = "") -> Any:
    return await w.ask("GET", f"/threads/{thread_id}/state{query}")


async def history(w: World, thread_id: str, **body: Any) -> list[dict[str, Any]]:
    return await w.ask("POST", f"/threads/{thread_id}/history", body or {"limit": 100})


# -- reading ---------------------------------------------------------------------------------------------------------


async def test_a_thread_without_a_graph_has_an_empty_state(w: World) -> None:
    thread_id = await w.thread()
    assert await state(w, thread_id) == {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": None,
        "created_at": None,
        "checkpoint": None,
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": None,
        "parent_checkpoint_id": None,
    }
    assert await w.ask("GET", f"/threads/{thread_id}/history") == []
    refused = await update(w, thread_id, values={"n": 1}, status=400)
    assert refused["detail"].startswith(f"Thread '{thread_id}' has no assigned graph ID. This usually occurs when")


async def test_a_graph_that_did_not_run_has_an_empty_state_too(w: World) -> None:
    found = await state(w, await w.thread(metadata={"graph_id": "steps"}))
    assert (found["checkpoint"], found["created_at"]) == (None, None)


async def test_state_after_a_run(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    found = await state(w, thread_id)
    assert (found["values"], found["next"], found["tasks"], found["interrupts"]) == (STEPS, [], [], [])
    assert found["checkpoint"] == {
        "thread_id": thread_id,
        "checkpoint_ns": "",
        "checkpoint_id": found["checkpoint_id"],
    }
    assert found["parent_checkpoint"]["checkpoint_id"] == found["parent_checkpoint_id"]
    assert (found["metadata"]["source"], found["metadata"]["step"]) == ("loop", 2)


async def test_history_pages_back_in_every_spelling(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    path = f"/threads/{thread_id}/history"
    states = await history(w, thread_id)
    assert [s["next"] for s in states] == [[], ["b"], ["a"], ["__start__"]]
    assert states[1]["tasks"][0]["result"] == {"log": ["b"], "n": 2}
    assert states[1]["tasks"][0]["path"] == ["__pregel_pull", "b"]
    assert await w.ask("GET", path) == states[:1]
    assert await w.ask("GET", f"{path}?limit=0") == []
    assert await w.ask("GET", f"{path}?limit=1001") == states
    newest = states[0]["checkpoint_id"]
    assert await w.ask("GET", f"{path}?limit=1&before={newest}") == states[1:2]
    for before in (newest, {"checkpoint_id": newest}, {"configurable": {"checkpoint_id": newest}}):
        assert await history(w, thread_id, limit=2, before=before) == states[1:3]
    assert await history(w, thread_id, limit=9, metadata={"source": "input"}) == states[3:]
    assert await history(w, thread_id, limit=9, checkpoint={"checkpoint_ns": ""}) == states


async def test_state_at_a_checkpoint(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    second = (await history(w, thread_id))[1]
    at = await w.ask("GET", f"/threads/{thread_id}/state/{second['checkpoint_id']}")
    assert (at["values"], at["next"]) == ({"log": ["a"], "n": 1}, ["b"])
    body = {"checkpoint": {"checkpoint_id": second["checkpoint_id"], "checkpoint_ns": ""}, "subgraphs": True}
    assert (await w.ask("POST", f"/threads/{thread_id}/state/checkpoint", body))["values"] == at["values"]


@pytest.mark.parametrize("checkpoint_id", [UNKNOWN, "abc"])
@pytest.mark.parametrize("metadata", [{"graph_id": "steps"}, {}])
async def test_an_unknown_checkpoint_is_empty_and_echoed(w: World, checkpoint_id: str, metadata: Any) -> None:
    thread_id = await w.thread(metadata=metadata)
    found = await w.ask("GET", f"/threads/{thread_id}/state/{checkpoint_id}")
    assert (found["values"], found["created_at"]) == ({}, None)
    assert found["checkpoint"] == {"checkpoint_id": checkpoint_id, "thread_id": thread_id}
    assert found["checkpoint_id"] == checkpoint_id


async def test_messages_are_flat_objects(w: World) -> None:
    thread_id = await w.ran("chat", {"messages": [{"role": "user", "content": "hello"}]})
    human, ai = (await state(w, thread_id))["values"]["messages"]
    assert (human["type"], human["content"]) == ("human", "hello")
    assert (ai["type"], ai["tool_calls"]) == ("ai", [])
    assert "lc" not in ai


async def test_a_failed_task_shows_its_error(w: World) -> None:
    thread_id = await w.thread(metadata={"graph_id": "fail"})
    with pytest.raises(ValueError, match="boom"):
        await w.ran("fail", {"n": 0}, thread_id)
    found = await state(w, thread_id)
    assert found["next"] == ["boom"]
    assert found["tasks"][0]["error"] == "ValueError('boom went the node')"


async def test_a_checkpoint_id_with_a_nul_is_refused(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    for path in ("state/a%00b", "history?before=a%00b", "state/%ff"):
        assert (await w.bare("GET", f"/threads/{thread_id}/{path}")).status_code in (200, 422)


# -- updating --------------------------------------------------------------------------------------------------------


async def test_update_makes_a_checkpoint_and_changes_the_thread(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    made = await update(w, thread_id, values={"log": ["edit"]})
    assert made["checkpoint"] == made["configurable"]
    assert made["checkpoint"] == {
        "thread_id": thread_id,
        "checkpoint_ns": "",
        "checkpoint_id": made["checkpoint_id"],
    }
    found = await state(w, thread_id)
    assert (found["values"]["log"], found["next"]) == (["a", "b", "edit"], [])
    assert (found["checkpoint_id"], found["metadata"]["source"]) == (made["checkpoint_id"], "update")
    thread = await w.ask("GET", f"/threads/{thread_id}")
    assert (thread["values"], thread["status"]) == (found["values"], "idle")
    assert (thread["error"], thread["interrupts"]) == (None, {})


async def test_update_as_a_node_leaves_work_and_clearing_it_does_not(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    await update(w, thread_id, values={"log": ["as a"]}, as_node="a")
    assert (await state(w, thread_id))["next"] == ["b"]
    assert (await w.ask("GET", f"/threads/{thread_id}"))["status"] == "interrupted"
    await update(w, thread_id, values=None, as_node="__end__")
    assert (await state(w, thread_id))["next"] == []
    assert (await w.ask("GET", f"/threads/{thread_id}"))["status"] == "idle"


async def test_special_nodes(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    await update(w, thread_id, values=None)
    await update(w, thread_id, values=None, as_node="__copy__")
    assert (await state(w, thread_id))["metadata"]["source"] == "fork"
    await update(w, thread_id, values={"n": 9}, as_node="__input__")
    found = await state(w, thread_id)
    assert (found["next"], found["metadata"]["source"]) == (["__start__"], "input")


async def test_forks_become_the_head(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    old = (await history(w, thread_id))[1]["checkpoint_id"]
    forks: list[dict[str, Any]] = [{"checkpoint": {"checkpoint_id": old, "checkpoint_ns": ""}}, {"checkpoint_id": old}]
    for fork in forks:
        made = await update(w, thread_id, values={"log": ["fork"]}, **fork)
        found = await state(w, thread_id)
        assert (found["checkpoint_id"], found["parent_checkpoint_id"]) == (made["checkpoint_id"], old)
        assert (found["values"], found["next"]) == ({"log": ["a", "fork"], "n": 1}, ["b"])


async def test_wrong_updates_are_refused_and_change_nothing(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    before = await w.ask("GET", f"/threads/{thread_id}")
    refused = await update(w, thread_id, values={"log": ["x"]}, as_node="nobody", status=400)
    assert refused["detail"] == "Node nobody does not exist"
    wrong_type = await update(w, thread_id, values={"log": 5}, status=400)
    assert wrong_type["detail"] == "Graph 'steps' failed on this state: TypeError"
    await update(w, thread_id, values=[{"log": ["x"]}], status=400)
    await update(w, thread_id, values={"n": 1}, checkpoint_id=UNKNOWN, status=404)
    nowhere = await update(w, thread_id, values={"n": 1}, checkpoint={"checkpoint_ns": "no:1"}, status=400)
    assert nowhere["detail"] == "checkpoint.checkpoint_ns: the graph has no subgraph no"
    await update(w, UNKNOWN, values={}, status=404)
    assert (await state(w, thread_id))["values"] == STEPS
    assert await w.ask("GET", f"/threads/{thread_id}") == before


async def test_a_busy_thread_takes_no_update(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    run_id = await w.make_busy(thread_id)
    refused = await update(w, thread_id, values={"n": 1}, status=409)
    assert refused["detail"] == f"Thread {thread_id} has in-flight runs: {run_id}"
    assert (await state(w, thread_id))["values"] == STEPS


async def test_no_run_can_come_between_an_update_and_its_thread(w: World) -> None:
    """Updates hold the row: of many at once on one thread none is lost, each continues from the one before."""
    thread_id = await w.ran("steps", {"n": 0})
    async with asyncio.TaskGroup() as group:
        for n in range(8):
            group.create_task(update(w, thread_id, values={"log": [str(n)]}))
    found = await state(w, thread_id)
    assert sorted(found["values"]["log"]) == sorted(["a", "b", *map(str, range(8))])
    assert (await w.ask("GET", f"/threads/{thread_id}"))["values"] == found["values"]


async def test_an_unknown_graph_is_not_found(w: World) -> None:
    thread_id = await w.thread(metadata={"graph_id": "nope"})
    for path in ("state", "history"):
        assert "nope" in (await w.ask("GET", f"/threads/{thread_id}/{path}", status=404))["detail"]
    assert "nope" in (await update(w, thread_id, values={}, status=404))["detail"]


# -- interrupts and subgraphs ----------------------------------------------------------------------------------------


async def test_interrupts_are_shown_by_task(w: World) -> None:
    thread_id = await w.ran("hitl", {"n": 0})
    found = await state(w, thread_id)
    (task,) = found["tasks"]
    assert found["next"] == ["ask"]
    assert (
        task["interrupts"]
        == found["interrupts"]
        == [{"id": task["interrupts"][0]["id"], "value": {"question": "go on?"}}]
    )
    await update(w, thread_id, values=None, as_node="__copy__")
    thread = await w.ask("GET", f"/threads/{thread_id}")
    assert thread["status"] == "interrupted"


async def test_subgraph_state_is_read_and_changed_by_its_namespace(w: World) -> None:
    thread_id = await w.ran("nested", {"n": 7, "messages": [{"role": "user", "content": "hi"}]})
    outer = await state(w, thread_id)
    (task,) = outer["tasks"]
    namespace = f"child:{task['id']}"
    assert task["checkpoint"] == {"thread_id": thread_id, "checkpoint_ns": namespace}
    assert task["state"] is None

    whole = await state(w, thread_id, "?subgraphs=true")
    inner = whole["tasks"][0]["state"]
    assert whole["tasks"][0]["checkpoint"] is None
    assert (inner["next"], inner["checkpoint"]["checkpoint_ns"]) == (["child_ask"], namespace)
    assert set(inner["checkpoint"]["checkpoint_map"]) == {"", namespace}

    read = await w.ask("POST", f"/threads/{thread_id}/state/checkpoint", {"checkpoint": inner["checkpoint"]})
    assert (read["next"], read["values"]) == (["child_ask"], inner["values"])
    past = await history(w, thread_id, limit=5, checkpoint={"checkpoint_ns": namespace})
    assert past[0]["checkpoint_id"] == inner["checkpoint_id"]

    made = await update(w, thread_id, values={"log": ["edited in child"]}, checkpoint=inner["checkpoint"])
    assert made["checkpoint"]["checkpoint_ns"] == namespace
    assert made["checkpoint"]["checkpoint_map"][namespace] == made["checkpoint_id"]
    after = await state(w, thread_id, "?subgraphs=true")
    assert after["tasks"][0]["state"]["values"]["log"] == ["before", "edited in child"]
    assert (await w.ask("GET", f"/threads/{thread_id}"))["status"] == "interrupted"


async def test_an_interrupt_in_a_subgraph_is_filed_under_the_innermost_task(w: World) -> None:
    thread_id = await w.ran("nested", {"n": 7, "messages": [{"role": "user", "content": "hi"}]})
    whole = await state(w, thread_id, "?subgraphs=true")
    innermost = whole["tasks"][0]["state"]["tasks"][0]

    async def face(side: Any) -> Any:
        async with open_graph(
            side, ANONYMOUS, thread_id, graph=ThreadGraph("nested", {}), access="threads.read"
        ) as graph:
            return thread_face(await graph.aget_state(state_config(thread_id), subgraphs=True))

    shown = await w.services.graphs.call(face)
    assert loads(shown.interrupts) == {innermost["id"]: innermost["interrupts"]}
    assert (shown.resting_status, shown.next) == ("interrupted", ("child",))


# -- supersteps ------------------------------------------------------------------------------------------------------


async def test_supersteps_replay_a_history(w: World) -> None:
    steps = [
        {"updates": [{"values": {"n": 0}, "as_node": "__input__"}]},
        {"updates": [{"values": {"log": ["one"], "n": 1}, "as_node": "a"}]},
        {"updates": [{"values": {"log": ["two"]}, "command": None, "as_node": "b"}]},
    ]
    made = await w.ask("POST", "/threads", {"metadata": {"graph_id": "steps"}, "supersteps": steps})
    assert (made["values"], made["status"]) == ({"log": ["one", "two"], "n": 1}, "idle")
    assert (made["error"], made["interrupts"]) == (None, {})
    states = await history(w, made["thread_id"])
    assert [s["values"] for s in states[:2]] == [{"log": ["one", "two"], "n": 1}, {"log": ["one"], "n": 1}]
    assert states[1]["tasks"][0]["result"] == {"log": ["two"]}


async def test_supersteps_take_commands(w: World) -> None:
    steps = [
        {"updates": [{"values": {"n": 0}, "as_node": "__input__"}]},
        {"updates": [{"command": {"update": {"log": ["jumped"]}, "goto": "b"}, "as_node": "a"}]},
    ]
    made = await w.ask("POST", "/threads", {"metadata": {"graph_id": "steps"}, "supersteps": steps})
    assert made["values"]["log"] == ["jumped"]
    assert made["status"] == "interrupted"


@pytest.mark.parametrize(
    ("metadata", "as_node", "says"),
    [
        ({}, "a", "has no assigned graph ID"),
        ({"graph_id": "steps"}, "nobody", "Node nobody does not exist"),
        ({"graph_id": "nope"}, "a", "'nope'"),
    ],
)
async def test_the_thread_is_there_when_its_supersteps_fail(w: World, metadata: Any, as_node: str, says: str) -> None:
    steps = [{"updates": [{"values": {"n": 0}, "as_node": as_node}]}]
    answer = await w.ask("POST", "/threads", {"metadata": metadata, "supersteps": steps}, status=201)
    assert "was created, but there were problems updating the state: " in answer["detail"]
    assert says in answer["detail"]
    assert await w.ask("POST", "/threads/count", {}) == 1


async def test_supersteps_are_written_all_or_none(w: World) -> None:
    steps = [
        {"updates": [{"values": {"n": 0}, "as_node": "__input__"}]},
        {"updates": [{"values": {"n": 1}, "as_node": "nobody"}]},
    ]
    made = await w.ask("POST", "/threads", {"metadata": {"graph_id": "steps"}, "supersteps": steps}, status=201)
    assert "Node nobody does not exist" in made["detail"]
    (thread,) = await w.ask("POST", "/threads/search", {})
    assert await history(w, thread["thread_id"]) == []
