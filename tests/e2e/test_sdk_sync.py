"""The official client without async: the same operations, one after the other."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk.errors import NotFoundError

from live_server import Client


def test_a_thread_its_runs_and_its_past(sync_sdk: Client) -> None:
    thread_id = sync_sdk.threads.create(metadata={"sync": True})["thread_id"]
    assert sync_sdk.runs.wait(thread_id, "steps", input={"n": 0}) == {"log": ["a", "b"], "n": 2}
    (run,) = sync_sdk.runs.list(thread_id)
    assert sync_sdk.runs.get(thread_id, run["run_id"])["status"] == "success"
    history = sync_sdk.threads.get_history(thread_id)
    assert len(history) == 4
    sync_sdk.threads.update_state(thread_id, {"log": ["edited"]}, checkpoint=history[1]["checkpoint"])
    assert sync_sdk.runs.wait(thread_id, "steps", input=None)["log"] == ["a", "edited", "b"]
    sync_sdk.threads.delete(thread_id)
    with pytest.raises(NotFoundError):
        sync_sdk.threads.get(thread_id)


def test_streaming_an_interrupt_and_its_answer(sync_sdk: Client) -> None:
    thread_id = sync_sdk.threads.create()["thread_id"]
    parts: list[Any] = list(sync_sdk.runs.stream(thread_id, "hitl", input={"n": 1}, stream_mode="updates"))
    assert [part.event for part in parts] == ["metadata", "updates"]
    assert sync_sdk.threads.get(thread_id)["status"] == "interrupted"
    parts = list(sync_sdk.runs.stream(thread_id, "hitl", command={"resume": "ok"}, stream_mode="updates"))
    assert [list(part.data) for part in parts[1:]] == [["ask"], ["b"]]


def test_a_resumable_stream_is_taken_up(sync_sdk: Client) -> None:
    thread_id = sync_sdk.threads.create()["thread_id"]
    run = sync_sdk.runs.create(
        thread_id, "slow", input={"n": 6, "delay": 0.03}, stream_mode="custom", stream_resumable=True
    )
    first: list[Any] = []
    for part in sync_sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"):
        first.append(part)
        if len(first) == 3:
            break
    rest: list[Any] = list(sync_sdk.runs.join_stream(thread_id, run["run_id"], last_event_id=first[-1].id))
    assert [part.data["tick"] for part in (first + rest)[1:]] == list(range(6))


def test_cancelling_and_joining(sync_sdk: Client) -> None:
    thread_id = sync_sdk.threads.create()["thread_id"]
    run = sync_sdk.runs.create(thread_id, "slow", input={"n": 400, "delay": 0.05})
    sync_sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert sync_sdk.runs.get(thread_id, run["run_id"])["status"] == "interrupted"
    assert "__error__" not in sync_sdk.runs.join(thread_id, run["run_id"])


def test_runs_without_a_thread_and_assistants(sync_sdk: Client) -> None:
    assert sync_sdk.runs.wait(None, "steps", input={"n": 0})["log"] == ["a", "b"]
    made = sync_sdk.assistants.create("steps", name="sync")
    assert sync_sdk.runs.wait(None, made["assistant_id"], input={"n": 0})["n"] == 2
    assert sync_sdk.assistants.search(graph_id="steps", limit=1)
    sync_sdk.assistants.delete(made["assistant_id"])
