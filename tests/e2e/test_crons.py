"""Crons through the official client."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError

from eventually import eventually, run_becomes
from live_server import Client, LiveServer, live_server_on
from waystation.config import Settings

pytestmark = pytest.mark.anyio

RARELY = "0 3 1 1 *"
EACH_SECOND = "* * * * * *"


def connected(server: LiveServer) -> Client:
    """The official client of a server; see `Client` for why it has no type."""
    return get_client(url=server.url)


async def test_a_cron_is_made_read_patched_searched_counted_and_deleted(sdk: Client) -> None:
    mark = uuid.uuid4().hex
    made = await sdk.crons.create(
        "steps", schedule=RARELY, timezone="Europe/Berlin", input={"n": 0}, metadata={"mark": mark}, enabled=False
    )
    assert (made["schedule"], made["enabled"], made["on_run_completed"]) == (RARELY, False, "delete")
    assert made["next_run_date"].endswith("-01-01T02:00:00.000000+00:00")
    assert made["payload"]["config"]["configurable"] == {"cron_id": made["cron_id"]}
    end = datetime.now(UTC) + timedelta(days=400)
    patched = await sdk.crons.update(made["cron_id"], metadata={"x": 1}, end_time=end, timezone="UTC", enabled=True)
    assert patched["metadata"] == {"mark": mark, "x": 1}
    assert patched["next_run_date"].endswith("-01-01T03:00:00.000000+00:00")
    assert datetime.fromisoformat(patched["end_time"]) == end
    found = await sdk.crons.search(metadata={"mark": mark}, enabled=True, select=["cron_id", "enabled"])
    assert found == [{"cron_id": made["cron_id"], "enabled": True}]
    assert await sdk.crons.count(metadata={"mark": mark}) == 1
    await sdk.crons.delete(made["cron_id"])
    assert await sdk.crons.count(metadata={"mark": mark}) == 0
    with pytest.raises(NotFoundError):
        await sdk.crons.delete(made["cron_id"])


async def test_crons_are_paged_and_sorted(sdk: Client, http: httpx.AsyncClient) -> None:
    mark = uuid.uuid4().hex
    schedules = ["0 3 1 1 *", "0 3 2 1 *", "0 3 3 1 *"]
    made = [(await sdk.crons.create("steps", schedule=s, metadata={"mark": mark}))["cron_id"] for s in schedules]
    pages = [await sdk.crons.search(metadata={"mark": mark}, limit=2, offset=offset) for offset in (0, 2)]
    assert [cron["cron_id"] for page in pages for cron in page] == made[::-1]
    by_date = await sdk.crons.search(metadata={"mark": mark}, sort_by="next_run_date", sort_order="asc")
    dates = [cron["next_run_date"] for cron in by_date]
    assert dates == sorted(dates)
    answer = await http.post("/runs/crons/search", json={"metadata": {"mark": mark}, "limit": 2})
    assert (answer.headers["x-pagination-total"], answer.headers["x-pagination-next"]) == ("3", "2")
    for cron_id in made:
        await sdk.crons.delete(cron_id)


async def test_a_thread_cron_runs_on_its_thread_each_second_until_it_is_deleted(sdk: Client, thread_id: str) -> None:
    cron = await sdk.crons.create_for_thread(
        thread_id, "steps", schedule=EACH_SECOND, input={"n": 0}, metadata={"from": "cron"}, stream_mode=["updates"]
    )

    async def has_run_thrice() -> bool:
        return len([run for run in await sdk.runs.list(thread_id) if run["status"] == "success"]) >= 3

    await eventually(has_run_thrice)
    await sdk.crons.delete(cron["cron_id"])
    runs = (await sdk.runs.list(thread_id))[::-1]
    assert all(run["metadata"]["from"] == "cron" for run in runs)
    assert {run["kwargs"]["config"]["configurable"]["cron_id"] for run in runs} == {cron["cron_id"]}
    started = [datetime.fromisoformat(run["created_at"]) for run in runs]
    assert len({moment.replace(microsecond=0) for moment in started}) == len(started), "two runs in one second"


async def test_a_stateless_cron_leaves_its_threads_only_if_they_are_to_be_kept(sdk: Client) -> None:
    mark = uuid.uuid4().hex
    kept = await sdk.crons.create(
        "steps", schedule=EACH_SECOND, input={"n": 0}, metadata={"kept": mark}, on_run_completed="keep"
    )
    gone = await sdk.crons.create("steps", schedule=EACH_SECOND, input={"n": 0}, metadata={"gone": mark})

    async def has_fired() -> bool:
        return await sdk.threads.count(metadata={"kept": mark}, status="idle") >= 2

    await eventually(has_fired)
    for cron in (kept, gone):
        await sdk.crons.delete(cron["cron_id"])

    async def is_gone() -> bool:
        return await sdk.threads.count(metadata={"gone": mark}) == 0

    await eventually(is_gone)


async def test_deleting_the_thread_ends_its_cron(sdk: Client, thread_id: str) -> None:
    cron = await sdk.crons.create_for_thread(thread_id, "steps", schedule=EACH_SECOND, input={"n": 0})
    await sdk.threads.delete(thread_id)

    async def is_off() -> bool:
        found = await sdk.crons.search(thread_id=thread_id)
        return not found or not found[0]["enabled"]

    await eventually(is_off)
    await sdk.crons.delete(cron["cron_id"])


@pytest.mark.parametrize(
    "members",
    [{"schedule": "every day"}, {"schedule": "0 0 31 2 *"}, {"timezone": "Mars/Base"}, {"webhook": "ftp://x/y"}],
)
async def test_what_cannot_fire_is_refused(members: dict[str, Any], sdk: Client) -> None:
    with pytest.raises(UnprocessableEntityError):
        await sdk.crons.create("steps", **({"schedule": RARELY} | members))


@pytest.mark.parametrize(
    "body",
    [
        {"assistant_id": "steps", "schedule": RARELY, "end_time": "never"},
        {"assistant_id": "steps", "schedule": RARELY, "end_time": "9999-12-31T23:59:59-12:00"},
        {"assistant_id": "steps", "schedule": RARELY, "metadata": None},
        {"assistant_id": "steps", "schedule": RARELY, "on_run_completed": "explode"},
        {"assistant_id": "steps"},
    ],
)
async def test_a_wrong_member_is_named(body: dict[str, Any], http: httpx.AsyncClient) -> None:
    answer = await http.post("/runs/crons", json=body)
    assert answer.status_code == 422
    assert any(name in answer.json()["detail"] for name in ("end_time", "metadata", "on_run_completed", "schedule"))


async def test_context_and_configurable_together_are_refused(http: httpx.AsyncClient) -> None:
    body = {"assistant_id": "steps", "schedule": RARELY, "context": {"a": 1}, "config": {"configurable": {"b": 1}}}
    assert (await http.post("/runs/crons", json=body)).status_code == 400


async def test_a_shortest_interval_can_be_set(own_server: Callable[..., LiveServer]) -> None:
    server = own_server(cron_min_interval_s=60)
    async with get_client(url=server.url) as client:
        with pytest.raises(UnprocessableEntityError, match="every 1 s"):
            await client.crons.create("steps", schedule=EACH_SECOND)
        assert await client.crons.create("steps", schedule="* * * * *")
        assert (await client.http.get("/info"))["flags"]["crons"] is True


async def test_a_delayed_run_starts_when_it_is_due(sdk: Client, thread_id: str) -> None:
    run = await sdk.runs.create(thread_id, "steps", input={"n": 0}, after_seconds=2)
    await run_becomes(sdk, run, "success")
    history = await sdk.threads.get_history(thread_id)
    began = datetime.fromisoformat(history[-1]["created_at"]) - datetime.fromisoformat(run["created_at"])
    assert began > timedelta(seconds=1.9)


async def test_a_delayed_run_and_a_cron_outlive_the_server(database_uri: str) -> None:
    settings = Settings(n_jobs_per_worker=2)
    with live_server_on(database_uri, settings=settings) as server:
        async with connected(server) as client:
            thread = await client.threads.create()
            run = await client.runs.create(thread["thread_id"], "steps", input={"n": 0}, after_seconds=1)
            cron = await client.crons.create(
                "steps", schedule=EACH_SECOND, input={"n": 0}, metadata={"c": 1}, on_run_completed="keep"
            )
            fired = await client.threads.count(metadata={"c": 1})
    with live_server_on(database_uri, settings=settings) as server:
        async with connected(server) as client:
            await run_becomes(client, run, "success")

            async def fires_again() -> bool:
                return await client.threads.count(metadata={"c": 1}) > fired + 1

            await eventually(fires_again)
            await client.crons.delete(cron["cron_id"])
