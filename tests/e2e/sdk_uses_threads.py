"""Each method of the SDK's threads, used; their streams are in a file of their own."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError

from e2e.sdk_entries import covers
from e2e.sdk_kinds import until
from e2e.sdk_runs_started import DONE, new_thread
from live_server import Client


async def finished(sdk: Client, **given: Any) -> str:
    """A thread on which `steps` ran."""
    thread_id = (await sdk.threads.create(**given))["thread_id"]
    assert await sdk.runs.wait(thread_id, "steps", input={"n": 0}) == DONE
    return thread_id


@covers("threads.create", "metadata", "thread_id", "if_exists", "ttl")
async def a_thread_is_made(sdk: Client) -> None:
    chosen = str(uuid.uuid4())
    thread = await sdk.threads.create(thread_id=chosen, metadata={"a": 1}, ttl=5)
    assert (thread["thread_id"], thread["status"], thread["metadata"]) == (chosen, "idle", {"a": 1})
    assert (await sdk.threads.create(thread_id=chosen, if_exists="do_nothing"))["metadata"] == {"a": 1}
    with pytest.raises(ConflictError):
        await sdk.threads.create(thread_id=chosen, if_exists="raise")
    assert (await sdk.threads.get(chosen, include=["ttl"]))["ttl"]["ttl_minutes"] == 5


@covers("threads.create", "supersteps", "graph_id")
async def a_thread_is_made_with_a_past(sdk: Client) -> None:
    supersteps = [
        {"updates": [{"values": {"n": 0}, "as_node": "__input__"}]},
        {"updates": [{"values": {"log": ["one"], "n": 1}, "as_node": "a"}]},
    ]
    thread = await sdk.threads.create(graph_id="steps", supersteps=supersteps)
    assert (thread["metadata"]["graph_id"], thread["values"]) == ("steps", {"log": ["one"], "n": 1})
    assert (await sdk.runs.wait(thread["thread_id"], "steps", input=None))["log"] == ["one", "b"]


@covers("threads.get", "thread_id", "include")
async def a_thread_is_got(sdk: Client) -> None:
    thread = await sdk.threads.create(metadata={"a": 1}, ttl={"ttl": 7, "strategy": "delete"})
    shown = await sdk.threads.get(thread["thread_id"], include=["ttl"])
    assert (shown["metadata"], shown["ttl"]["ttl_minutes"]) == ({"a": 1}, 7)
    with pytest.raises(NotFoundError):
        await sdk.threads.get(str(uuid.uuid4()))


@covers("threads.update", "thread_id", "metadata", "ttl", "return_minimal")
async def a_thread_is_patched(sdk: Client) -> None:
    thread_id = (await sdk.threads.create(metadata={"a": 1}))["thread_id"]
    assert (await sdk.threads.update(thread_id, metadata={"b": 2}, ttl=9))["metadata"] == {"a": 1, "b": 2}
    assert await sdk.threads.update(thread_id, metadata={"c": 3}, return_minimal=True) is None
    shown = await sdk.threads.get(thread_id, include=["ttl"])
    assert (shown["metadata"], shown["ttl"]["ttl_minutes"]) == ({"a": 1, "b": 2, "c": 3}, 9)


@covers("threads.delete", "thread_id")
async def a_thread_is_deleted(sdk: Client) -> None:
    thread_id = await finished(sdk)
    await sdk.threads.delete(thread_id)
    with pytest.raises(NotFoundError):
        await sdk.threads.get(thread_id)


@covers(
    "threads.search",
    *("metadata", "values", "ids", "status", "limit", "offset", "sort_by", "sort_order", "select", "extract"),
)
@covers("threads.count", "metadata", "values", "status")
async def threads_are_searched_and_counted(sdk: Client) -> None:
    mark = {"mark": uuid.uuid4().hex}
    fresh = (await sdk.threads.create(metadata=mark))["thread_id"]
    done = await finished(sdk, metadata=mark)

    async def found(**asked: Any) -> list[str]:
        return [thread["thread_id"] for thread in await sdk.threads.search(metadata=mark, **asked)]

    assert await found(sort_by="created_at", sort_order="asc") == [fresh, done]
    assert await found(sort_by="created_at", limit=1, offset=1) == [fresh]
    assert await found(values={"n": 2}, status="idle") == [done]
    assert await found(status="error") == []
    shown = await sdk.threads.search(ids=[done], select=["thread_id"], extract={"last": "values.log[-1]"})
    assert shown == [{"thread_id": done, "extracted": {"last": "b"}}]
    assert await sdk.threads.count(metadata=mark) == 2
    assert await sdk.threads.count(metadata=mark, values={"n": 2}, status="idle") == 1


@covers("threads.copy", "thread_id")
async def a_thread_is_copied(sdk: Client) -> None:
    thread_id = await finished(sdk)
    copy = await sdk.threads.copy(thread_id)
    assert copy["thread_id"] != thread_id
    assert (await sdk.threads.get_state(copy["thread_id"]))["values"] == DONE


@covers("threads.prune", "thread_ids", "strategy")
async def threads_are_pruned(sdk: Client) -> None:
    thread_id = await finished(sdk)
    assert await sdk.threads.prune([thread_id], strategy="keep_latest") == {"pruned_count": 1}
    assert len(await sdk.threads.get_history(thread_id)) == 1
    assert await sdk.threads.prune([thread_id], strategy="delete") == {"pruned_count": 1}
    assert await sdk.threads.search(ids=[thread_id]) == []


@covers("threads.get_history", "thread_id", "limit", "before", "metadata", "checkpoint", "select")
async def a_past_is_read(sdk: Client) -> None:
    thread_id = await finished(sdk)
    history = await sdk.threads.get_history(thread_id)
    assert [state["next"] for state in history] == [[], ["b"], ["a"], ["__start__"]]
    assert await sdk.threads.get_history(thread_id, limit=2) == history[:2]
    assert await sdk.threads.get_history(thread_id, before=history[1]["checkpoint"]) == history[2:]
    assert await sdk.threads.get_history(thread_id, metadata={"step": 0}) == history[2:3]
    root = {"checkpoint_ns": ""}
    assert await sdk.threads.get_history(thread_id, checkpoint=root) == history
    narrow = await sdk.threads.get_history(thread_id, limit=1, select=["values", "next"])
    assert [(state["values"], state["next"]) for state in narrow] == [(DONE, [])]


@covers("threads.get_state", "thread_id", "checkpoint", "checkpoint_id", "subgraphs", "select")
async def a_state_is_read(sdk: Client) -> None:
    thread_id = await finished(sdk)
    past = (await sdk.threads.get_history(thread_id))[1]
    by_whole = await sdk.threads.get_state(thread_id, checkpoint=past["checkpoint"])
    by_id = await sdk.threads.get_state(thread_id, checkpoint_id=past["checkpoint_id"])
    assert (by_whole["values"], by_whole["next"]) == (by_id["values"], by_id["next"]) == ({"log": ["a"], "n": 1}, ["b"])
    assert (await sdk.threads.get_state(thread_id, select=["values"]))["values"] == DONE
    asked = await new_thread(sdk)
    await sdk.runs.wait(asked, "nested", input={"n": 7, "messages": [{"role": "user", "content": "hi"}]})
    (task,) = (await sdk.threads.get_state(asked, subgraphs=True))["tasks"]
    assert task["state"]["next"] == ["child_ask"]


@covers("threads.update_state", "thread_id", "values", "as_node", "checkpoint", "checkpoint_id")
async def a_state_is_changed(sdk: Client) -> None:
    thread_id = await finished(sdk)
    past = (await sdk.threads.get_history(thread_id))[1]
    await sdk.threads.update_state(thread_id, {"n": 9}, as_node="a")
    head = await sdk.threads.get_state(thread_id)
    assert (head["values"]["n"], head["next"]) == (9, ["b"])
    for where in ({"checkpoint": past["checkpoint"]}, {"checkpoint_id": past["checkpoint_id"]}):
        made = await sdk.threads.update_state(thread_id, {"log": ["edited"]}, **where)
        head = await sdk.threads.get_state(thread_id)
        assert head["checkpoint"]["checkpoint_id"] == made["checkpoint"]["checkpoint_id"]
        assert head["values"] == {"log": ["a", "edited"], "n": 1}


@covers("threads.join_stream", "thread_id", "last_event_id", "stream_mode")
async def a_threads_runs_are_watched(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0}, stream_resumable=True)
    await sdk.runs.join(thread_id, run["run_id"])
    source = sdk.threads.join_stream(thread_id, last_event_id="-1", stream_mode=["lifecycle", "run_modes"])
    parts = await until(source, lambda part: part.event == "metadata" and part.data.get("status") == "run_done")
    assert {part.data["run_id"] for part in parts if part.event == "metadata"} == {run["run_id"]}
