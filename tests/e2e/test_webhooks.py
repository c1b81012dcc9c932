"""Webhooks of a live server, to receivers that take them late, never, or not at all."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError

from eventually import eventually, run_becomes
from live_server import Client, live_server_on
from receivers import fails_first, never_answers, receiver, says
from waystation.config import Settings

pytestmark = pytest.mark.anyio

GRAPHS = Path(__file__).parents[1] / "contract" / "fixtures" / "basic" / "graphs.py"
ServerOf = Callable[..., Any]


@pytest.fixture
def server_of(database_uri: str, tmp_path: Path) -> ServerOf:
    """Serve a project with these keys of `langgraph.json`, on this test's database."""

    @asynccontextmanager
    async def serve(*, keys: dict[str, Any] | None = None, **settings: Any) -> AsyncGenerator[Client]:
        project = {
            "dependencies": ["."],
            "graphs": {name: f"{GRAPHS}:{name}" for name in ("steps", "fail", "hitl", "slow")},
            "webhooks": {"url": {"disable_loopback": False}},
        }
        (tmp_path / "langgraph.json").write_text(json.dumps(project | (keys or {})))
        given: dict[str, Any] = {"n_jobs_per_worker": 3, "webhook_retry_s": 0.2, "webhook_timeout_s": 1} | settings
        with live_server_on(database_uri, project=tmp_path, settings=Settings(**given)) as server:
            async with get_client(url=server.url) as client:
                yield client

    return serve


async def run(client: Client, graph: str, webhook: str, **more: Any) -> dict[str, Any]:
    thread = await client.threads.create()
    made = {"input": {"n": 0}, "webhook": webhook} | more
    return await client.runs.create(thread["thread_id"], graph, **made)


async def deliveries(client: Client, **query: Any) -> list[dict[str, Any]]:
    return await client.http.get("/webhooks/deliveries", params=query)


async def becomes(client: Client, status: str) -> dict[str, Any]:
    """Wait until the only delivery has a status."""
    seen: list[dict[str, Any]] = []

    async def check() -> bool:
        seen[:] = await deliveries(client)
        return bool(seen) and seen[0]["status"] == status

    await eventually(check)
    return seen[0]


async def test_every_end_of_a_run_is_told(server_of: ServerOf) -> None:
    async with server_of() as client, receiver() as it:
        for graph in ("steps", "fail", "hitl"):
            await run(client, graph, it.url)
        stopped = await run(client, "slow", it.url, input={"n": 30})
        await run_becomes(client, stopped, "running")
        await client.runs.cancel(stopped["thread_id"], stopped["run_id"], wait=True)
        gone = await run(client, "slow", it.url, input={"n": 30})
        await run_becomes(client, gone, "running")
        await client.runs.cancel(gone["thread_id"], gone["run_id"], wait=True, action="rollback")
        waiting = await run(client, "steps", it.url, after_seconds=3600)
        await client.runs.cancel(waiting["thread_id"], waiting["run_id"], wait=True)
        told = [one.body for one in await it.until(6)]
    assert sorted(one["status"] for one in told) == [
        *("error", "interrupted", "interrupted", "rollback", "success", "success")
    ]
    by_run = {one["run_id"]: one for one in told}
    assert by_run[gone["run_id"]]["values"] is None
    assert by_run[gone["run_id"]]["error"]["error"] == "UserRollback"
    assert by_run[stopped["run_id"]]["error"]["error"] == "UserInterrupt"
    failed = next(one for one in told if one["status"] == "error")
    assert (failed["error"]["error"], failed["values"]) == ("ValueError", {"log": ["a"], "n": 1})
    assert all(one["run_ended_at"] and one["webhook_sent_at"] for one in told)


async def test_a_stateless_run_and_a_cron_have_webhooks(server_of: ServerOf) -> None:
    async with server_of() as client, receiver() as it:
        await client.runs.create(None, "steps", input={"n": 0}, webhook=it.url, metadata={"who": "run"})
        cron = await client.crons.create(
            "steps", schedule="* * * * * *", input={"n": 0}, webhook=it.url, metadata={"who": "cron"}
        )
        told = [one.body for one in await it.until(2)]
        await client.crons.delete(cron["cron_id"])
    assert {one["metadata"]["who"] for one in told} == {"run", "cron"}
    assert {json.dumps(one["values"]) for one in told} == {"null"}


async def test_a_receiver_that_fails_is_tried_again_with_the_same_id(server_of: ServerOf) -> None:
    async with server_of() as client, receiver(fails_first(2)) as it:
        await run(client, "steps", it.url)
        got = await it.until(3)
        found = await becomes(client, "delivered")
    assert len({one.headers["webhook-id"] for one in got}) == 1
    assert (found["attempts"], found["response_status"], found["error"]) == (3, 200, None)


