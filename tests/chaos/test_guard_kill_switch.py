"""`waystation kill` over a fleet whose workers wait for a provider: all stop, and stay stopped until it is lifted."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.runs_api import Accepted, body, joined, submit
from chaos.spending import Spending, spending
from eventually import eventually
from providers import Plan
from services import Valkey
from waystation_db.pool import Database

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
SLOTS = 8
KILLED = {"detail": "Stopped by the kill switch: it loops", "code": "killed"}


@pytest.mark.parametrize(
    ("scope", "owner", "with_redis"), [("graph", "twice", True), ("tenant", "default", False)], ids=["graph", "tenant"]
)
async def test_a_kill_stops_model_calls_in_all_workers_until_it_is_lifted(
    tmp_path: Path,
    db: Database,
    database_uri: str,
    make_redis: Callable[[], Valkey],
    scope: str,
    owner: str,
    with_redis: bool,
) -> None:
    redis = make_redis() if with_redis else None
    async with spending(tmp_path, db, database_uri, redis, workers=2) as load:
        load.provider.always(Plan("hang"))
        running = [await asked(load) for _ in range(SLOTS)]
        await eventually(lambda: all_wait_for_the_provider(load), within_s=60)
        waiting = [await asked(load) for _ in range(2)]
        kill_id = await killed(load, f"--{scope}", owner)
        ends = await load.witness.until_ended([run.run_id for run in running + waiting], within_s=60)
        assert set(ends.values()) == {"interrupted"}
        thread = (await load.client.get(f"/threads/{running[0].thread_id}")).json()
        assert thread["error"] == {"error": "Killed", "message": KILLED["detail"]}
        assert thread["status"] != "busy"
        await nothing_is_left(load)
        load.provider.always("ok")
        await new_ones_are_refused(load, scope)
        await all_processes_are_replaced(load)
        assert kill_id in await load.fleet.command("kill", "--list")
        await new_ones_are_refused(load, scope)
        asked_before = len(load.provider.requests)
        assert "lifted" in await load.fleet.command("kill", "--lift", kill_id)
        await they_go_on(load, running)
        assert len(load.provider.requests) >= asked_before + 2 * SLOTS
        assert (await load.account())[1:] == (0, 0)


async def asked(load: Spending) -> Accepted:
    return await submit(load.client, "twice", HI, thread_id=str(uuid.uuid4()))


async def all_wait_for_the_provider(load: Spending) -> bool:
    calls = load.open_calls()
    assert len(calls) <= SLOTS
    processes = {seen.body["metadata"]["pid"] for seen in calls}
    return len(calls) == SLOTS and len(processes) == 2


async def killed(load: Spending, *whom: str) -> str:
    """The kill's id."""
    told = await load.fleet.command("kill", *whom, "--reason", "it loops")
    assert f"Told to stop: {SLOTS} running" in told
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", told)
    assert found is not None
    return found[0]


async def nothing_is_left(load: Spending) -> None:
    """No request is open, nothing is held and no place is taken, though no process has ended."""

    async def is_free() -> bool:
        return not load.open_calls() and (await load.account())[1:] == (0, 0) and not await load.places()

    await eventually(is_free, within_s=30)  # a place that nobody gives back is free after a minute
    assert all(worker.is_alive for worker in load.workers)


async def new_ones_are_refused(load: Spending, scope: str) -> None:
    before = len(load.provider.requests)

    async def is_refused() -> bool:
        answer = await load.client.post("/runs/wait", json=body("twice", HI))
        return (answer.status_code, answer.json()) == (403, KILLED)

    await eventually(is_refused, within_s=30)
    assert len(load.provider.requests) == before, "a new run called its model"
    other = await load.client.post("/runs/wait", json=body("once", HI))
    assert other.status_code == (200 if scope == "graph" else 403), other.text


async def all_processes_are_replaced(load: Spending) -> None:
    old = list(load.fleet.nodes)
    for node in old:
        if node.is_alive:
            node.terminate()
            assert await node.ended(within_s=60) == 0, node.log()
    for node in old:
        if node.name == "api" or node in load.workers:
            node.again()
    (api,) = [node for node in load.fleet.nodes if node.name == "api" and node.is_alive]
    await api.ready()


async def they_go_on(load: Spending, stopped: list[Accepted]) -> None:
    """Their threads take up where they were stopped."""

    async def begins() -> bool:
        return (await load.client.post("/runs/wait", json=body("once", HI))).status_code == 200

    await eventually(begins, within_s=30)
    runs = [await submit(load.client, "twice", None, thread_id=run.thread_id) for run in stopped]
    for output in await asyncio.gather(*[joined(load.client, run) for run in runs]):
        assert [message["type"] for message in output["messages"]] == ["human", "ai", "ai"]
