"""The kill switch on live servers: what runs and waits is stopped in all processes, and nothing new begins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from e2e.authorized import http_as, new_key
from eventually import eventually
from live_server import LiveServer, live_server_on
from receivers import receiver
from waystation.auth.roles import Role
from waystation.config import Settings

pytestmark = pytest.mark.anyio

SLOW: dict[str, Any] = {"assistant_id": "slow", "input": {"n": 500}}
QUICK: dict[str, Any] = {"assistant_id": "steps", "input": {"n": 0}}


@pytest.fixture
async def two(database_uri: str) -> AsyncGenerator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two servers with a worker each on one database."""
    async with AsyncExitStack() as stack:
        settings = Settings(n_jobs_per_worker=3, event_log="postgres")
        urls = [stack.enter_context(live_server_on(database_uri, settings=settings)).url for _ in range(2)]
        one, other = [await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60)) for url in urls]
        yield one, other


async def new_run(http: httpx.AsyncClient, body: dict[str, Any], *, on: str | None = None) -> dict[str, Any]:
    thread_id = on or (await http.post("/threads", json={})).json()["thread_id"]
    made = await http.post(f"/threads/{thread_id}/runs", json=body)
    assert made.status_code == 200, made.text
    return made.json()


async def kill(http: httpx.AsyncClient, scope: str, what: str, **members: Any) -> dict[str, Any]:
    used = await http.post("/guards/kill", json={"scope": scope, "id": what, **members})
    assert used.status_code == 200, used.text
    return used.json()


async def statuses(http: httpx.AsyncClient, runs: list[dict[str, Any]]) -> list[str]:
    found = [await http.get(f"/threads/{run['thread_id']}/runs/{run['run_id']}") for run in runs]
    return [one.json()["status"] for one in found]


