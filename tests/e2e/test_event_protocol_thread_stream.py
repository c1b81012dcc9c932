"""`GET /threads/{id}/stream`: every run of a thread in the classic form, and changes of its state by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest

from e2e.event_streams import start, until

pytestmark = pytest.mark.anyio

Sent = tuple[str, str, Any]


async def read(
    http: httpx.AsyncClient, thread_id: str, query: str, is_last: Callable[[Sent], bool], last_id: str | None = None
) -> list[Sent]:
    """(name, id, data) of the stream's events, up to the last one that is wanted."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    found: list[Sent] = []
    async with (
        asyncio.timeout(60),
        http.stream("GET", f"/threads/{thread_id}/stream{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        rest = b""
        async for chunk in answer.aiter_bytes():
            *events, rest = (rest + chunk).split(b"\r\n\r\n")
            for event in events:
                if event.startswith(b":"):
                    continue
                name, data, at = event.split(b"\r\n")
                found.append((name[7:].decode(), at[4:].decode(), orjson.loads(data[6:])))
                if is_last(found[-1]):
                    return found
    raise AssertionError("the stream ended")


def is_done(event: Sent) -> bool:
    return event[0] == "metadata" and event[2].get("status") == "run_done"


async def run(http: httpx.AsyncClient, thread_id: str, graph: str, **more: Any) -> None:
    body = {"assistant_id": graph, "input": {"n": 0}, **more}
    assert (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).status_code == 200


async def test_resumable_runs_are_replayed_after_an_id(http: httpx.AsyncClient, thread_id: str) -> None:
    await run(http, thread_id, "steps", stream_resumable=True)
    await run(http, thread_id, "steps", stream_resumable=True, stream_mode="updates")
    dones = 0

    def second(event: Sent) -> bool:
        nonlocal dones
        dones += is_done(event)
        return dones == 2

    whole = await read(http, thread_id, "", second, "-1")
    names = [name for name, _, _ in whole]
    assert names == ["metadata", "values", "values", "values", "metadata", "metadata", "updates", "updates", "metadata"]
    for place in range(len(names) - 1):
        rest = await read(http, thread_id, "?stream_modes=run_modes", is_done, whole[place][1])
        assert rest == whole[place + 1 : len(whole) if place >= 4 else 5]


async def test_states_changed_by_hand_and_runs_are_told_as_they_happen(http: httpx.AsyncClient, thread_id: str) -> None:
    await run(http, thread_id, "steps")
    heard = asyncio.Event()

    async def happen() -> None:
        while not heard.is_set():  # the stream has begun: nothing else says so to a client
            body = {"values": {"log": ["x"]}, "as_node": "a"}
            assert (await http.post(f"/threads/{thread_id}/state", json=body)).status_code == 200
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), 1)
        await run(http, thread_id, "steps")

    def is_last(event: Sent) -> bool:
        heard.set()
        return is_done(event)

    happening = asyncio.create_task(happen())
    query = "?stream_modes=state_update&stream_modes=lifecycle"
    events = await read(http, thread_id, query, is_last)
    await happening
    names = [name for name, _, _ in events]
    assert names == [*["state_update"] * (len(names) - 2), "metadata", "metadata"]
    for told, more in pairwise(event[2]["state"]["values"]["log"] for event in events[:-2]):
        assert more == [*told, "x"]
    assert events[0][2]["thread_id"] == thread_id
    assert events[0][2]["state"]["values"]["log"][:3] == ["a", "b", "x"]
    assert events[-2][2]["attempt"] == 1


async def test_runs_of_the_protocol_are_there_in_the_classic_form(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps_all", {"n": 0})
    await until(http, thread_id)
    events = await read(http, thread_id, "", is_done, "0-0")
    names = [name for name, _, _ in events]
    assert names.count("values") == 3
    assert names.count("updates") == 2
    assert {name for name in names if name.startswith("custom")} == {"custom"}


@pytest.mark.parametrize(("query", "headers"), [("?stream_modes=x", {}), ("", {"Last-Event-ID": "yesterday"})])
async def test_what_makes_no_sense_is_refused(
    http: httpx.AsyncClient, thread_id: str, query: str, headers: dict[str, str]
) -> None:
    answer = await http.get(f"/threads/{thread_id}/stream{query}", headers=headers)
    assert answer.status_code == 422
