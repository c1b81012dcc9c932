"""A thread's events over SSE: what runs emit, how they are numbered, filtered and replayed, how runs end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from e2e.event_streams import brief, command, read, start, until
from live_server import LiveServer

pytestmark = pytest.mark.anyio

ADD = {"messages": [{"role": "user", "content": "add 2 3"}]}


async def test_a_run_is_told_from_its_beginning_to_its_end(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    events = await until(http, thread_id)
    assert brief(events) == [
        (1, "lifecycle", "running"),
        (2, "values", None),
        (3, "values", None),
        (4, "values", None),
        (5, "lifecycle", "completed"),
    ]
    assert [event.body for event in events[1:4]] == [
        {"log": [], "n": 0},
        {"log": ["a"], "n": 1},
        {"log": ["a", "b"], "n": 2},
    ]
    assert all(event.id == str(event.seq) and event.name == event.data["method"] for event in events)
    assert (await http.get(f"/threads/{thread_id}")).json()["status"] == "idle"


async def test_transformers_of_the_graph_fill_more_channels(http: httpx.AsyncClient) -> None:
    events = await until(http, await start(http, "agent_all", ADD))
    assert [event.seq for event in events] == list(range(1, 33))
    custom = [event.body for event in events if event.data["method"] == "custom"]
    assert custom == [{"name": "shout", "payload": "{'PROGRESS': 'ADDING'}"}, {"progress": "adding"}]
    tools = [event.body["event"] for event in events if event.name == "tools"]
    assert tools == ["tool-started", "tool-finished"]
    updates = [next(iter(event.body)) for event in events if event.name == "updates"]
    assert updates == ["model", "tools", "model"]
    text = "".join(e.body["delta"]["text"] for e in events if e.body.get("delta", {}).get("type") == "text-delta")
    assert text == "The sum is 5."
    last = [event for event in events if event.name == "values"][-1].body["messages"][-1]
    assert last["content"] == [{"type": "text", "text": "The sum is 5.", "index": 0}]
    assert not {"additional_kwargs", "usage_metadata"} & set(last)


async def test_later_runs_go_on_counting_and_every_subscriber_sees_the_same(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    first = asyncio.create_task(until(http, thread_id, ends=3))
    await until(http, thread_id)
    body = {"assistant_id": "steps", "input": {"n": 0}, "stream_mode": ["values", "updates"], "stream_resumable": True}
    assert (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).status_code == 200
    await start(http, "steps", {"n": 0}, thread_id=thread_id)
    whole = await until(http, thread_id, ends=3)
    assert [event.seq for event in whole] == list(range(1, len(whole) + 1))
    assert await first == whole
    assert len({event.data["event_id"] for event in whole}) == len(whole)
    assert await until(http, thread_id, since=whole[6].seq, ends=2) == whole[7:]


async def test_a_reader_comes_back_with_the_last_number_it_has(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "agent_all", ADD)
    whole = await until(http, thread_id)
    for last in (1, 2, 17, 31):
        assert await until(http, thread_id, since=last) == whole[last:]
    for nonsense in (-1, "x", None, 2.5, True):
        assert await until(http, thread_id, since=nonsense) == whole


async def test_filters_by_channel_namespace_and_depth(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "nested", {"n": 0, "messages": [{"role": "user", "content": "hi"}]})
    whole = await until(http, thread_id)
    levels: list[tuple[dict[str, Any], set[int]]] = [
        ({"namespaces": [[]], "depth": 0}, {0}),
        ({"namespaces": [[]], "depth": 1}, {0, 1}),
        ({"depth": 0}, {0, 1, 2}),  # counts below a namespace only
        ({"namespaces": [["child"]]}, {1, 2}),
        ({"namespaces": [["child"]], "depth": 0}, {1}),
        ({"namespaces": [["child", "grandchild"]]}, {2}),
        ({"namespaces": [["grandchild"], []]}, {0, 1, 2}),
    ]
    for asked, deep in levels:
        passing = [event for event in whole if len(event.namespace) in deep]
        found = await read(http, thread_id, lambda e, last=passing[-1].seq: e.seq == last, **asked)
        assert found == passing, asked
    only = await read(http, thread_id, lambda e: e.seq == len(whole) - 1, channels=["values"])
    assert only == [event for event in whole if event.name == "values"]


async def test_named_custom_events_are_got_by_their_name_or_with_all_custom_ones(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps_all", {"n": 0})
    await until(http, thread_id)
    named = await read(http, thread_id, lambda e: True, channels=["custom:shout"])
    assert named[0].body["name"] == "shout"
    both = await read(http, thread_id, lambda e: "hello" in e.body, channels=["custom"])
    assert [event.body.get("name") for event in both] == ["shout", None]


async def test_a_failed_run_says_why_and_its_thread_shows_it_already(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "fail", {"n": 0})
    last = (await until(http, thread_id))[-1]
    assert last.body == {"event": "failed", "graph_name": "fail", "error": "boom went the node"}
    assert (await http.get(f"/threads/{thread_id}")).json()["status"] == "error"


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_cancelled_run_has_an_end_that_is_replayed(http: httpx.AsyncClient, action: str) -> None:
    thread_id = str(uuid.uuid4())
    started = await command(http, thread_id, "run.start", assistant_id="slow", input={"n": 50})
    await read(http, thread_id, lambda event: event.name == "values")
    path = f"/threads/{thread_id}/runs/{started['run_id']}/cancel?action={action}&wait=true"
    assert (await http.post(path)).status_code == 200
    whole = await until(http, thread_id)
    assert whole[-1].end == "interrupted"
    assert [event.seq for event in whole] == list(range(1, len(whole) + 1))
    await start(http, "steps", {"n": 0}, thread_id=thread_id)
    both = await until(http, thread_id, ends=2)
    assert both[: len(whole)] == whole
    assert [event.seq for event in both] == list(range(1, len(both) + 1))
    assert await until(http, thread_id, since=whole[-2].seq, ends=2) == both[len(whole) - 1 :]


async def test_a_run_that_never_began_has_an_end(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "slow", {"n": 3})
    waiting = await command(http, thread_id, "run.start", assistant_id="slow", input={"n": 1})
    cancelled = await http.post(f"/threads/{thread_id}/runs/{waiting['run_id']}/cancel")
    assert cancelled.status_code == 202
    whole = await until(http, thread_id, ends=2)
    assert [event.end for event in whole if event.end] == ["completed", "interrupted"]
    assert waiting["run_id"] in whole[-1].data["event_id"]
    assert [event.seq for event in whole] == list(range(1, len(whole) + 1))


async def test_the_multitask_strategy_is_applied_in_either_spelling(http: httpx.AsyncClient) -> None:
    for name in ("multitaskStrategy", "multitask_strategy"):
        thread_id = await start(http, "slow", {"n": 50})
        await read(http, thread_id, lambda event: event.name == "values")
        await start(http, "steps", {"n": 0}, thread_id=thread_id, **{name: "interrupt"})
        ends = [event.end for event in await until(http, thread_id, ends=2) if event.end]
        assert ends == ["interrupted", "completed"]


async def test_a_timed_out_run_fails(own_server: Callable[..., LiveServer]) -> None:
    server = own_server(bg_job_timeout_s=1)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        last = (await until(http, await start(http, "slow", {"n": 50})))[-1]
        assert last.end == "failed"
        assert "longer than 1 s" in last.body["error"]


async def test_a_classic_run_is_converted_while_somebody_watches(http: httpx.AsyncClient) -> None:
    thread_id = str(uuid.uuid4())
    watching = asyncio.create_task(until(http, thread_id))
    body = {
        "assistant_id": "hitl",
        "input": {"n": 0},
        "if_not_exists": "create",
        "stream_mode": ["values", "updates", "messages-tuple"],
    }
    assert (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).status_code == 200
    events = await watching
    assert brief(events) == [
        (1, "lifecycle", "running"),
        (2, "values", None),
        (3, "input.requested", None),
        (4, "values", None),
        (5, "lifecycle", "interrupted"),
    ]
    assert events[2].body["payload"] == {"question": "go on?"}


async def test_a_classic_run_that_shows_no_states_still_says_what_it_asks(http: httpx.AsyncClient) -> None:
    thread_id = str(uuid.uuid4())
    body = {"assistant_id": "hitl", "input": {"n": 0}, "if_not_exists": "create", "stream_mode": "custom"}
    await http.post(f"/threads/{thread_id}/runs/wait", json={**body, "stream_resumable": True})
    events = await until(http, thread_id)
    assert brief(events) == [(1, "lifecycle", "running"), (2, "input.requested", None), (3, "lifecycle", "interrupted")]


async def test_a_native_run_can_be_joined_the_classic_way(http: httpx.AsyncClient) -> None:
    thread_id = str(uuid.uuid4())
    run_id = (await command(http, thread_id, "run.start", assistant_id="steps", input={"n": 0}))["run_id"]
    await until(http, thread_id)
    answer = await http.get(f"/threads/{thread_id}/runs/{run_id}/stream", headers={"Last-Event-ID": "-1"})
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names == ["metadata", "values", "values", "values"]
    assert 'data: {"log":["a","b"],"n":2}' in answer.text
