"""Crons of what the kill switch has stopped: their ticks pass, and they fire again afterwards."""

from __future__ import annotations

import orjson
import pytest

from api_services import api_services
from waystation.auth import ANONYMOUS
from waystation.runs import crons, guard_kill
from waystation.runs.assistants import ensure_default_assistants
from waystation.runs.cron_bodies import CronCreate
from waystation.services import Services
from waystation.worker.cron_clock import CronClock

pytestmark = pytest.mark.anyio


async def tick(services: Services) -> int:
    """Let all crons be due, and fire them; how many runs there are then."""
    async with services.db.connection() as conn:
        await conn.execute(b"update cron set next_run_at = now() - interval '1 second'")
    await CronClock(services).round()
    async with services.db.connection() as conn:
        return (await (await conn.execute(b"select count(*) from run")).fetchall())[0][0]


async def test_a_cron_passes_over_its_ticks_while_its_graph_is_stopped(database_uri: str) -> None:
    async with api_services(database_uri) as services:
        await ensure_default_assistants(services)
        body = CronCreate.model_validate({"assistant_id": "steps", "schedule": "* * * * *", "input": {"n": 0}})
        cron_id = orjson.loads(await crons.create_cron(services, ANONYMOUS, thread_id=None, body=body))["cron_id"]
        assert await tick(services) == 1
        used = await guard_kill.use(services, ANONYMOUS, scope="graph", owner="steps", reason="", for_s=None)
        assert await tick(services) == 1
        assert orjson.loads(await crons.get_cron(services, ANONYMOUS, cron_id=cron_id))["enabled"] is True
        await guard_kill.lift(services, ANONYMOUS, kill_id=orjson.loads(used)["kill_id"])
        assert await tick(services) == 2
