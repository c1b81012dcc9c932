"""More than a server can do: what does not fit is refused, what was accepted ends, memory stays bounded."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from chaos.crowds import Crowd, Pulse, forget_peak, many_files, rss_bytes
from chaos.fleet import fleet_of
from chaos.runs_api import Accepted, body, client_of, joined, submit
from chaos.streams import events_of
from chaos.witness import say
from eventually import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

MB = 1024 * 1024
REFUSED = (429, 503)
# The promise names 5,000; that many take longer than a suite should.
READERS = int(os.environ.get("WAYSTATION_TEST_READERS", "1000"))
PER_READER = 64 * 1024


async def test_ten_times_the_runs_that_fit_are_refused_or_end(tmp_path: Path, database_uri: str) -> None:
    slots, queue = 4, 26
    given: dict[str, Any] = {"steps": 2, "delay_s": 0.5, "done": []}  # creating them all may take seconds
    with fleet_of(tmp_path, database_uri, N_JOBS_PER_WORKER=str(slots), WAYSTATION_MAX_QUEUE=str(queue)) as fleet:
        node = await fleet.alone().ready()
        accepted: list[Accepted] = []
        seen: Counter[int] = Counter()

        async def create(number: int, client: httpx.AsyncClient) -> None:
            thread_id = str(uuid.uuid4())
            match number % 3:
                case 0:
                    answer = await client.post(f"/threads/{thread_id}/runs", json=body("steps", given))
                case 1:
                    sent = {"assistant_id": "steps", "input": given, "on_completion": "keep"}
                    answer = await client.post("/runs", json=sent)
                case _:
                    sent = {"assistant_id": "steps", "input": given, "on_completion": "keep"}
                    answer = await client.post("/runs/batch", json=[sent, sent])
            seen[answer.status_code] += 1
            if answer.status_code in REFUSED:
                assert int(answer.headers["retry-after"]) > 0
                return
            assert answer.status_code == 200, answer.text
            made: Any = answer.json()
            accepted.extend(Accepted(run["thread_id"], run["run_id"]) for run in (made if number % 3 == 2 else [made]))

        async with client_of(node.url) as client, Pulse(node) as pulse:
            await asyncio.gather(*[create(number, client) for number in range(10 * (slots + queue))])
            for run in accepted:
                assert (await joined(client, run))["done"] == [1, 2]
                assert (await client.get(run.path)).json()["status"] == "success"
        say(f"{dict(seen)}, {len(accepted)} runs accepted, /ok p95 {pulse.p95_s * 1000:.0f} ms")
        assert seen.keys() - {200} <= set(REFUSED)
        assert seen[503] > 100, "nothing was refused: this was no overload"
        assert len(accepted) >= slots + queue
        assert pulse.answers == {200}
        assert node.is_alive


async def test_streams_beyond_the_limit_are_refused(tmp_path: Path, database_uri: str) -> None:
    limit = 20
    with fleet_of(tmp_path, database_uri, WAYSTATION_MAX_STREAM_READERS=str(limit), N_JOBS_PER_WORKER="50") as fleet:
        node = await fleet.alone().ready()
        async with client_of(node.url) as client:
            answers: Counter[tuple[int, str]] = Counter()

            async def follow(number: int, delay_s: float) -> None:
                path = ("stream", "wait")[number % 2]
                sent = body("steps", {"steps": 1, "delay_s": delay_s, "done": []})
                answer = await client.post(f"/threads/{uuid.uuid4()}/runs/{path}", json=sent)
                answers[answer.status_code, answer.headers.get("retry-after", "")] += 1

            async def all_others_are_refused() -> bool:
                return answers.total() == 9 * limit

            async with asyncio.TaskGroup() as tasks:
                for number in range(10 * limit):
                    tasks.create_task(follow(number, 1000))
                await eventually(all_others_are_refused, within_s=60)
                assert (await client.post("/runs/cancel", json={"status": "all"})).status_code == 204
            say(str(dict(answers)))
            assert answers == {(200, ""): limit, (503, "5"): 9 * limit}
            # Nobody who has left, and nobody who was refused, keeps a place.
            answers.clear()
            await asyncio.gather(*[follow(number, 1) for number in range(limit)])
            assert answers == {(200, ""): limit}
            assert len((await client.post("/threads/search", json={"limit": 1000})).json()) == 2 * limit


@pytest.mark.parametrize("event_log", ["memory", "redis", "postgres"])
async def test_readers_that_never_read_cost_little_and_hold_up_nobody(
    tmp_path: Path, database_uri: str, redis_url: str, event_log: str
) -> None:
    readers, events, size = 100, 600, 100_000
    buffer = 8 * MB
    settings = {"WAYSTATION_STREAM_BUFFER_BYTES": str(buffer), "WAYSTATION_EVENT_LOG": event_log}
    with fleet_of(tmp_path, database_uri, redis_url=redis_url, **settings) as fleet:
        node = await fleet.alone().ready()
        async with client_of(node.url) as client:
            await _pour(client, count=20, size=size)
            run, begin = await _waiting_run(client, {"count": events, "size": size, "done": []})
            before = rss_bytes(node.pid)
            forget_peak(node.pid)
            with Crowd(node) as crowd:
                await crowd.ask(f"{run.path}/stream?stream_mode=custom", count=readers, window=4096)
                assert set(await crowd.heads()) == {200}
                async with Pulse(node) as pulse:
                    await begin()
                    assert (await joined(client, run))["done"] == [events]
                    await _pour(client, count=50, size=1000)
            grown = rss_bytes(node.pid, "VmHWM") - before
            say(f"{events * size / MB:.0f} MB to {readers} who do not read: {grown / MB:.0f} MB more at the peak")
            assert grown < 4 * buffer + readers * 512 * 1024
            assert pulse.answers == {200}


async def test_an_event_of_megabytes_waits_for_its_readers_once(tmp_path: Path, database_uri: str) -> None:
    readers, size = 50, 5 * MB
    with fleet_of(tmp_path, database_uri) as fleet:
        node = await fleet.alone().ready()
        async with client_of(node.url) as client:
            await _pour(client, count=1, size=size)
            run, begin = await _waiting_run(client, {"count": 1, "size": size, "done": []})
            before = rss_bytes(node.pid)
            forget_peak(node.pid)
            with Crowd(node) as crowd:
                await crowd.ask(f"{run.path}/stream?stream_mode=custom", count=readers, window=4096)
                async with client.stream("GET", f"{run.path}/stream?stream_mode=custom") as answer:
                    await begin()
                    numbers = [(event.data["number"], len(event.data["drops"])) async for event in events_of(answer)]
                assert (await joined(client, run))["done"] == [1]
            grown = rss_bytes(node.pid, "VmHWM") - before
            say(f"an event of {size / MB:.0f} MB to {readers} who do not read: {grown / MB:.0f} MB more at the peak")
            assert numbers == [(0, size)]
            assert grown < 15 * size + readers * 512 * 1024


async def test_a_thousand_idle_readers_cost_little(tmp_path: Path, database_uri: str) -> None:
    with many_files(READERS + 500), fleet_of(tmp_path, database_uri) as fleet:
        node = await fleet.alone().ready()
        async with client_of(node.url) as client:
            run = await submit(client, "steps", {"steps": 1, "delay_s": 0, "done": []}, after_seconds=3600)
            with Crowd(node) as few:
                await few.ask(f"{run.path}/stream", count=50)  # what the first reader alone brings along
                await few.heads()
            before = rss_bytes(node.pid)
            with Crowd(node) as crowd:
                await crowd.ask(f"{run.path}/stream", count=READERS)
                assert set(await crowd.heads()) == {200}
                async with Pulse(node) as pulse:
                    await asyncio.sleep(6)  # every one of them has had a heartbeat
                    await client.post("/runs/wait", json=body("steps", {"steps": 3, "delay_s": 0, "done": []}))
                each = (rss_bytes(node.pid) - before) / READERS
            say(f"{READERS} idle readers: {each / 1024:.1f} KB each, /ok p95 {pulse.p95_s * 1000:.0f} ms")
            assert each < PER_READER
            assert pulse.answers == {200}
            await client.post(f"{run.path}/cancel")


async def _pour(client: httpx.AsyncClient, **given: int) -> None:
    """A flood that is read to its end: everything the server makes once is made."""
    sent = body("flood", {**given, "done": []}, stream_mode="custom")
    async with client.stream("POST", f"/threads/{uuid.uuid4()}/runs/stream", json=sent) as answer:
        assert len([event async for event in events_of(answer) if event.name == "custom"]) == given["count"]


async def _waiting_run(
    client: httpx.AsyncClient, given: dict[str, Any]
) -> tuple[Accepted, Callable[[], Awaitable[None]]]:
    """A flood, and what lets it begin when its readers are there: it waits behind another run of its thread."""
    before = await submit(client, "steps", {"steps": 1, "delay_s": 1000, "done": []})
    run = await submit(client, "flood", given, thread_id=before.thread_id, stream_mode=["custom"])

    async def begin() -> None:
        answer = await client.post(f"{before.path}/cancel", params={"wait": "true"})
        assert answer.status_code == 200, answer.text

    return run, begin
