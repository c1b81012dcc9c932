"""Stopping runs: by request, in numbers, by leaving."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError

from eventually import eventually, run_becomes, thread_rests
from live_server import Client, LiveServer

pytestmark = pytest.mark.anyio

LONG = {"n": 400, "delay": 0.05}
LEFT = "client disconnected from the run stream (on_disconnect=cancel)"


async def running(sdk: Client, thread_id: str, **options: Any) -> dict[str, Any]:
    run = await sdk.runs.create(thread_id, "slow", input=LONG, **options)
    await run_becomes(sdk, run, "running")
    return run


async def test_a_cancelled_run_stops_and_its_thread_goes_on_from_there(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "slow", input={"n": 60, "delay": 0.5})

    async def has_ticked() -> bool:
        state = await sdk.threads.get_state(thread_id)
        return bool(state["values"].get("ticks")) and state["next"] == ["tick"]

    await eventually(has_ticked)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    thread = await sdk.threads.get(thread_id)
    assert (thread["status"], thread["error"]["error"]) == ("interrupted", "UserInterrupt")
    done = len((await sdk.threads.get_state(thread_id))["values"]["ticks"])
    assert 1 <= done < 60
    await sdk.threads.update_state(thread_id, {"delay": 0})
    values = await sdk.runs.wait(thread_id, "slow", input=None)
    assert values["ticks"] == list(range(60))


async def test_cancelling_twice_or_too_late_says_so(sdk: Client, thread_id: str) -> None:
    run = await running(sdk, thread_id)
    results = await asyncio.gather(
        *(sdk.runs.cancel(thread_id, run["run_id"]) for _ in range(5)), return_exceptions=True
    )
    assert {type(result) for result in results} <= {type(None), NotFoundError}
    assert None in results
    await run_becomes(sdk, run, "interrupted")
    with pytest.raises(NotFoundError, match="No matching runs to cancel"):
        await sdk.runs.cancel(thread_id, run["run_id"])
    with pytest.raises(NotFoundError, match="No runs found to cancel"):
        await sdk.runs.cancel(thread_id, str(uuid.uuid4()))


@pytest.mark.parametrize("wait", [True, False])
async def test_rollback_leaves_no_trace(sdk: Client, thread_id: str, wait: bool) -> None:
    await sdk.runs.wait(thread_id, "slow", input={"n": 1, "delay": 0})
    before = await sdk.threads.get_history(thread_id)
    run = await running(sdk, thread_id)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=wait, action="rollback")
    assert await thread_rests(sdk, thread_id) == "idle"
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, run["run_id"])
    assert await sdk.threads.get_history(thread_id) == before
    thread = await sdk.threads.get(thread_id)
    assert (thread["values"]["ticks"], thread["error"]["error"]) == ([0], "UserRollback")


async def test_a_blocking_node_does_not_hold_up_its_cancellation(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "blocking", input={"seconds": 60})
    await run_becomes(sdk, run, "running")
    async with asyncio.timeout(40):  # less than the node takes
        await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    assert (await sdk.runs.wait(thread_id, "steps", input={"n": 0}))["log"][-2:] == ["a", "b"]


async def test_an_endless_graph_is_stopped_by_its_limit_or_by_a_cancel(sdk: Client, thread_id: str) -> None:
    with pytest.raises(Exception, match="GraphRecursionError"):
        await sdk.runs.wait(thread_id, "endless", input={}, config={"recursion_limit": 10})
    run = await sdk.runs.create(thread_id, "endless", input={}, config={"recursion_limit": 10**9})
    await run_becomes(sdk, run, "running")
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    # Between the end of a step and its checkpoint no node is due: the thread is then idle.
    assert await thread_rests(sdk, thread_id) in ("interrupted", "idle")


async def test_after_a_rollback_a_thread_whose_last_run_failed_shows_that_again(sdk: Client, thread_id: str) -> None:
    with pytest.raises(Exception, match="in a bad mood"):
        await sdk.runs.wait(thread_id, "moody", input={})
    run = await running(sdk, thread_id)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True, action="rollback")
    assert await thread_rests(sdk, thread_id) == "error"


async def test_joiners_of_a_cancelled_run_get_what_there_is(sdk: Client, thread_id: str) -> None:
    run = await running(sdk, thread_id)
    joined = asyncio.create_task(sdk.runs.join(thread_id, run["run_id"]))
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    async with asyncio.timeout(60):
        assert "__error__" not in await joined


async def test_many_runs_of_a_thread_are_cancelled_at_once(sdk: Client, thread_id: str) -> None:
    runs = [await sdk.runs.create(thread_id, "slow", input=LONG) for _ in range(3)]
    await sdk.runs.cancel_many(thread_id=thread_id, run_ids=[run["run_id"] for run in runs])
    for run in runs:
        await run_becomes(sdk, run, "interrupted")
    assert await thread_rests(sdk, thread_id) != "busy"
    with pytest.raises(NotFoundError):
        await sdk.runs.cancel_many(thread_id=thread_id, run_ids=[runs[0]["run_id"]])


async def test_everything_in_a_state_is_cancelled(own_server: Any) -> None:
    server: LiveServer = own_server(n_jobs_per_worker=2)
    async with get_client(url=server.url) as sdk:
        threads = [(await sdk.threads.create())["thread_id"] for _ in range(4)]
        runs: list[Any] = [await sdk.runs.create(thread_id, "slow", input=LONG) for thread_id in threads]
        for run in runs[:2]:
            await run_becomes(sdk, run, "running")
        await sdk.runs.cancel_many(status="pending")
        assert [(await sdk.runs.get(r["thread_id"], r["run_id"]))["status"] for r in runs[2:]] == ["interrupted"] * 2
        await sdk.runs.cancel_many(status="all", action="rollback")
        for thread_id in threads[:2]:
            assert await thread_rests(sdk, thread_id) == "idle"
        with pytest.raises(NotFoundError):
            await sdk.runs.cancel_many(status="all")


async def test_a_deleted_run_is_stopped_and_its_thread_free(sdk: Client, thread_id: str) -> None:
    run = await running(sdk, thread_id)
    await sdk.runs.delete(thread_id, run["run_id"])
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, run["run_id"])
    with pytest.raises(NotFoundError):
        await sdk.runs.delete(thread_id, run["run_id"])
    assert await thread_rests(sdk, thread_id) != "busy"


@pytest.mark.parametrize("operation", ["stream", "wait"])
@pytest.mark.parametrize("stateless", [False, True])
async def test_leaving_stops_a_run_that_asked_for_it(
    sdk: Client, http: httpx.AsyncClient, thread_id: str, operation: str, stateless: bool
) -> None:
    path = f"/runs/{operation}" if stateless else f"/threads/{thread_id}/runs/{operation}"
    mark = {"mark": uuid.uuid4().hex}
    body = {"assistant_id": "slow", "input": LONG, "metadata": mark, "on_disconnect": "cancel", "on_completion": "keep"}
    async with http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        if stateless:
            thread_id = (await sdk.threads.search(metadata=mark))[0]["thread_id"]
    (run,) = await sdk.runs.list(thread_id)
    await run_becomes(sdk, run, "interrupted")
    thread = await sdk.threads.get(run["thread_id"])
    assert thread["error"] == {"error": "UserInterrupt", "message": LEFT}


@pytest.mark.parametrize("options", [{}, {"on_disconnect": "continue"}])
async def test_leaving_has_no_effect_otherwise(
    sdk: Client, http: httpx.AsyncClient, thread_id: str, options: dict[str, str]
) -> None:
    body = {"assistant_id": "slow", "input": {"n": 12, "delay": 0.1}, **options}
    async with http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as answer:
        run = {"thread_id": thread_id, "run_id": answer.headers["location"].split("/")[4]}
    await run_becomes(sdk, run, "success")


async def test_a_joiner_who_leaves_stops_the_run_only_if_asked(
    sdk: Client, http: httpx.AsyncClient, thread_id: str
) -> None:
    run = await running(sdk, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    async with http.stream("GET", f"{path}/stream") as answer:
        assert await anext(answer.aiter_lines())
    async with http.stream("GET", f"{path}/stream?cancel_on_disconnect=true") as answer:
        assert await anext(answer.aiter_lines())
        assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "running"
    await run_becomes(sdk, run, "interrupted")
