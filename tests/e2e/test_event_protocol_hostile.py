"""What no client should send to the event streaming protocol, and streams of threads that are not there."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import httpx
import pytest

from e2e.event_streams import brief, command, follow, refused, start, until

pytestmark = pytest.mark.anyio

ENVELOPES: list[tuple[Any, int, str]] = [
    ({"method": "run.start"}, 400, "invalid_argument"),
    ({"id": "x", "method": "run.start"}, 400, "invalid_argument"),
    ({"id": True, "method": "run.start"}, 400, "invalid_argument"),
    ({"id": 1.5, "method": "run.start"}, 400, "invalid_argument"),
    ({"id": 1, "method": 5}, 400, "invalid_argument"),
    ([], 400, "invalid_argument"),
    ("text", 400, "invalid_argument"),
    (None, 400, "invalid_argument"),
    ({"id": 2**70, "method": "run.dance" * 1000}, 400, "invalid_argument"),
    ({"id": -1, "method": "run.start", "params": []}, 200, "invalid_argument"),
    ({"id": 1, "method": "run.start", "params": {"assistant_id": ""}}, 200, "invalid_argument"),
    ({"id": 1, "method": "run.start", "params": {"assistant_id": 5}}, 200, "invalid_argument"),
    ({"id": 1, "method": "run.start", "params": {"assistant_id": "steps", "config": 5}}, 200, "invalid_argument"),
    ({"id": 1, "method": "run.start", "params": {"assistant_id": "steps", "metadata": []}}, 200, "invalid_argument"),
    (
        {"id": 1, "method": "run.start", "params": {"assistant_id": "steps", "multitaskStrategy": "x"}},
        200,
        "invalid_argument",
    ),
    ({"id": 1, "method": "run.start", "params": {"assistant_id": "nobody"}}, 200, "unknown_error"),
    ({"id": 1, "method": "input.respond", "params": {"responses": {}}}, 200, "invalid_argument"),
    ({"id": 1, "method": "input.respond", "params": {"responses": [5]}}, 200, "invalid_argument"),
    ({"id": 1, "method": "input.respond", "params": {"interrupt_id": 5}}, 200, "invalid_argument"),
    ({"id": 1, "method": "input.respond", "params": {"interrupt_id": "x" * 100_000}}, 200, "no_such_interrupt"),
    ({"id": 1, "method": "agent.getTree", "params": {"run_id": "'; drop table run"}}, 200, "no_such_run"),
    ({"id": 1, "method": "agent.getTree", "params": {"run_id": 5}}, 200, "no_such_run"),
    ({"id": 1, "method": "state.get", "params": {"namespace": [5]}}, 200, "invalid_argument"),
    ({"id": 1, "method": "state.listCheckpoints", "params": {"limit": 10**9}}, 200, "invalid_argument"),
    ({"id": 1, "method": "state.fork", "params": {"checkpoint_id": None}}, 200, "invalid_argument"),
    ({"id": 1, "method": "subscription.subscribe", "params": {"channels": [{}]}}, 200, "invalid_argument"),
    ({"id": 1, "method": "input.inject"}, 200, "unknown_command"),
    ({"id": 1, "method": "\x00"}, 200, "unknown_command"),
]


@pytest.mark.parametrize(("sent", "status", "code"), ENVELOPES, ids=lambda value: str(value)[:60])
async def test_a_command_that_makes_no_sense_is_refused(
    http: httpx.AsyncClient, thread_id: str, sent: Any, status: int, code: str
) -> None:
    answer = await http.post(f"/threads/{thread_id}/commands", content=json.dumps(sent))
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert len(answer.json()["message"]) < 2000


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"id": NaN}', b'"\\ud800"'])
async def test_what_is_no_json_is_refused(http: httpx.AsyncClient, thread_id: str, raw: bytes) -> None:
    for path in ("commands", "stream/events"):
        answer = await http.post(f"/threads/{thread_id}/{path}", content=raw)
        assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid JSON body")


async def test_ids_that_are_none_are_refused(http: httpx.AsyncClient) -> None:
    answer = await refused(http, "abc", "run.start", assistant_id="steps")
    assert (answer["error"], answer["message"]) == ("unknown_error", "422: Invalid thread ID")
    for path in ("stream/events", "stream"):
        method = "POST" if path == "stream/events" else "GET"
        answered = await http.request(method, f"/threads/abc/{path}", json={"channels": ["values"]})
        assert (answered.status_code, answered.json()["detail"]) == (422, "Invalid thread ID: must be a UUID")


@pytest.mark.parametrize(
    "channels",
    [None, [], "values", {}, ["colour"], ["debug"], ["values", 5], [["values"]], ["custom:"], ["x" * 10_000]],
)
async def test_channels_that_are_none_are_refused(http: httpx.AsyncClient, thread_id: str, channels: Any) -> None:
    answer = await http.post(f"/threads/{thread_id}/stream/events", json={"channels": channels})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("channels ")
    assert len(answer.text) < 2000


@pytest.mark.parametrize(
    "more",
    [
        {"namespaces": "x"},
        {"namespaces": ["x"]},
        {"namespaces": [[5]]},
        {"namespaces": [["\x00", "|", ":"]], "depth": 2**80},
        {"depth": -1},
        {"since": 2**80, "depth": "x"},
        {"since": "'; drop table run; --"},
        {"namespaces": [["a"] * 100] * 5000},
    ],
    ids=lambda more: str(more)[:40],
)
async def test_what_makes_no_sense_in_a_filter_is_ignored(http: httpx.AsyncClient, more: Any) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    await until(http, thread_id)
    async with asyncio.timeout(60):
        body = {"channels": ["lifecycle"], **more}
        async with http.stream("POST", f"/threads/{thread_id}/stream/events", content=json.dumps(body)) as answer:
            assert answer.status_code == 200
            await anext(answer.aiter_bytes())  # an event, or a heartbeat where the filter lets nothing through


async def test_nothing_is_heard_of_a_thread_until_it_is_made(http: httpx.AsyncClient) -> None:
    thread_id = str(uuid.uuid4())
    watching = asyncio.create_task(until(http, thread_id))
    assert (await http.get(f"/threads/{thread_id}")).status_code == 404
    await start(http, "steps", {"n": 0}, thread_id=thread_id)
    assert brief(await watching)[0] == (1, "lifecycle", "running")


async def test_leaving_does_not_stop_a_run(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "slow", {"n": 4})
    async for _ in follow(http, thread_id):
        break
    assert (await until(http, thread_id))[-1].end == "completed"


async def test_names_and_values_of_all_sorts_pass_through(http: httpx.AsyncClient) -> None:
    given = {"log": ['"seq":99', "\u2028\u2029", "a\r\nb", "|:", "\U0001f600"], "n": 2**60}
    thread_id = await start(http, "steps", given)
    events = await until(http, thread_id)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert events[1].body == given


async def test_a_deleted_thread_is_quiet(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    await until(http, thread_id)
    assert (await http.delete(f"/threads/{thread_id}")).status_code == 204
    answer = await refused(http, thread_id, "agent.getTree")
    assert answer["error"] == "no_such_run"
    again = await start(http, "steps", {"n": 0}, thread_id=thread_id)
    assert (await until(http, again))[-1].end == "completed"
    assert (await command(http, thread_id, "agent.getTree"))["tree"]["status"] == "completed"