async def refused(http: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response | None:
    answer = await http.post("/runs/wait", json=body)
    return answer if answer.status_code == 403 else None


async def test_what_runs_and_waits_on_two_workers_ends_and_nothing_new_begins(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    one, other = two
    running = [await new_run(http, SLOW) for http in (one, other, one, other)]

    async def all_run() -> bool:
        return await statuses(one, running) == ["running"] * 4

    await eventually(all_run)
    waiting = [await new_run(other, SLOW, on=run["thread_id"]) for run in running]
    later = await new_run(one, {**QUICK, "after_seconds": 600})
    unaffected = await new_run(one, QUICK)
    used = await kill(one, "graph", "slow", reason="it loops")
    assert used["stopped"] == {"pending": 4, "running": 4}

    async def all_end() -> bool:
        return await statuses(other, running + waiting) == ["interrupted"] * 8

    await eventually(all_end)
    assert (await statuses(one, [later]))[0] == "pending"
    thread = (await other.get(f"/threads/{running[0]['thread_id']}")).json()
    assert thread["error"] == {"error": "Killed", "message": "Stopped by the kill switch: it loops"}
    assert thread["status"] != "busy"

    async def refuse_everywhere() -> bool:
        return all([await refused(http, SLOW) for http in two])

    await eventually(refuse_everywhere)
    answer = await refused(other, SLOW)
    assert answer is not None
    assert answer.json() == {"detail": "Stopped by the kill switch: it loops", "code": "killed"}
    assert (await other.post("/runs/wait", json=QUICK)).status_code == 200

    async def done() -> bool:
        return await statuses(one, [unaffected]) == ["success"]

    await eventually(done)
    lifted = await other.delete(f"/guards/kill/{used['kill_id']}")
    assert lifted.json()["in_force"] is False

    async def begins_again() -> bool:
        return (await one.post("/runs", json=SLOW)).status_code == 200

    await eventually(begins_again)
    await one.post("/runs/cancel", json={"status": "all"})


async def test_a_switch_outlives_all_processes(database_uri: str) -> None:
    with live_server_on(database_uri) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            await kill(http, "tenant", "default")
    with live_server_on(database_uri) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            assert (await http.post("/runs/wait", json=QUICK)).status_code == 403
            assert [one["scope"] for one in (await http.get("/guards/kill")).json()] == ["tenant"]


async def test_a_switch_with_a_time_is_over_by_itself(own_server: Callable[..., LiveServer], database_uri: str) -> None:
    async with httpx.AsyncClient(base_url=own_server().url, timeout=60) as http:
        used = await kill(http, "tenant", "default", for_s=600)
        assert used["until"] is not None
        answer = await refused(http, QUICK)
        assert answer is not None
        assert 500 < int(answer.headers["retry-after"]) <= 600
        async with await psycopg.AsyncConnection.connect(database_uri, autocommit=True) as conn:
            await conn.execute("update guard_kill set until = clock_timestamp() + interval '1 s'")
            await conn.execute("select pg_notify('ws_kill', '')")

        async def begins() -> bool:
            return (await http.post("/runs/wait", json=QUICK)).status_code == 200

        await eventually(begins)
        assert (await http.get("/guards/kill")).json() == []
        assert len((await http.get("/guards/kill?in_force=false")).json()) == 1


async def test_a_tenants_switch_stops_nobody_else_and_only_its_admins_have_one(database_uri: str) -> None:
    with live_server_on(database_uri, settings=Settings(auth={"api_keys": True})) as server:
        callers: list[tuple[str, Role, str]] = [
            ("ann", "admin", "acme"),
            ("sue", "service", "acme"),
            ("bob", "admin", "rival"),
        ]
        keys = {name: await new_key(database_uri, name, role, tenant=tenant) for name, role, tenant in callers}
        async with AsyncExitStack() as stack:
            https = {n: await stack.enter_async_context(http_as(server.url, key)) for n, key in keys.items()}
            assert (await https["sue"].get("/guards/kill")).status_code == 403
            wish = {"scope": "tenant", "id": "acme"}
            assert (await https["sue"].post("/guards/kill", json=wish)).status_code == 403
            assert (await https["bob"].post("/guards/kill", json=wish)).status_code == 422
            used = await kill(https["ann"], scope="tenant", what="acme")
            assert (await https["sue"].post("/runs/wait", json=QUICK)).status_code == 403
            assert (await https["bob"].post("/runs/wait", json=QUICK)).status_code == 200
            assert (await https["bob"].get("/guards/kill")).json() == []
            assert (await https["bob"].delete(f"/guards/kill/{used['kill_id']}")).status_code == 404
            assert (await https["ann"].delete(f"/guards/kill/{used['kill_id']}")).status_code == 200
            key_id = keys["sue"].split("_")[1]
            assert (await https["bob"].post("/guards/kill", json={"scope": "key", "id": key_id})).status_code == 404
            await kill(https["ann"], "key", key_id)
            assert (await https["sue"].post("/runs/wait", json=QUICK)).status_code == 403
            assert (await https["ann"].post("/runs/wait", json=QUICK)).status_code == 200
            await kill(https["ann"], "user", "ann")
            assert (await https["ann"].post("/runs/wait", json=QUICK)).status_code == 403


async def test_only_the_runs_of_a_key_are_stopped(database_uri: str) -> None:
    with live_server_on(database_uri, settings=Settings(auth={"api_keys": True})) as server:
        ann, sue = [await new_key(database_uri, name, "admin") for name in ("ann", "sue")]
        async with http_as(server.url, ann) as hers, http_as(server.url, sue) as theirs:
            runs = [await new_run(hers, SLOW), await new_run(theirs, SLOW)]
            await kill(hers, "key", sue.split("_")[1])

            async def ended() -> bool:
                return await statuses(hers, runs) == ["running", "interrupted"]

            await eventually(ended)
            await hers.post("/runs/cancel", json={"status": "all"})


async def test_the_webhook_of_a_killed_run_is_sent(database_uri: str, tmp_path: Path) -> None:
    graphs = Path(__file__).parents[1] / "contract" / "fixtures" / "basic" / "graphs.py"
    keys = {
        "dependencies": ["."],
        "graphs": {"slow": f"{graphs}:slow"},
        "webhooks": {"url": {"disable_loopback": False}},
    }
    (tmp_path / "langgraph.json").write_text(json.dumps(keys))
    with live_server_on(database_uri, project=tmp_path) as server:
        async with receiver() as hook, httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            run = await new_run(http, {**SLOW, "webhook": hook.url})
            await kill(http, "graph", "slow", reason="enough")
            (told,) = await hook.until(1)
            assert told.body["run_id"] == run["run_id"]
            assert told.body["status"] == "interrupted"
            assert "kill switch: enough" in told.body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"scope": "world", "id": "x"}, "body.scope"),
        ({"scope": "graph", "id": ""}, "body.id"),
        ({"scope": "graph", "id": "slow", "for_s": 0}, "body.for_s"),
        ({"scope": "tenant", "id": "another"}, "body.id"),
    ],
)
async def test_a_wrong_wish_names_its_member(http: httpx.AsyncClient, body: dict[str, Any], said: str) -> None:
    answer = await http.post("/guards/kill", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient) -> None:
    for body in ({"scope": "graph", "id": "nothing"}, {"scope": "key", "id": "nothing"}):
        assert (await http.post("/guards/kill", json=body)).status_code == 404
    await asyncio.sleep(0)
