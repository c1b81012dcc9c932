"""Runs without a thread of the client's."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk.errors import LangGraphError, NotFoundError, UnprocessableEntityError

from eventually import eventually, run_becomes, thread_rests
from live_server import Client

pytestmark = pytest.mark.anyio


async def is_gone(sdk: Client, thread_id: str) -> bool:
    try:
        await sdk.threads.get(thread_id)
    except NotFoundError:
        return True
    return False


async def test_wait_and_stream_leave_nothing_behind(sdk: Client) -> None:
    made: list[Any] = []
    assert await sdk.runs.wait(None, "steps", input={"n": 0}, on_run_created=made.append) == {"log": ["a", "b"], "n": 2}
    await eventually(lambda: is_gone(sdk, made[0]["thread_id"]))
    parts = [part async for part in sdk.runs.stream(None, "steps", input={"n": 0}, stream_mode="updates")]
    assert [part.event for part in parts] == ["metadata", "updates", "updates"]


async def test_a_background_run_is_seen_while_it_goes_on(sdk: Client) -> None:
    run = await sdk.runs.create(None, "slow", input={"n": 5, "delay": 0.05}, metadata={"who": "me"})
    assert (await sdk.threads.get(run["thread_id"]))["metadata"]["who"] == "me"
    assert (await sdk.runs.join(run["thread_id"], run["run_id"]))["ticks"] == list(range(5))
    await eventually(lambda: is_gone(sdk, run["thread_id"]))


async def test_a_thread_may_be_kept(sdk: Client) -> None:
    run = await sdk.runs.create(None, "hitl", input={"n": 1}, on_completion="keep")
    await run_becomes(sdk, run, "success")
    thread_id = run["thread_id"]
    assert await thread_rests(sdk, thread_id) == "interrupted"
    assert (await sdk.runs.wait(thread_id, "hitl", command={"resume": "ok"}))["log"] == ["answer=ok", "b"]


async def test_an_interrupt_just_ends_it(sdk: Client) -> None:
    values = await sdk.runs.wait(None, "hitl", input={"n": 1})
    assert values["__interrupt__"][0]["value"] == {"question": "go on?"}


async def test_a_failure_is_raised_and_leaves_nothing(sdk: Client) -> None:
    made: list[Any] = []
    with pytest.raises(Exception, match="ValueError: boom went the node"):
        await sdk.runs.wait(None, "fail", input={"n": 0}, on_run_created=made.append)
    await eventually(lambda: is_gone(sdk, made[0]["thread_id"]))


async def test_a_batch_is_made_in_order_or_not_at_all(sdk: Client) -> None:
    payloads: list[Any] = [
        {"assistant_id": "steps", "input": {"n": n}, "metadata": {"n": n}, "on_completion": "keep"} for n in range(3)
    ]
    runs = await sdk.runs.create_batch(payloads)
    assert [run["metadata"]["n"] for run in runs] == [0, 1, 2]
    for run in runs:
        await run_becomes(sdk, run, "success")
    before = await sdk.threads.count()
    with pytest.raises(UnprocessableEntityError, match=r"body\.1\.assistant_id"):
        await sdk.runs.create_batch([payloads[0], {"assistant_id": 7}])
    with pytest.raises(LangGraphError):
        await sdk.runs.create_batch([payloads[0], {**payloads[0], "assistant_id": "no such graph"}])
    assert await sdk.threads.count() == before
