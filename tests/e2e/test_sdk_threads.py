"""Threads through the official client: what belongs to their life, and their state."""

from __future__ import annotations

import uuid

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError

from live_server import Client

pytestmark = pytest.mark.anyio


async def test_a_thread_is_made_read_patched_and_deleted(sdk: Client) -> None:
    chosen = str(uuid.uuid4())
    made = await sdk.threads.create(thread_id=chosen, metadata={"a": 1})
    assert (made["thread_id"], made["status"], made["values"]) == (chosen, "idle", None)
    patched = await sdk.threads.update(chosen, metadata={"b": 2})
    assert patched["metadata"] == {"a": 1, "b": 2}
    assert await sdk.threads.get(chosen) == patched
    assert await sdk.threads.create(thread_id=chosen, if_exists="do_nothing") == patched
    with pytest.raises(ConflictError):
        await sdk.threads.create(thread_id=chosen)
    await sdk.threads.delete(chosen)
    with pytest.raises(NotFoundError):
        await sdk.threads.get(chosen)


async def test_threads_are_searched_counted_and_paged(sdk: Client) -> None:
    mark = uuid.uuid4().hex
    made = [(await sdk.threads.create(metadata={"mark": mark, "n": n}))["thread_id"] for n in range(5)]
    assert await sdk.threads.count(metadata={"mark": mark}) == 5
    pages = [await sdk.threads.search(metadata={"mark": mark}, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [thread["thread_id"] for page in pages for thread in page] == made[::-1]
    ordered = await sdk.threads.search(
        metadata={"mark": mark}, sort_by="created_at", sort_order="asc", select=["thread_id"]
    )
    assert ordered == [{"thread_id": thread_id} for thread_id in made]
    assert await sdk.threads.search(ids=made[:1], select=["metadata"]) == [{"metadata": {"mark": mark, "n": 0}}]
    assert await sdk.threads.search(metadata={"mark": mark}, status="busy") == []


async def test_a_copy_has_the_state_and_not_the_runs(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    copy_id = (await sdk.threads.copy(thread_id))["thread_id"]
    states = [(await sdk.threads.get_state(one))["values"] for one in (thread_id, copy_id)]
    assert states == [{"log": ["a", "b"], "n": 2}] * 2
    assert len(await sdk.threads.get_history(copy_id)) == 4
    assert await sdk.runs.list(copy_id) == []


async def test_pruning_keeps_the_latest_state_or_nothing(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    unknown = str(uuid.uuid4())
    assert await sdk.threads.prune([thread_id, unknown], strategy="keep_latest") == {"pruned_count": 1}
    assert len(await sdk.threads.get_history(thread_id)) == 1
    assert (await sdk.threads.get_state(thread_id))["values"] == {"log": ["a", "b"], "n": 2}
    assert await sdk.threads.prune([thread_id, unknown]) == {"pruned_count": 1}
    with pytest.raises(NotFoundError):
        await sdk.threads.get(thread_id)


async def test_history_is_newest_first_and_can_be_narrowed(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    history = await sdk.threads.get_history(thread_id)
    assert [state["metadata"]["step"] for state in history] == [2, 1, 0, -1]
    assert [state["next"] for state in history] == [[], ["b"], ["a"], ["__start__"]]
    older = await sdk.threads.get_history(thread_id, before=history[1]["checkpoint"])
    assert [state["checkpoint_id"] for state in older] == [state["checkpoint_id"] for state in history[2:]]
    assert await sdk.threads.get_history(thread_id, metadata={"step": 0}) == history[2:3]
    past = await sdk.threads.get_state(thread_id, checkpoint=history[1]["checkpoint"])
    assert (past["values"], past["next"]) == ({"log": ["a"], "n": 1}, ["b"])


async def test_a_run_from_an_old_checkpoint_repeats_what_followed(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    after_a = next(state for state in await sdk.threads.get_history(thread_id) if state["next"] == ["b"])
    values = await sdk.runs.wait(thread_id, "steps", input=None, checkpoint=after_a["checkpoint"])
    assert values == {"log": ["a", "b"], "n": 2}
    history = await sdk.threads.get_history(thread_id)
    assert len(history) > 4
    by_id = await sdk.runs.wait(thread_id, "steps", input=None, checkpoint_id=after_a["checkpoint_id"])
    assert by_id == values


async def test_an_edited_past_becomes_the_head(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    after_a = next(state for state in await sdk.threads.get_history(thread_id) if state["next"] == ["b"])
    made = await sdk.threads.update_state(thread_id, {"log": ["edited"]}, checkpoint=after_a["checkpoint"])
    head = await sdk.threads.get_state(thread_id)
    assert head["checkpoint"]["checkpoint_id"] == made["checkpoint"]["checkpoint_id"]
    assert head["parent_checkpoint"]["checkpoint_id"] == after_a["checkpoint_id"]
    assert (await sdk.threads.get(thread_id))["status"] == "interrupted"
    assert (await sdk.runs.wait(thread_id, "steps", input=None))["log"] == ["a", "edited", "b"]


async def test_a_thread_serves_several_graphs(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    await sdk.runs.wait(thread_id, "hitl", input={"n": 5})
    thread = await sdk.threads.get(thread_id)
    assert thread["metadata"]["graph_id"] == "hitl"
    assert thread["values"] == {"log": ["a", "b"], "n": 5}
