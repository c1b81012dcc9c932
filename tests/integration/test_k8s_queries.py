"""The statements that KEDA sends to Postgres, as they stand in the manifest, on the schema that they are about."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, LiteralString, cast
from uuid import uuid4

import psycopg
import pytest
import yaml

from waystation_db import kills
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio

MANIFEST = Path(__file__).parents[2] / "k8s" / "components" / "keda" / "scaled-objects.yaml"


def query_of(trigger: str) -> LiteralString:
    """The statement of the workers' trigger of that name."""
    for scaled in yaml.safe_load_all(MANIFEST.read_text()):
        for found in scaled["spec"]["triggers"]:
            if found.get("name") == trigger:
                return cast(LiteralString, found["metadata"]["query"])  # from our own file
    raise AssertionError(f"no trigger {trigger}")


async def asked(conn: psycopg.AsyncConnection[Any], trigger: str) -> int:
    """What KEDA gets: one row of one number."""
    rows = await (await conn.execute(query_of(trigger))).fetchall()
    ((number,),) = rows
    assert isinstance(number, int)
    return number


async def thread(conn: psycopg.AsyncConnection[Any], tenant: str = "default") -> str:
    thread_id = str(uuid4())
    await conn.execute("insert into thread (tenant_id, thread_id) values (%s, %s)", (tenant, thread_id))
    return thread_id


async def run(
    conn: psycopg.AsyncConnection[Any],
    thread_id: str,
    status: str,
    *,
    waited_s: float = 0,
    due_in_s: float = 0,
    tenant: str = "default",
) -> None:
    """A run that was created so long ago and is due in so long, where it has not waited."""
    await conn.execute(
        """
        insert into run (tenant_id, thread_id, run_id, assistant_id, graph_id, kwargs, status, created_at, run_after,
            lease_expires_at, ended_at)
        values (%(tenant)s, %(thread)s, %(run)s, %(run)s, 'g', '{}', %(status)s,
            clock_timestamp() - make_interval(secs => %(waited)s),
            clock_timestamp() - make_interval(secs => %(waited)s) + make_interval(secs => %(due)s),
            case when %(status)s = 'running' then clock_timestamp() + interval '10 seconds' end,
            case when %(status)s = 'success' then clock_timestamp() end)
        """,
        {
            "tenant": tenant,
            "thread": thread_id,
            "run": uuid4(),
            "status": status,
            "waited": waited_s,
            "due": due_in_s,
        },
    )


async def test_an_empty_queue_is_zero_deep_and_zero_old(db: Database) -> None:
    async with db.connection() as conn:
        assert (await asked(conn, "depth"), await asked(conn, "age")) == (0, 0)


async def test_depth_counts_what_executes_and_what_could(db: Database) -> None:
    async with db.connection() as conn:
        await run(conn, await thread(conn), "running")
        await run(conn, await thread(conn), "pending")
        await run(conn, await thread(conn, "acme"), "pending", tenant="acme")
        await run(conn, await thread(conn), "success")
        assert await asked(conn, "depth") == 3


async def test_runs_that_no_worker_could_take_ask_for_none(db: Database) -> None:
    """A thread executes one run at a time: a hundred runs on it need one slot. Runs of the future need none yet."""
    async with db.connection() as conn:
        busy, waiting = await thread(conn), await thread(conn)
        await run(conn, busy, "running")
        for _ in range(3):
            await run(conn, busy, "pending", waited_s=500)
            await run(conn, waiting, "pending")
        await run(conn, await thread(conn), "pending", due_in_s=3600)
        assert await asked(conn, "depth") == 2
        assert await asked(conn, "age") <= 5


async def test_runs_that_a_restore_left_paused_ask_for_no_worker(db: Database) -> None:
    """`release_runs` lets them go on; until then they are due thousands of years later."""
    async with db.connection() as conn:
        await run(conn, await thread(conn), "pending", waited_s=3600, due_in_s=4800 * 366 * 86400)
        assert (await asked(conn, "depth"), await asked(conn, "age")) == (0, 0)


