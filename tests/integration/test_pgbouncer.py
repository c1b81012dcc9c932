"""An API process and a worker that reach Postgres through PgBouncer in transaction mode.

No statement may lean on the session before it, and where LISTEN cannot work either, polling finds everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph_sdk import get_client

from cli_servers import Command
from eventually import run_becomes, thread_rests
from live_server import E2E, Client
from pgbouncer import binary, pgbouncer_before
from waystation_db.listen import Listener
from waystation_db.migrate import migrate, pending
from waystation_db.pool import Database

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(binary() is None, reason="there is no pgbouncer on this machine"),
    pytest.mark.timeout(180),
]

AT_ONCE = 15


@dataclass(frozen=True, slots=True)
class Pooled:
    """An installation behind PgBouncer."""

    url: str
    api: Command
    worker: Command


@pytest.fixture(params=["listening directly", "only polling"])
def pooled(request: pytest.FixtureRequest, database_uri: str, tmp_path: Path) -> Generator[Pooled]:
    with ExitStack() as stack:
        uri = stack.enter_context(pgbouncer_before(database_uri, tmp_path))
        listen_uri = database_uri if request.param == "listening directly" else uri
        environ = {
            "DATABASE_URI": uri,
            "WAYSTATION_PREPARE": "false",
            "WAYSTATION_LISTEN_URI": listen_uri,
            "WAYSTATION_POLL_S": "0.3",
        }
        api = stack.enter_context(Command.running("serve", "--port", "0", cwd=E2E, environ=environ))
        worker = stack.enter_context(Command.running("worker", cwd=E2E, environ=environ))
        yield Pooled(api.url, api, worker)
        for command in (api, worker):
            assert "Traceback" not in command.output
            assert "[error" not in command.output


@pytest.fixture
async def sdk(pooled: Pooled) -> AsyncGenerator[Client]:
    async with get_client(url=pooled.url) as client:
        yield client


async def test_everything_works_through_pgbouncer(sdk: Client) -> None:
    """All kinds of requests at the same moment, so that they share the few connections that PgBouncer has."""
    async with asyncio.TaskGroup() as tasks:
        for n in range(AT_ONCE):
            tasks.create_task(_waits(sdk))
            tasks.create_task(_streams(sdk, resumable=bool(n % 2)))
            tasks.create_task(_cancels(sdk, at_once=bool(n % 2)))
            tasks.create_task(_updates_state(sdk))
            tasks.create_task(_uses_the_store(sdk))
            tasks.create_task(_queues(sdk))
    assert await sdk.threads.count(status="busy") == 0


async def _waits(sdk: Client) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    for turn in (1, 2):
        output = await sdk.runs.wait(thread, "steps", input={"log": [f"turn {turn}"]})
        assert output["log"] == [item for t in range(1, turn + 1) for item in (f"turn {t}", "a", "b")]
    assert len(await sdk.threads.get_history(thread)) == 8


async def _streams(sdk: Client, *, resumable: bool) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    given: dict[str, Any] = {"input": {"n": 6, "delay": 0.05}, "stream_mode": ["custom", "updates"]}
    parts: list[Any]
    if not resumable:
        parts = [part async for part in sdk.runs.stream(thread, "slow", **given)]
    else:
        run = await sdk.runs.create(thread, "slow", **given, stream_resumable=True)
        parts, last = [], "-1"
        while piece := await _first(sdk.runs.join_stream(thread, run["run_id"], last_event_id=last), 4):
            parts += piece
            last = piece[-1].id
        assert len({part.id for part in parts}) == len(parts)
    assert [part.event for part in parts] == ["metadata", *["custom", "updates"] * 6]
    assert [part.data["tick"] for part in parts if part.event == "custom"] == list(range(6))


async def _first(stream: Any, count: int) -> list[Any]:
    parts: list[Any] = []
    async for part in stream:
        parts.append(part)
        if len(parts) == count:
            break
    return parts


async def _cancels(sdk: Client, *, at_once: bool) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    run = await sdk.runs.create(thread, "slow", input={"n": 1000, "delay": 0.05})
    if not at_once:
        await run_becomes(sdk, run, "running", within_s=60)
    await sdk.runs.cancel(thread, run["run_id"], wait=True)
    assert (await sdk.runs.get(thread, run["run_id"]))["status"] == "interrupted"
    assert (await sdk.runs.wait(thread, "steps", input={"log": []}, multitask_strategy="reject"))["log"] == ["a", "b"]


async def _updates_state(sdk: Client) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(thread, "hitl", input={"log": []})
    assert (await sdk.threads.get_state(thread))["next"] == ["ask"]
    await sdk.threads.update_state(thread, {"log": ["by hand"]}, as_node="ask")
    output = await sdk.runs.wait(thread, "hitl", input=None)
    assert output["log"] == ["by hand", "b"]


async def _uses_the_store(sdk: Client) -> None:
    assert (await sdk.runs.wait(None, "memory", input={"log": []}))["log"] == ["graph wrote this"]


async def _queues(sdk: Client) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    for _ in range(3):
        await sdk.runs.create(thread, "steps", input={"log": ["x"]}, multitask_strategy="enqueue")
    assert await thread_rests(sdk, thread, within_s=60) == "idle"
    assert (await sdk.threads.get_state(thread))["values"]["log"] == ["x", "a", "b"] * 3


async def test_schema_is_made_through_pgbouncer(empty_database_uri: str, tmp_path: Path) -> None:
    with pgbouncer_before(empty_database_uri, tmp_path) as uri:
        assert await migrate(uri)
        assert await pending(uri) == []


async def test_one_is_told_that_listening_leads_to_a_pooler(
    database_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pgbouncer_before(database_uri, tmp_path) as uri, caplog.at_level(logging.WARNING):
        async with Listener(database_uri, ["ws_run"]):
            assert "WAYSTATION_LISTEN_URI" not in caplog.text
        async with Listener(uri, ["ws_run"]):
            assert "WAYSTATION_LISTEN_URI" in caplog.text


async def test_notifications_that_a_pooler_brings_to_a_stranger_are_not_kept(database_uri: str, tmp_path: Path) -> None:
    with pgbouncer_before(database_uri, tmp_path, pool_size=1) as uri:
        async with Listener(uri, ["ws_run"]), Database(uri, max_size=1, prepare=False) as db:
            with psycopg.connect(database_uri, autocommit=True) as direct:
                direct.execute("select pg_notify('ws_run', n::text) from generate_series(1, 100) n")
            async with db.connection() as conn:
                await conn.execute("select 1")
                assert not conn._notifies_backlog  # pyright: ignore[reportPrivateUsage]  # there is no other way to see it
