"""Firing crons against Postgres: one run per tick, whatever dies or races, and nothing that loops."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest

from api_services import BASIC, api_services
from waystation.auth import ANONYMOUS, Principal
from waystation.config import Settings
from waystation.runs import cron_firing, crons
from waystation.runs.assistants import ensure_default_assistants
from waystation.runs.cron_bodies import CronCreate
from waystation.services import Services
from waystation.worker.cron_clock import CROWDED_S, CronClock

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def api(database_uri: str, **settings: Any) -> AsyncGenerator[Services]:
    """A process that fires crons when the test says so."""
    given = Settings(database_uri=database_uri, n_jobs_per_worker=0, **settings)
    async with api_services(database_uri, project=BASIC, settings=given) as services:
        await ensure_default_assistants(services)
        yield services


async def cron(services: Services, *, caller: Principal = ANONYMOUS, on: str | None = None, **members: Any) -> str:
    body = CronCreate.model_validate({"assistant_id": "steps", "schedule": "* * * * *", "input": {"n": 0}, **members})
    made = await crons.create_cron(services, caller, thread_id=on, body=body)
    return orjson.loads(made)["cron_id"]


async def sql(services: Services, statement: str, *params: Any) -> list[tuple[Any, ...]]:
    async with services.db.connection() as conn:
        cur = await conn.execute(statement.encode(), params)
        return await cur.fetchall() if cur.description else []


async def due(services: Services, cron_id: str, *, since: str = "1 second") -> None:
    """Let a tick of the cron be that long ago."""
    await sql(services, f"update cron set next_run_at = now() - interval '{since}' where cron_id = %s", cron_id)


async def thread(services: Services) -> str:
    statement = "insert into thread (thread_id) values (gen_random_uuid()) returning thread_id"
    return str((await sql(services, statement))[0][0])


async def runs_of(services: Services, cron_id: str) -> int:
    condition = "kwargs -> 'config' -> 'configurable' ->> 'cron_id' = %s"
    return (await sql(services, f"select count(*) from run where {condition}", cron_id))[0][0]


async def row(services: Services, cron_id: str) -> dict[str, Any]:
    return orjson.loads(await crons.get_cron(services, ANONYMOUS, cron_id=cron_id))


async def test_many_processes_fire_a_tick_once(database_uri: str) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(api(database_uri)) for _ in range(3)]
        ids = [await cron(processes[0]) for _ in range(12)]
        for cron_id in ids:
            await due(processes[0], cron_id)
        await asyncio.gather(*(CronClock(process).round() for process in processes))
        assert [await runs_of(processes[0], cron_id) for cron_id in ids] == [1] * 12


async def test_a_crash_before_the_commit_neither_loses_nor_doubles_the_firing(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(database_uri) as services:
        cron_id = await cron(services)
        await due(services, cron_id)

        async def dies(*_: Any, **__: Any) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patch:
            patch.setattr("waystation_db.crons.move_on", dies)
            with pytest.raises(asyncio.CancelledError):
                await cron_firing.fire_next(services)
        assert await runs_of(services, cron_id) == 0
        assert await cron_firing.fire_next(services)
        assert not await cron_firing.fire_next(services)
        assert await runs_of(services, cron_id) == 1


@pytest.mark.parametrize(("missed", "expected"), [("once", 1), ("skip", 0), ("all", 5)])
async def test_missed_ticks_are_treated_as_the_setting_says(missed: str, expected: int, database_uri: str) -> None:
    async with api(database_uri, cron_missed=missed) as services:
        cron_id = await cron(services)
        await sql(services, "update cron set next_run_at = date_trunc('minute', now()) - interval '4 minutes'")
        while await cron_firing.fire_next(services):
            pass
        assert await runs_of(services, cron_id) == expected
        following = datetime.fromisoformat((await row(services, cron_id))["next_run_date"])
        assert timedelta(0) < following - datetime.now(following.tzinfo) <= timedelta(minutes=1)


async def test_all_missed_ticks_are_bounded(database_uri: str) -> None:
    async with api(database_uri, cron_missed="all") as services:
        cron_id = await cron(services, schedule="* * * * * *")
        await due(services, cron_id, since="1 day")
        while await cron_firing.fire_next(services):
            pass
        assert cron_firing.MOST_MISSED <= await runs_of(services, cron_id) <= cron_firing.MOST_MISSED + 5


async def test_a_paused_or_ended_cron_does_not_fire(database_uri: str) -> None:
    async with api(database_uri) as services:
        paused, ended = await cron(services, enabled=False), await cron(services, end_time="2001-01-01T00:00:00Z")
        for cron_id in (paused, ended):
            await due(services, cron_id)
        assert not await cron_firing.fire_next(services)


async def test_the_run_has_the_crons_metadata_its_id_and_its_owner(database_uri: str) -> None:
    async with api(database_uri) as services:
        owner = Principal(identity="ann", permissions=("a", "b"), user={"identity": "ann", "team": "x"})
        cron_id = await cron(services, caller=owner, metadata={"m": 1}, context={"c": 1}, on_run_completed="keep")
        await due(services, cron_id)
        assert await cron_firing.fire_next(services)
        [(metadata, kwargs, of_thread)] = await sql(
            services, "select r.metadata, r.kwargs, t.metadata from run r join thread t using (tenant_id, thread_id)"
        )
        assert (metadata["m"], of_thread["m"]) == (1, 1)
        configurable = kwargs["config"]["configurable"]
        assert (configurable["c"], configurable["cron_id"]) == (1, cron_id)
        assert configurable["langgraph_auth_user"] == {"identity": "ann", "team": "x"}
        assert configurable["langgraph_auth_permissions"] == ["a", "b"]
        assert (await row(services, cron_id))["user_id"] == "ann"


async def test_crons_of_a_tenant_make_runs_of_that_tenant(database_uri: str) -> None:
    async with api(database_uri) as services:
        other = Principal(tenant_id="other")
        await ensure_default_assistants(services, "other")
        cron_id = await cron(services, caller=other)
        await due(services, cron_id)
        assert await cron_firing.fire_next(services)
        assert await sql(services, "select tenant_id from run union select tenant_id from thread") == [("other",)]


async def test_a_cron_whose_thread_is_gone_is_switched_off(database_uri: str) -> None:
    async with api(database_uri) as services:
        thread_id = await thread(services)
        cron_id = await cron(services, on=thread_id)
        await sql(services, "delete from thread where thread_id = %s", thread_id)
        await due(services, cron_id)
        assert await cron_firing.fire_next(services)
        assert not await cron_firing.fire_next(services)
        found = await row(services, cron_id)
        assert (found["enabled"], found["disabled_reason"]) == (False, "its thread does not exist any more")


async def test_a_cron_whose_assistant_is_gone_is_switched_off_with_no_thread_left_behind(database_uri: str) -> None:
    async with api(database_uri) as services:
        cron_id = await cron(services)
        await sql(services, "delete from assistant")
        await due(services, cron_id)
        assert await cron_firing.fire_next(services)
        assert not (await row(services, cron_id))["enabled"]
        assert await sql(services, "select 1 from thread") == []


async def test_reject_passes_over_the_ticks_while_the_thread_is_busy(database_uri: str) -> None:
    async with api(database_uri) as services:
        thread_id = await thread(services)
        cron_id = await cron(services, on=thread_id, multitask_strategy="reject")
        for _ in range(2):
            await due(services, cron_id)
            assert await cron_firing.fire_next(services)
        found = await row(services, cron_id)
        assert (await runs_of(services, cron_id), found["enabled"]) == (1, True)


async def test_a_thread_that_never_catches_up_is_not_buried(database_uri: str) -> None:
    async with api(database_uri) as services:
        thread_id = await thread(services)
        cron_id = await cron(services, on=thread_id)
        for _ in range(cron_firing.MOST_WAITING + 3):
            await due(services, cron_id)
            assert await cron_firing.fire_next(services)
        assert await runs_of(services, cron_id) == cron_firing.MOST_WAITING


async def test_masses_of_crons_leave_room_in_the_queue(database_uri: str) -> None:
    async with api(database_uri, max_queue=20) as services:
        ids = [await cron(services, schedule="* * * * * *") for _ in range(30)]
        for cron_id in ids:
            await due(services, cron_id)
        clock = CronClock(services)
        await clock.round()
        assert await clock.round() == CROWDED_S
        waiting = (await sql(services, "select count(*) from run where status = 'pending'"))[0][0]
        assert 10 <= waiting <= 13


async def test_a_firing_that_fails_unexpectedly_is_tried_at_the_next_tick(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(database_uri) as services:
        cron_id = await cron(services)
        await due(services, cron_id)

        async def fails(*_: Any, **__: Any) -> None:
            raise psycopg.DataError("no")

        monkeypatch.setattr(cron_firing, "create_within", fails)
        assert await cron_firing.fire_next(services)
        assert not await cron_firing.fire_next(services)
        assert (await row(services, cron_id))["enabled"]


async def test_a_cron_is_invisible_to_other_tenants(database_uri: str) -> None:
    async with api(database_uri) as services:
        cron_id = await cron(services, caller=Principal(tenant_id="default"))
        for call in (crons.get_cron, crons.delete_cron):
            with pytest.raises(Exception, match="Not Found"):
                await call(services, Principal(tenant_id="other"), cron_id=cron_id)
        assert str(uuid.UUID(cron_id)) == cron_id
