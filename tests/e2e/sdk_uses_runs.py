"""Each method of the SDK's runs, used; what the ways of starting one have in common is in `sdk_runs_started`."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk.errors import NotFoundError

from e2e.sdk_entries import covers
from e2e.sdk_kinds import all_of, until
from e2e.sdk_runs_started import DONE, new_thread
from eventually import run_becomes, thread_rests
from live_server import Client

LONG = {"n": 400, "delay": 0.05}
ADD = {"messages": [{"role": "user", "content": "add 2 3"}]}
HI = {"n": 0, "messages": [{"role": "user", "content": "hi"}]}


async def started(sdk: Client, thread_id: str, **given: Any) -> dict[str, Any]:
    """A run that goes on for long."""
    run = await sdk.runs.create(thread_id, "slow", input=LONG, **given)
    await run_becomes(sdk, run, "running")
    return run


@covers("runs.create", "stream_mode", "stream_subgraphs", "stream_resumable")
@covers("runs.join_stream", "thread_id", "run_id", "stream_mode", "last_event_id")
async def a_run_is_watched_from_its_beginning(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    given: dict[str, Any] = {"stream_mode": ["updates", "values"], "stream_subgraphs": True, "stream_resumable": True}
    run = await sdk.runs.create(thread_id, "nested", input=HI, **given)
    await sdk.runs.join(thread_id, run["run_id"])
    whole = await all_of(sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"))
    assert any(part.event.startswith("updates|child:") for part in whole)
    rest = await all_of(sdk.runs.join_stream(thread_id, run["run_id"], last_event_id=whole[2].id))
    assert rest == whole[3:]
    values = await all_of(sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1", stream_mode="values"))
    assert {part.event.partition("|")[0] for part in values} - {"metadata"} == {"values"}


@covers("runs.join_stream", "cancel_on_disconnect")
async def who_leaves_a_stream_may_end_the_run(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await sdk.runs.create(thread_id, "slow", input=LONG, stream_mode="custom", stream_resumable=True)
    source = sdk.runs.join_stream(thread_id, run["run_id"], cancel_on_disconnect=True, last_event_id="-1")
    await until(source, lambda part: part.event == "custom")
    del source
    await run_becomes(sdk, run, "interrupted")


@covers("runs.stream", "stream_mode", "stream_subgraphs", "stream_resumable", "feedback_keys")
async def a_run_is_streamed_in_several_modes(sdk: Client) -> None:
    thread_id, told = await new_thread(sdk), list[Any]()
    given: dict[str, Any] = {"stream_mode": ["updates", "messages-tuple"], "stream_subgraphs": True}
    given |= {"stream_resumable": True, "feedback_keys": ["score"], "on_run_created": told.append}
    parts = await all_of(sdk.runs.stream(thread_id, "nested", input=HI, **given))
    names = {part.event.partition("|")[0] for part in parts}
    assert names == {"metadata", "updates", "messages"}
    assert any("|" in part.event for part in parts)
    again = await all_of(sdk.runs.join_stream(thread_id, told[0]["run_id"], last_event_id="-1"))
    assert [part.event for part in again] == [part.event for part in parts]


@covers("runs.stream", "version")
async def the_second_form_of_a_stream_tells_parts_apart_by_type(sdk: Client) -> None:
    given: dict[str, Any] = {"stream_mode": ["values", "updates"], "version": "v2"}
    parts = await all_of(sdk.runs.stream(None, "steps", input={"n": 0}, **given))
    updates = [part["data"] for part in parts if part["type"] == "updates"]
    assert [list(update) for update in updates] == [["a"], ["b"]]
    assert [part["data"] for part in parts if part["type"] == "values"][-1] == DONE


@covers("runs.stream", "on_disconnect")
async def a_run_ends_with_its_stream_or_goes_on(sdk: Client) -> None:
    for on_disconnect, end in (("cancel", "interrupted"), ("continue", "success")):
        thread_id, told = await new_thread(sdk), list[Any]()
        given: dict[str, Any] = {"on_disconnect": on_disconnect, "on_run_created": told.append}
        slow = LONG if on_disconnect == "cancel" else {"n": 4, "delay": 0.05}
        source = sdk.runs.stream(thread_id, "slow", input=slow, stream_mode="custom", **given)
        await until(source, lambda part: part.event == "custom")
        del source
        await run_becomes(sdk, {"thread_id": thread_id, "run_id": told[0]["run_id"]}, end)


@covers("runs.wait", "on_disconnect", "raise_error")
async def a_failure_is_raised_or_returned(sdk: Client) -> None:
    given: dict[str, Any] = {"input": {"n": 0}, "on_disconnect": "continue"}
    with pytest.raises(Exception, match="boom went the node"):
        await sdk.runs.wait(await new_thread(sdk), "fail", raise_error=True, **given)
    answer = await sdk.runs.wait(await new_thread(sdk), "fail", raise_error=False, **given)
    assert answer["__error__"] == {"error": "ValueError", "message": "boom went the node"}


@covers("runs.create_batch", "payloads")
async def several_runs_are_made_at_once(sdk: Client) -> None:
    runs = await sdk.runs.create_batch(
        [{"assistant_id": graph, "input": {"n": 0}, "on_completion": "keep"} for graph in ("steps", "memory")]
    )
    ends = [await sdk.runs.join(run["thread_id"], run["run_id"]) for run in runs]
    assert [end["log"] for end in ends] == [["a", "b"], ["graph wrote this"]]


@covers("runs.get", "thread_id", "run_id")
@covers("runs.join", "thread_id", "run_id")
async def a_run_is_joined_and_read(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0}, metadata={"a": 1})
    assert (run["status"], run["thread_id"]) == ("pending", thread_id)
    assert await sdk.runs.join(thread_id, run["run_id"]) == DONE
    shown = await sdk.runs.get(thread_id, run["run_id"])
    assert (shown["status"], shown["metadata"]["a"], shown["kwargs"]["input"]) == ("success", 1, {"n": 0})


@covers("runs.list", "thread_id", "limit", "offset", "status", "select")
async def a_threads_runs_are_listed(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    made = [await sdk.runs.create(thread_id, "steps", input={"n": 0}) for _ in range(3)]
    await sdk.runs.join(thread_id, made[-1]["run_id"])
    newest_first = [run["run_id"] for run in made[::-1]]

    async def listed(**asked: Any) -> list[str]:
        return [run["run_id"] for run in await sdk.runs.list(thread_id, **asked)]

    assert await listed(status="success") == newest_first
    assert await listed(limit=1, offset=1) == newest_first[1:2]
    assert await listed(status="error") == []
    assert await sdk.runs.list(thread_id, limit=1, select=["status"]) == [{"status": "success"}]


@covers("runs.delete", "thread_id", "run_id")
async def a_run_is_deleted(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0})
    await sdk.runs.join(thread_id, run["run_id"])
    await sdk.runs.delete(thread_id, run["run_id"])
    assert await sdk.runs.list(thread_id) == []


@covers("runs.cancel", "thread_id", "run_id", "wait", "action")
async def a_run_is_cancelled(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await started(sdk, thread_id)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True, action="interrupt")
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    undone = await started(sdk, thread_id)
    await sdk.runs.cancel(thread_id, undone["run_id"], wait=True, action="rollback")
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, undone["run_id"])


@covers("runs.cancel_many", "thread_id", "run_ids", "action")
async def named_runs_are_cancelled(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await started(sdk, thread_id)
    waiting = await sdk.runs.create(thread_id, "slow", input={"n": 1, "delay": 0})
    await sdk.runs.cancel_many(thread_id=thread_id, run_ids=[run["run_id"]], action="interrupt")
    await run_becomes(sdk, run, "interrupted")
    await run_becomes(sdk, waiting, "success")


@covers("runs.cancel_many", "status", kinds=("async", "sync"))
async def runs_of_a_status_are_cancelled(sdk: Client) -> None:
    thread_id = await new_thread(sdk)
    run = await started(sdk, thread_id)
    waiting = await sdk.runs.create(thread_id, "slow", input={"n": 1, "delay": 0})
    await sdk.runs.cancel_many(status="pending")
    await run_becomes(sdk, waiting, "interrupted")
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "running"
    await sdk.runs.cancel_many(status="running", action="rollback")
    assert await thread_rests(sdk, thread_id) != "busy"
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, run["run_id"])
