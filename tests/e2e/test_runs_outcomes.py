"""How runs end, and what is left of them."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError

from eventually import eventually, run_becomes, thread_rests
from live_server import Client, LiveServer

pytestmark = pytest.mark.anyio


async def test_a_run_is_listed_read_and_deleted(sdk: Client, thread_id: str) -> None:
    runs = [await sdk.runs.create(thread_id, "steps", input={"n": 0}, metadata={"n": n}) for n in range(3)]
    for run in runs:
        await run_becomes(sdk, run, "success")
    ids = [run["run_id"] for run in runs]
    assert [run["run_id"] for run in await sdk.runs.list(thread_id)] == ids[::-1]
    assert [run["run_id"] for run in await sdk.runs.list(thread_id, limit=1, offset=1)] == ids[1:2]
    assert await sdk.runs.list(thread_id, status="error") == []
    assert await sdk.runs.list(thread_id, select=["run_id"], limit=1) == [{"run_id": ids[2]}]
    await sdk.runs.delete(thread_id, ids[0])
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, ids[0])
    assert (await sdk.threads.get_state(thread_id))["values"]["log"] == ["a", "b"] * 3
    other = (await sdk.threads.create())["thread_id"]
    with pytest.raises(NotFoundError):
        await sdk.runs.get(other, ids[1])


async def test_a_run_shows_what_it_was_made_with(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(
        thread_id,
        "steps",
        input={"n": 0},
        metadata={"m": 1},
        config={"tags": ["t"], "recursion_limit": 7},
        stream_mode=["values", "updates"],
        interrupt_before=["nobody"],
        durability="sync",
        multitask_strategy="enqueue",
    )
    assert (run["status"], run["thread_id"], run["multitask_strategy"]) == ("pending", thread_id, "enqueue")
    kwargs = run["kwargs"]
    assert (kwargs["input"], kwargs["stream_mode"]) == ({"n": 0}, ["values", "updates"])
    assert (kwargs["interrupt_before"], kwargs["durability"]) == (["nobody"], "sync")
    assert (kwargs["config"]["tags"], kwargs["config"]["recursion_limit"]) == (["t"], 7)
    assert run["metadata"]["m"] == 1
    await run_becomes(sdk, run, "success")


@pytest.mark.parametrize(("durability", "checkpoints"), [("sync", 4), ("async", 4), ("exit", 1)])
async def test_durability_says_when_checkpoints_are_written(
    sdk: Client, thread_id: str, durability: Any, checkpoints: int
) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0}, durability=durability)
    assert len(await sdk.threads.get_history(thread_id)) == checkpoints


async def test_a_failed_run_raises_and_can_be_tried_again(sdk: Client, thread_id: str) -> None:
    with pytest.raises(Exception, match="RuntimeError: in a bad mood"):
        await sdk.runs.wait(thread_id, "moody", input={})
    told = await sdk.runs.wait(thread_id, "moody", input=None, raise_error=False)
    assert told == {"__error__": {"error": "RuntimeError", "message": "in a bad mood"}}
    thread = await sdk.threads.get(thread_id)
    assert (thread["status"], thread["error"]) == ("error", told["__error__"])
    state = await sdk.threads.get_state(thread_id)
    assert state["next"] == ["moody"]
    assert "in a bad mood" in state["tasks"][0]["error"]
    values = await sdk.runs.wait(thread_id, "moody", input=None, config={"configurable": {"mood": "good"}})
    assert values["log"] == ["first", "in a good mood"]
    assert (await sdk.threads.get(thread_id))["status"] == "idle"
    assert [run["status"] for run in await sdk.runs.list(thread_id)] == ["success", "error", "error"]


async def test_a_run_on_nothing_fails(sdk: Client, thread_id: str) -> None:
    with pytest.raises(Exception, match="EmptyInputError"):
        await sdk.runs.wait(thread_id, "steps", input=None)


async def test_a_blocking_node_does_not_block_others(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "blocking", input={"seconds": 30})
    await run_becomes(sdk, run, "running")
    other = (await sdk.threads.create())["thread_id"]
    assert (await sdk.runs.wait(other, "steps", input={"n": 0}))["log"] == ["a", "b"]
    assert (await sdk.runs.wait(other, "blocking", input={"seconds": 0}))["log"] == ["a", "b", "blocked"]
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "running"
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)


async def test_a_run_that_takes_too_long_is_stopped(own_server: Any) -> None:
    server: LiveServer = own_server(bg_job_timeout_s=0.7)
    async with get_client(url=server.url) as client:
        sdk: Client = client
        thread_id = (await sdk.threads.create())["thread_id"]
        values: Any = await sdk.runs.wait(thread_id, "slow", input={"n": 100, "delay": 0.1}, raise_error=False)
        assert values["__error__"]["error"] == "RunTimeout"
        (run,) = await sdk.runs.list(thread_id)
        assert run["status"] == "timeout"
        assert await thread_rests(sdk, thread_id) == "error"
        parts = [part async for part in sdk.runs.stream(thread_id, "slow", input={"n": 100, "delay": 0.1})]
        assert parts[-1].event == "error"

        async def runs_again() -> bool:  # a slow machine may take longer than this server lets runs take
            return (await sdk.runs.wait(thread_id, "steps", input={"n": 0}, raise_error=False)).get("n") == 2

        await eventually(runs_again)
