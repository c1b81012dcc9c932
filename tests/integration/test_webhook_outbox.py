"""The outbox of webhooks: filled by whatever ends a run, and by nothing else; emptied once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uuid_utils

from waystation_db import runs, thread_removal, webhooks
from waystation_db.pool import Database
from waystation_db.rows import RunKey
from waystation_db.runs import Conn, NewRun
from waystation_db.webhooks import Delivery

pytestmark = pytest.mark.anyio

ASSISTANT = "11111111-1111-4111-8111-111111111111"
TENANT = "default"
URL = "https://hooks.example.com/x"


async def run_on(
    conn: Conn, *, claimed: bool, webhook: str | None = URL, temporary: bool = False, tenant: str = TENANT
) -> RunKey:
    """A run on a thread of its own."""
    await conn.execute(
        "insert into assistant (tenant_id, assistant_id, graph_id) values (%s, %s, 'g') on conflict do nothing",
        (tenant, ASSISTANT),
    )
    key = RunKey(tenant, str(uuid_utils.uuid7()), str(uuid_utils.uuid7()))
    new = NewRun(
        key=key,
        assistant_id=ASSISTANT,
        kwargs_json='{"b": 1, "a": 2}',
        thread_metadata_json='{"owner": "ann"}',
        webhook=webhook,
        temporary=temporary,
    )
    claim_for = "w" if claimed else None
    assert await runs.create_with_thread(conn, new, claim_for=claim_for, lease_s=10, notify=False)
    return key


async def finish(conn: Conn, key: RunKey, *, status: Any = "success", error: str | None = None) -> bool:
    ended = await runs.finish(
        conn,
        key,
        1,
        status=status,
        cancelled=status == "interrupted",
        resting_status="idle",
        values='{"n": 1}',
        interrupts="{}",
        error=error,
    )
    return ended is not None


async def payloads(conn: Conn) -> list[dict[str, Any]]:
    cur = await conn.execute("select payload from webhook_delivery order by created_at")
    return [row[0] for row in await cur.fetchall()]


async def outcome(conn: Conn) -> tuple[str, Any, Any]:
    [told] = await payloads(conn)
    return told["status"], told["values"], told.get("error", {}).get("error")


async def claim(conn: Conn, *, limit: int = 10, lease_s: float = 60, **more: Any) -> list[Delivery]:
    return await webhooks.claim(conn, limit=limit, lease_s=lease_s, relative=more.pop("relative", True), **more)


async def test_the_end_of_a_run_is_told_with_its_values(db: Database) -> None:
    async with db.connection() as conn:
        key = await run_on(conn, claimed=True)
        assert await finish(conn, key)
        [told] = await payloads(conn)
    assert (told["run_id"], told["status"], told["values"]) == (key.run_id, "success", {"n": 1})
    assert list(told["kwargs"]) == ["b", "a"], "members keep their order"
    assert "error" not in told
    assert told["run_started_at"] <= told["run_ended_at"]


async def test_a_failed_run_is_told_with_its_error(db: Database) -> None:
    async with db.connection() as conn:
        await finish(conn, await run_on(conn, claimed=True), status="error", error='{"error": "E", "message": "m"}')
        assert await outcome(conn) == ("error", {"n": 1}, "E")


async def test_a_run_without_webhook_and_a_refused_end_are_not_told(db: Database) -> None:
    async with db.connection() as conn:
        await finish(conn, await run_on(conn, claimed=True, webhook=None))
        key = await run_on(conn, claimed=True)
        await conn.execute("update run set attempt = 2 where run_id = %s", (key.run_id,))
        assert not await finish(conn, key)
        assert await payloads(conn) == []


async def test_a_stateless_run_that_is_deleted_has_no_values(db: Database) -> None:
    async with db.connection() as conn:
        await finish(conn, await run_on(conn, claimed=True, temporary=True))
        assert await outcome(conn) == ("success", None, None)


async def test_a_run_that_is_stopped_before_it_begins_is_told(db: Database) -> None:
    async with db.connection() as conn:
        key = await run_on(conn, claimed=False)
        await runs.cancel_pending(conn, TENANT, key.thread_id, run_ids=[key.run_id], error=None)
        assert await outcome(conn) == ("interrupted", None, "UserInterrupt")


async def test_a_run_that_is_rolled_back_before_it_begins_is_told(db: Database) -> None:
    async with db.connection() as conn:
        key = await run_on(conn, claimed=False)
        await runs.delete_pending(conn, TENANT, key.thread_id, run_ids=[key.run_id])
        assert await outcome(conn) == ("rollback", None, "UserRollback")


async def test_a_run_that_is_rolled_back_is_told_without_values(db: Database) -> None:
    async with db.connection() as conn:
        key = await run_on(conn, claimed=True)
        await runs.wish_cancel(conn, TENANT, key.thread_id, run_ids=[key.run_id], action="rollback", reason="why")
        assert await runs.finish_rolled_back(conn, key, 1, values='{"n": 0}', interrupts="{}", error=None) is not None
        assert await outcome(conn) == ("rollback", None, "UserRollback")
        assert (await payloads(conn))[0]["error"]["message"] == "why"


async def test_a_run_that_is_buried_is_told(db: Database) -> None:
    async with db.connection() as conn:
        key = await run_on(conn, claimed=True)
        await conn.execute(
            "update run set lease_expires_at = '-infinity', crashes = 2 where run_id = %s", (key.run_id,)
        )
        buried = await runs.bury_poisoned(conn, max_crashes=1, lease_s=10, error='{"error": "WorkerLost"}')
        assert len(buried) == 1
        assert await outcome(conn) == ("error", None, "WorkerLost")


async def test_a_run_whose_thread_is_deleted_is_told_and_one_that_had_ended_is_not_told_again(db: Database) -> None:
    async with db.connection() as conn:
        active, ended = await run_on(conn, claimed=True), await run_on(conn, claimed=True)
        await finish(conn, ended)
        await conn.execute("delete from webhook_delivery")
        async with conn.transaction():
            await thread_removal.delete(conn, TENANT, [active.thread_id, ended.thread_id])
        assert await outcome(conn) == ("interrupted", None, "UserInterrupt")


async def test_what_is_told_and_the_end_are_one_transaction(db: Database) -> None:
    async with db.connection() as conn:
        key = await run_on(conn, claimed=True)
        async with conn.transaction(force_rollback=True):
            await finish(conn, key)
        assert await payloads(conn) == []
        state = await runs.run_state(conn, key)
    assert state is not None
    assert state.status == "running"


async def test_many_processes_claim_a_delivery_once(db: Database) -> None:
    async with db.connection() as conn:
        for _ in range(20):
            await finish(conn, await run_on(conn, claimed=True))

    async def empty() -> list[str]:
        async with db.connection() as conn:
            found: list[str] = []
            while some := await claim(conn, limit=3):
                found += [delivery.delivery_id for delivery in some]
            return found

    claimed = [one for some in await asyncio.gather(*(empty() for _ in range(4))) for one in some]
    assert (len(claimed), len(set(claimed))) == (20, 20)


async def test_a_sender_that_died_is_replaced_and_can_say_nothing_more(db: Database) -> None:
    async with db.connection() as conn:
        await finish(conn, await run_on(conn, claimed=True))
        [first] = await claim(conn, lease_s=0)
        [second] = await claim(conn)
        assert (first.delivery_id, second.attempt) == (second.delivery_id, 2)
        assert not await webhooks.settle_delivered(conn, first, response_status=200)
        assert await webhooks.settle_delivered(conn, second, response_status=200)
        assert await claim(conn) == []


async def test_a_failed_try_waits_and_a_spent_one_can_be_replayed(db: Database) -> None:
    async with db.connection() as conn:
        await finish(conn, await run_on(conn, claimed=True))
        [first] = await claim(conn)
        await webhooks.settle_failed(conn, first, delay_s=0, response_status=503, error="answered 503")
        [second] = await claim(conn)
        await webhooks.settle_failed(conn, second, delay_s=3600, response_status=None, error="x")
        assert await claim(conn) == []
        await conn.execute("update webhook_delivery set due_at = now()")
        [third] = await claim(conn)
        await webhooks.settle_failed(conn, third, delay_s=None, response_status=500, error="answered 500")
        [listed] = [json.loads(one) for one in await webhooks.list_page(conn, TENANT, status="spent")]
        assert (listed["attempts"], listed["response_status"], listed["error"]) == (3, 500, "answered 500")
        assert await webhooks.replay(conn, "other", first.delivery_id) is None
        assert await webhooks.replay(conn, TENANT, first.delivery_id, visible='{"owner": "bob"}') is None
        assert await webhooks.replay(conn, TENANT, first.delivery_id, visible='{"owner": "ann"}')
        [again] = await claim(conn)
        assert (again.tries, again.attempt, again.payload) == (1, 4, first.payload)


async def test_all_that_is_spent_can_be_replayed(db: Database) -> None:
    async with db.connection() as conn:
        for _ in range(3):
            await finish(conn, await run_on(conn, claimed=True))
        for delivery in await claim(conn):
            await webhooks.settle_failed(conn, delivery, delay_s=None, response_status=None, error="x")
        assert await webhooks.replay_spent(conn, "other") == 0
        assert await webhooks.replay_spent(conn, TENANT) == 3
        assert len(await claim(conn)) == 3


async def test_busy_hosts_and_paths_on_the_server_wait(db: Database) -> None:
    async with db.connection() as conn:
        for url in ("https://a.example:8443/x?y#z", "http://b.example", "/own/path"):
            await finish(conn, await run_on(conn, claimed=True, webhook=url))
        busy: dict[str, Any] = {"busy": ["a.example:8443"], "lease_s": 0}
        assert {one.url for one in await claim(conn, relative=False, **busy)} == {"http://b.example"}
        assert {one.url for one in await claim(conn, relative=True, **busy)} == {"http://b.example", "/own/path"}


async def test_old_deliveries_are_forgotten_delivered_ones_sooner(db: Database) -> None:
    async with db.connection() as conn:
        for _ in range(3):
            await finish(conn, await run_on(conn, claimed=True))
        taken, spent, _ = await claim(conn)
        await webhooks.settle_delivered(conn, taken, response_status=200)
        await webhooks.settle_failed(conn, spent, delay_s=None, response_status=None, error="x")
        await conn.execute(
            "update webhook_delivery set ended_at = ended_at - interval '2 days' where ended_at is not null"
        )
        assert await webhooks.prune(conn, delivered_s=3 * 86400, spent_s=7 * 86400, limit=10) == 0
        assert await webhooks.prune(conn, delivered_s=86400, spent_s=7 * 86400, limit=10) == 1
        assert await webhooks.prune(conn, delivered_s=86400, spent_s=86400, limit=10) == 1
        assert len(await payloads(conn)) == 1
