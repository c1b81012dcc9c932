"""A second run on a busy thread: the four strategies, and delays."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError

from eventually import eventually, run_becomes, thread_rests
from live_server import Client

pytestmark = pytest.mark.anyio

LONG = {"n": 400, "delay": 0.05}


async def busy(sdk: Client, thread_id: str) -> dict[str, Any]:
    """A run that has finished at least one step and goes on for long."""
    run = await sdk.runs.create(thread_id, "slow", input=LONG)

    async def has_ticked() -> bool:
        state = await sdk.threads.get_state(thread_id)
        return bool(state["values"].get("ticks")) and state["next"] == ["tick"]

    await eventually(has_ticked)
    return run


async def test_reject_leaves_everything_as_it_is(sdk: Client, thread_id: str) -> None:
    first = await busy(sdk, thread_id)
    with pytest.raises(ConflictError, match="already running a task"):
        await sdk.runs.create(thread_id, "slow", input={"n": 1}, multitask_strategy="reject")
    assert [run["run_id"] for run in await sdk.runs.list(thread_id)] == [first["run_id"]]
    assert (await sdk.runs.get(thread_id, first["run_id"]))["status"] == "running"
    await sdk.runs.cancel(thread_id, first["run_id"], wait=True)


async def test_enqueued_runs_go_one_after_the_other(sdk: Client, thread_id: str) -> None:
    first = await sdk.runs.create(thread_id, "slow", input={"n": 6, "delay": 0.05})
    second = await sdk.runs.create(thread_id, "steps", input={"n": 0})
    third = await sdk.runs.create(thread_id, "steps", input={"n": 0})
    assert (await sdk.threads.get(thread_id))["status"] == "busy"
    await sdk.runs.join(thread_id, third["run_id"])
    runs = await sdk.runs.list(thread_id)
    assert [run["run_id"] for run in runs] == [third["run_id"], second["run_id"], first["run_id"]]
    assert {run["status"] for run in runs} == {"success"}
    assert (await sdk.threads.get_state(thread_id))["values"]["log"] == ["a", "b", "a", "b"]
    assert await thread_rests(sdk, thread_id) == "idle"


async def test_interrupt_stops_the_other_and_keeps_what_it_did(sdk: Client, thread_id: str) -> None:
    first = await busy(sdk, thread_id)
    waiting = await sdk.runs.create(thread_id, "slow", input={"n": 1})
    newest = await sdk.runs.create(thread_id, "steps", input={"n": 0}, multitask_strategy="interrupt")
    await sdk.runs.join(thread_id, newest["run_id"])
    statuses = {run["run_id"]: run["status"] for run in await sdk.runs.list(thread_id)}
    assert statuses == {
        first["run_id"]: "interrupted",
        waiting["run_id"]: "interrupted",
        newest["run_id"]: "success",
    }
    history = await sdk.threads.get_history(thread_id, limit=1000)
    assert {state["metadata"]["run_id"] for state in history} == {first["run_id"], newest["run_id"]}


async def test_rollback_undoes_the_other(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    first = await busy(sdk, thread_id)
    newest = await sdk.runs.create(thread_id, "steps", input={"n": 0}, multitask_strategy="rollback")
    await sdk.runs.join(thread_id, newest["run_id"])
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, first["run_id"])
    history = await sdk.threads.get_history(thread_id, limit=1000)
    assert first["run_id"] not in {state["metadata"]["run_id"] for state in history}
    assert (await sdk.threads.get_state(thread_id))["values"]["log"] == ["a", "b", "a", "b"]
    assert await thread_rests(sdk, thread_id) == "idle"


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_who_follows_a_displaced_run_sees_its_end(sdk: Client, thread_id: str, strategy: str) -> None:
    first = await busy(sdk, thread_id)
    joined = asyncio.create_task(sdk.runs.join(thread_id, first["run_id"]))
    seen = asyncio.create_task(collect(sdk.runs.join_stream(thread_id, first["run_id"])))
    newest = await sdk.runs.create(thread_id, "steps", input={"n": 0}, multitask_strategy=strategy)
    async with asyncio.timeout(60):
        await sdk.runs.join(thread_id, newest["run_id"])
        assert "error" not in {part.event for part in await seen}
        await joined


async def collect(stream: Any) -> list[Any]:
    return [part async for part in stream]


async def test_a_delayed_run_does_not_begin_before_its_time(sdk: Client, thread_id: str) -> None:
    began = time.monotonic()
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0}, after_seconds=1)
    await sdk.runs.join(thread_id, run["run_id"])
    assert time.monotonic() - began >= 0.99
    await run_becomes(sdk, run, "success")


async def test_a_delayed_run_is_pending_and_can_be_cancelled(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0}, after_seconds=3600)
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "pending"
    assert (await sdk.threads.get(thread_id))["status"] == "busy"
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


async def test_a_thread_can_be_made_by_its_first_run(sdk: Client) -> None:
    unknown = "01f00000-0000-7000-8000-00000000e2e0"
    with pytest.raises(NotFoundError):
        await sdk.runs.create(unknown, "steps", input={"n": 0})
    values = await sdk.runs.wait(unknown, "steps", input={"n": 0}, if_not_exists="create", metadata={"by": "run"})
    assert values["log"] == ["a", "b"]
    assert (await sdk.threads.get(unknown))["metadata"]["by"] == "run"
    await sdk.threads.delete(unknown)
