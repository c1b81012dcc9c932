"""Joining runs and coming back to their streams."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from eventually import run_becomes
from live_server import Client

pytestmark = pytest.mark.anyio

MODES = ["custom", "updates"]


async def collect(stream: Any, *, limit: int | None = None) -> list[Any]:
    parts: list[Any] = []
    async for part in stream:
        parts.append(part)
        if len(parts) == limit:
            break
    return parts


def faces(parts: list[Any]) -> list[tuple[str | None, str, Any]]:
    return [(part.id, part.event, part.data) for part in parts]


async def test_a_resumable_stream_is_read_in_pieces_without_gap_or_repeat(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(
        thread_id, "slow", input={"n": 12, "delay": 0.03}, stream_mode=MODES, stream_resumable=True
    )
    pieces, last = list[Any](), "-1"
    while True:
        piece = await collect(sdk.runs.join_stream(thread_id, run["run_id"], last_event_id=last), limit=5)
        if not piece:
            break
        pieces += piece
        last = piece[-1].id
    whole = await collect(sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"))
    assert faces(pieces) == faces(whole)
    assert [part.event for part in whole] == ["metadata", *MODES * 12]
    assert [part.data["tick"] for part in whole if part.event == "custom"] == list(range(12))
    assert len({part.id for part in whole}) == len(whole)


async def test_a_broken_first_stream_is_taken_up_where_it_ended(
    sdk: Client, http: httpx.AsyncClient, thread_id: str
) -> None:
    body = {"assistant_id": "slow", "input": {"n": 10, "delay": 0.05}, "stream_mode": MODES, "stream_resumable": True}
    seen: list[str] = []
    async with http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as answer:
        location = answer.headers["location"]
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                seen.append(line.removeprefix("id: "))
            if len(seen) == 4:
                break
    async with http.stream("GET", location, headers={"Last-Event-ID": seen[-1]}) as answer:
        rest = [line.removeprefix("id: ") async for line in answer.aiter_lines() if line.startswith("id: ")]
    run_id = location.split("/")[4]
    whole = await collect(sdk.runs.join_stream(thread_id, run_id, last_event_id="0"))
    assert seen + rest == [part.id for part in whole]


async def test_several_joiners_see_the_same(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(
        thread_id, "slow", input={"n": 6, "delay": 0.05}, stream_mode=MODES, stream_resumable=True
    )
    streams = [sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1") for _ in range(4)]
    first, *others = await asyncio.gather(*(collect(stream) for stream in streams))
    assert len(first) == 13
    assert [faces(parts) for parts in others] == [faces(first)] * 3


async def test_a_joiner_without_an_id_gets_what_comes_from_now_on(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "slow", input={"n": 400, "delay": 0.1}, stream_mode=MODES)
    early = await collect(sdk.runs.join_stream(thread_id, run["run_id"]), limit=7)
    late = await collect(sdk.runs.join_stream(thread_id, run["run_id"]), limit=4)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert {part.id for part in late} == {None}
    assert {part.event for part in late} == set(MODES)
    seen, ticks = ([part.data["tick"] for part in parts if part.event == "custom"] for parts in (early, late))
    assert ticks == list(range(ticks[0], ticks[0] + 2))
    assert ticks[0] > seen[-1]


async def test_a_joiner_may_ask_for_some_modes_only(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(
        thread_id, "slow", input={"n": 3, "delay": 0}, stream_mode=["values", *MODES], stream_resumable=True
    )

    async def names(**options: Any) -> list[str]:
        stream = sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1", **options)
        return [part.event async for part in stream]

    assert await names(stream_mode="custom") == ["custom"] * 3
    assert await names(stream_mode=["custom", "updates"]) == MODES * 3
    assert await names(params={"stream_mode": "custom,updates"}) == MODES * 3
    assert await names(stream_mode="debug") == []


@pytest.mark.parametrize("resumable", [False, True])
async def test_joining_what_is_over_closes_at_once(sdk: Client, thread_id: str, resumable: bool) -> None:
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0}, stream_resumable=resumable)
    await run_becomes(sdk, run, "success")
    async with asyncio.timeout(60):
        assert await collect(sdk.runs.join_stream(thread_id, run["run_id"])) == []
        assert await sdk.runs.join(thread_id, run["run_id"]) == {"log": ["a", "b"], "n": 2}


async def test_joining_what_does_not_exist_is_an_error_inside_the_answer(sdk: Client, thread_id: str) -> None:
    unknown = str(uuid.uuid4())
    parts = await collect(sdk.runs.join_stream(thread_id, unknown))
    error = {"error": "HTTPException", "message": "404: Run not found"}
    assert faces(parts) == [(None, "error", error)]
    assert await sdk.runs.join(thread_id, unknown) == {"__error__": error}


async def test_a_failed_run_can_be_read_again_with_its_error(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "fail", input={"n": 0}, stream_mode="updates", stream_resumable=True)
    await run_becomes(sdk, run, "error")
    parts = await collect(sdk.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"))
    assert [part.event for part in parts] == ["metadata", "updates", "error"]
    assert (await sdk.runs.join(thread_id, run["run_id"]))["__error__"]["error"] == "ValueError"


async def test_events_of_an_enqueued_run_begin_with_its_first(
    sdk: Client, http: httpx.AsyncClient, thread_id: str
) -> None:
    first = await sdk.runs.create(thread_id, "slow", input={"n": 400, "delay": 0.1})
    second = await sdk.runs.create(thread_id, "steps", input={"n": 0}, stream_mode="updates")
    async with http.stream("GET", f"/threads/{thread_id}/runs/{second['run_id']}/stream") as answer:
        await sdk.runs.cancel(thread_id, first["run_id"])
        lines = [line async for line in answer.aiter_lines() if line.startswith("event: ")]
    assert lines == ["event: metadata", "event: updates", "event: updates"]
