"""Streams through the official client: every mode, subgraphs, what comes in which order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from live_server import Client

pytestmark = pytest.mark.anyio

Parts = list[Any]


async def parts_of(stream: Any) -> Parts:
    return [part async for part in stream]


def named(parts: Parts, name: str) -> list[Any]:
    return [part.data for part in parts if part.event == name]


async def test_a_stream_begins_with_the_runs_id_which_is_known_before(sdk: Client, thread_id: str) -> None:
    known: list[Any] = []
    parts = await parts_of(sdk.runs.stream(thread_id, "steps", input={"n": 0}, on_run_created=known.append))
    assert parts[0].event == "metadata"
    assert parts[0].data == {"run_id": known[0]["run_id"], "attempt": 1}
    assert known[0]["thread_id"] == thread_id
    assert named(parts, "values") == [{"log": [], "n": 0}, {"log": ["a"], "n": 1}, {"log": ["a", "b"], "n": 2}]
    assert (await sdk.runs.get(thread_id, known[0]["run_id"]))["status"] == "success"


async def test_all_modes_at_once_come_in_order(sdk: Client, thread_id: str) -> None:
    modes = ["values", "updates", "custom", "tasks", "checkpoints", "debug", "events", "messages-tuple"]
    parts = await parts_of(sdk.runs.stream(thread_id, "steps", input={"n": 0}, stream_mode=modes))
    assert {part.event for part in parts} == {"metadata", *modes} - {"messages-tuple"}
    assert named(parts, "updates") == [{"a": {"log": ["a"], "n": 1}}, {"b": {"log": ["b"], "n": 2}}]
    assert named(parts, "custom") == [{"hello": "from a"}]
    tasks = named(parts, "tasks")
    assert [task["name"] for task in tasks] == ["a", "a", "b", "b"]
    assert [("result" in task) for task in tasks] == [False, True, False, True]
    assert [checkpoint["metadata"]["step"] for checkpoint in named(parts, "checkpoints")] == [-1, 0, 1, 2]
    assert {item["type"] for item in named(parts, "debug")} == {"checkpoint", "task", "task_result"}
    assert any(item["event"] == "on_chain_end" for item in named(parts, "events"))
    names = [part.event for part in parts]
    assert names.index("custom") < names.index("updates") < len(names) - 1 - names[::-1].index("values")


async def test_tokens_come_one_by_one(sdk: Client, thread_id: str) -> None:
    given = {"messages": [{"role": "user", "content": "tell me more"}]}
    parts = await parts_of(sdk.runs.stream(thread_id, "chat", input=given, stream_mode="messages-tuple"))
    chunks = named(parts, "messages")
    assert len(chunks) > 3
    assert "".join(chunk["content"] for chunk, _ in chunks) == "You said: tell me more"
    assert len({chunk["id"] for chunk, _ in chunks}) == 1
    assert {chunk["type"] for chunk, _ in chunks} == {"AIMessageChunk"}
    assert {metadata["langgraph_node"] for _, metadata in chunks} == {"model"}


async def test_the_older_message_mode_accumulates(sdk: Client, thread_id: str) -> None:
    given = {"messages": [{"role": "user", "content": "tell me more"}]}
    parts = await parts_of(sdk.runs.stream(thread_id, "chat", input=given, stream_mode="messages"))
    partial = [message["content"] for (message,) in named(parts, "messages/partial")]
    assert partial[-1] == "You said: tell me more"
    assert all(later.startswith(earlier) for earlier, later in pairwise(partial))
    assert len(named(parts, "messages/metadata")) == 1


async def test_tool_calls_and_results_are_messages_too(sdk: Client, thread_id: str) -> None:
    given = {"messages": [{"role": "user", "content": "add 2 3"}]}
    parts = await parts_of(sdk.runs.stream(thread_id, "agent", input=given, stream_mode=["messages-tuple", "custom"]))
    messages = [chunk for chunk, _ in named(parts, "messages")]
    arguments = "".join(piece["args"] for chunk in messages for piece in chunk.get("tool_call_chunks") or ())
    assert arguments.replace(" ", "") == '{"a":2,"b":3}'
    (result,) = [message for message in messages if message["type"] == "tool"]
    assert (result["content"], result["tool_call_id"]) == ("5", "call_1")
    assert named(parts, "custom") == [{"progress": "adding"}]


async def test_subgraphs_stream_under_their_namespace(sdk: Client, thread_id: str) -> None:
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "n": 0}
    modes = ["updates", "custom"]
    parts = await parts_of(sdk.runs.stream(thread_id, "nested", input=given, stream_mode=modes, stream_subgraphs=True))
    inner = {part.event.split("|", 1)[1] for part in parts if "|" in part.event}
    assert {"|".join(step.split(":")[0] for step in path.split("|")) for path in inner} == {"child", "child|grandchild"}
    fresh = (await sdk.threads.create())["thread_id"]
    outer = await parts_of(sdk.runs.stream(fresh, "nested", input=given, stream_mode=modes))
    assert {part.event for part in outer} == {"metadata", "updates"}


async def test_parallel_nodes_report_one_by_one(sdk: Client, thread_id: str) -> None:
    parts = await parts_of(sdk.runs.stream(thread_id, "fan", input={"n": 0}, stream_mode="updates"))
    workers = [update["worker"]["log"][0] for update in named(parts, "updates") if "worker" in update]
    assert sorted(workers) == ["worker 0", "worker 1", "worker 2"]


async def test_a_failing_stream_ends_with_its_error(sdk: Client, thread_id: str) -> None:
    parts = await parts_of(sdk.runs.stream(thread_id, "fail", input={"n": 0}))
    assert parts[-1].event == "error"
    assert parts[-1].data == {"error": "ValueError", "message": "boom went the node"}
    assert (await sdk.threads.get(thread_id))["status"] == "error"


async def test_the_second_version_of_the_clients_stream(sdk: Client, thread_id: str) -> None:
    parts = await parts_of(
        sdk.runs.stream(thread_id, "steps", input={"n": 0}, stream_mode=["values", "updates"], version="v2")
    )
    assert {"values", "updates"} <= {part["type"] for part in parts}


async def test_a_functional_graph_streams_and_remembers(sdk: Client, thread_id: str) -> None:
    given = {"numbers": [1, 2, 3]}
    parts = await parts_of(sdk.runs.stream(thread_id, "functional", input=given, stream_mode=["custom", "updates"]))
    assert named(parts, "custom") == [{"previous": None}]
    assert sorted(update["double"] for update in named(parts, "updates") if "double" in update) == [2, 4, 6]
    again = await parts_of(sdk.runs.stream(thread_id, "functional", input=given, stream_mode="custom"))
    assert named(again, "custom") == [{"previous": 12}]


async def test_factories_make_their_graph_for_each_run(sdk: Client, thread_id: str) -> None:
    sour = await sdk.runs.wait(thread_id, "factory_config", input={}, config={"configurable": {"flavor": "sour"}})
    assert sour["log"] == ["flavor=sour"]
    for graph, expected in (("factory_cm", "context manager"), ("factory_async", "async, no arguments")):
        fresh = (await sdk.threads.create())["thread_id"]
        assert (await sdk.runs.wait(fresh, graph, input={}))["log"] == [expected]