async def test_what_no_receiver_takes_is_given_up_listed_and_replayed(server_of: ServerOf) -> None:
    async with server_of(webhook_tries=2) as client, receiver(fails_first(2)) as it:
        made = await run(client, "steps", it.url)
        spent = await becomes(client, "spent")
        assert (spent["attempts"], spent["error"], spent["run_id"]) == (2, "answered 503", made["run_id"])
        assert await deliveries(client, status="spent", run_id=made["run_id"]) == [spent]
        assert await deliveries(client, status="delivered") == []
        replayed = await client.http.post(f"/webhooks/deliveries/{spent['delivery_id']}/replay", json=None)
        assert replayed["status"] == "pending"
        await it.until(3)
        assert (await becomes(client, "delivered"))["delivery_id"] == spent["delivery_id"]
        with pytest.raises(NotFoundError):
            await client.http.get("/webhooks/deliveries/00000000-0000-0000-0000-000000000000")


async def test_retry_after_is_heeded(server_of: ServerOf) -> None:
    async with server_of() as client, receiver(fails_first(1, "retry-after: 3600")) as it:
        await run(client, "steps", it.url)
        await it.until(1)

        async def has_failed() -> bool:
            return (await deliveries(client))[0]["error"] is not None

        await eventually(has_failed)
        [waiting] = await deliveries(client)
        assert waiting["next_attempt_at"] > waiting["created_at"][:11] + "00"
        assert (waiting["status"], len(it.got)) == ("pending", 1)


async def test_a_receiver_that_never_answers_holds_up_neither_runs_nor_other_receivers(
    server_of: ServerOf, database_uri: str
) -> None:
    async with server_of(webhook_timeout_s=30) as client, receiver(never_answers) as stuck, receiver() as it:
        await run(client, "steps", stuck.url)
        await stuck.until(1)
        async with await psycopg.AsyncConnection.connect(database_uri, autocommit=True) as conn:
            await conn.execute(
                "insert into webhook_delivery (delivery_id, thread_id, run_id, url, payload) "
                "select gen_random_uuid(), thread_id, run_id, url, payload "
                "from webhook_delivery, generate_series(1, 12)"
            )  # all of them due at the same moment
        await stuck.until(8)
        await run(client, "steps", it.url)
        await it.until(1)
        assert len(stuck.got) == 8, "so many at a time to one host"


async def test_a_redirect_leads_nowhere(server_of: ServerOf) -> None:
    async with server_of(webhook_tries=1) as client, receiver() as target:
        async with receiver(says(302, f"location: {target.url}")) as it:
            await run(client, "steps", it.url)
            spent = await becomes(client, "spent")
        assert (spent["response_status"], target.got) == (302, [])


async def test_headers_of_the_project_are_sent_and_webhooks_are_signed(server_of: ServerOf) -> None:
    keys = {
        "webhooks": {
            "url": {"disable_loopback": False},
            "headers": {"authorization": "Bearer ${{ env.LG_WEBHOOK_TOKEN }}"},
        },
        "env": {"LG_WEBHOOK_TOKEN": "tok"},
    }
    async with server_of(keys=keys, webhook_secret="new", webhook_secret_previous="old") as client, receiver() as it:
        await run(client, "steps", it.url)
        [got] = await it.until(1)
    assert got.headers["authorization"] == "Bearer tok"
    assert [part[:3] for part in got.headers["webhook-signature"].split()] == ["v1,", "v1,"]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1:9/x",
            "http://localhost/x",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest",
            "/relative",
        ),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "ftp://example.com/x"),
    ],
)
async def test_what_is_not_public_is_refused_when_the_run_is_created(url: str, server_of: ServerOf) -> None:
    async with server_of(keys={"webhooks": {}}) as client:
        thread = await client.threads.create()
        with pytest.raises(UnprocessableEntityError, match="webhook"):
            await client.runs.create(thread["thread_id"], "steps", webhook=url)
        with pytest.raises(UnprocessableEntityError, match="webhook"):
            await client.runs.create(None, "steps", webhook=url)
        assert await client.runs.list(thread["thread_id"]) == []


async def test_a_path_is_sent_to_the_server_itself(server_of: ServerOf) -> None:
    async with server_of() as client:
        await run(client, "steps", "/assistants/count")
        assert (await becomes(client, "delivered"))["response_status"] == 200


async def test_a_project_can_be_without_webhooks(server_of: ServerOf) -> None:
    async with server_of(keys={"http": {"disable_webhooks": True}}) as client, receiver() as it:
        made = await run(client, "steps", "https://example.com/hook")
        await run_becomes(client, made, "success")
        with pytest.raises(NotFoundError):
            await deliveries(client)
        assert it.got == []


async def test_deliveries_are_paged(server_of: ServerOf) -> None:
    async with server_of() as client, receiver() as it:
        for _ in range(3):
            await run(client, "steps", it.url)
        await it.until(3)
        pages = [await deliveries(client, limit=2, offset=offset) for offset in (0, 2)]
    assert [len(page) for page in pages] == [2, 1]
    assert len({one["delivery_id"] for page in pages for one in page}) == 3