async def test_a_run_whose_worker_is_gone_asks_for_one_still(db: Database) -> None:
    async with db.connection() as conn:
        lost = await thread(conn)
        await run(conn, lost, "running")
        await run(conn, lost, "pending", waited_s=90)
        await conn.execute("update run set lease_expires_at = now() - interval '1 minute' where status = 'running'")
        assert await asked(conn, "depth") == 1
        assert await asked(conn, "age") == 0


async def test_runs_of_a_killed_tenant_ask_for_no_worker(db: Database) -> None:
    async with db.connection() as conn:
        await run(conn, await thread(conn), "pending", waited_s=5)
        killed = await thread(conn, "acme")
        await run(conn, killed, "pending", waited_s=90, tenant="acme")
        await conn.execute("update thread set status = 'busy', active_runs = 1 where tenant_id = 'acme'")
        assert await asked(conn, "depth") == 2
        await kills.add(conn, "acme", scope="tenant", owner="acme", reason="too much", by="admin", for_s=None)
        # What every process does when it hears of it.
        assert [key.thread_id for key in await kills.cancel_pending(conn, limit=10)] == [killed]
        assert await asked(conn, "depth") == 1
        assert await asked(conn, "age") < 90


async def test_age_is_that_of_the_oldest_run_that_could_execute(db: Database) -> None:
    async with db.connection() as conn:
        await run(conn, await thread(conn), "pending", waited_s=5)
        await run(conn, await thread(conn, "acme"), "pending", waited_s=90, tenant="acme")
        assert 90 <= await asked(conn, "age") < 120


async def test_a_run_waits_from_when_it_is_due(db: Database) -> None:
    async with db.connection() as conn:
        await run(conn, await thread(conn), "pending", waited_s=3600, due_in_s=3580)
        assert 20 <= await asked(conn, "age") < 50


async def test_the_role_on_the_page_may_ask_and_nothing_else(db: Database) -> None:
    page = (MANIFEST.parents[3] / "docs/operations/kubernetes.md").read_text()
    role = f"scaler_{uuid4().hex}"
    statements = re.search(r"```sql\n(create role scaler .*?)```", page, re.S)
    assert statements is not None
    async with db.connection() as conn, conn.transaction(force_rollback=True):
        await conn.execute(cast(LiteralString, statements[1].replace("scaler", role)))
        await run(conn, await thread(conn, "acme"), "pending", waited_s=30, tenant="acme")
        await run(conn, await thread(conn), "running")
        await conn.execute(cast(LiteralString, f"set local role {role}"))
        assert await asked(conn, "depth") == 2
        assert await asked(conn, "age") >= 30
        for refused in ("select from thread", "select from run for update", "select from api_key"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with conn.transaction():
                    await conn.execute(cast(LiteralString, refused))


@pytest.mark.parametrize("trigger", ["depth", "age"])
async def test_runs_that_are_over_cost_nothing(db: Database, trigger: str) -> None:
    """KEDA asks every 10 s: among 20,000 final runs only those that are not are read, by the partial indexes."""
    async with db.connection() as conn:
        await conn.execute("insert into thread (thread_id) select gen_random_uuid() from generate_series(1, 2000)")
        await conn.execute(
            """
            insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, ended_at)
            select thread_id, gen_random_uuid(), gen_random_uuid(), 'g', '{}', 'success', now()
            from thread, generate_series(1, 10)
            """
        )
        for _ in range(5):
            await run(conn, await thread(conn), "pending")
            await run(conn, await thread(conn), "running")
        await conn.execute("analyze run")
        plan = await (await conn.execute("explain (costs off) " + query_of(trigger))).fetchall()
    assert "Seq Scan" not in "\n".join(row[0] for row in plan)
