"""The run state machine, transition by transition, against Postgres."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import uuid_utils
from prometheus_client import REGISTRY

from waystation.config import Settings
from waystation.worker.upkeep import Upkeep
from waystation_db import runs
from waystation_db.pool import Database
from waystation_db.rows import ClaimedRun, RunKey
from waystation_db.runs import Conn, CreatedRun, NewRun

pytestmark = pytest.mark.anyio

ASSISTANT = str(uuid4())
TENANT = "default"


async def assistant(conn: Conn) -> None:
    await conn.execute(
        "insert into assistant (assistant_id, graph_id, metadata, config) values (%s, 'g', %s, %s)",
        (ASSISTANT, '{"created_by": "system"}', '{"tags": ["a"], "configurable": {"x": 1}}'),
    )


async def thread(conn: Conn) -> str:
    thread_id = str(uuid_utils.uuid7())
    await conn.execute('insert into thread (thread_id, metadata) values (%s, \'{"from": "thread"}\')', (thread_id,))
    return thread_id


def new_run(thread_id: str, *, metadata: str = "{}", temporary: bool = False, after_s: float = 0.0) -> NewRun:
    return NewRun(
        key=RunKey(TENANT, thread_id, str(uuid_utils.uuid7())),
        assistant_id=ASSISTANT,
        kwargs_json='{"b": 1, "a": [2]}',
        metadata_json=metadata,
        thread_metadata_json='{"m": 1}',
        temporary=temporary,
        after_s=after_s,
    )


async def create(conn: Conn, run: NewRun, *, claim_for: str | None = None) -> CreatedRun | None:
    return await runs.create_on_idle_thread(conn, run, claim_for=claim_for, lease_s=10, notify=True)


async def enqueue(conn: Conn, run: NewRun) -> CreatedRun:
    async with conn.transaction():
        assert await runs.lock_thread(conn, TENANT, run.key.thread_id)
        row = await runs.create_queued(conn, run)
    assert row is not None
    return row


async def claim(conn: Conn, *, limit: int = 10) -> list[ClaimedRun]:
    return await runs.claim_next(conn, "w", limit=limit, lease_s=10, max_crashes=3)


async def claim_last_chance(conn: Conn) -> list[ClaimedRun]:
    return await runs.claim_last_chance(conn, "w", lease_s=10, max_crashes=3)


async def finish(conn: Conn, key: RunKey, attempt: int, *, cancelled: bool = False) -> int | None:
    ended = await runs.finish(
        conn,
        key,
        attempt,
        status="interrupted" if cancelled else "success",
        cancelled=cancelled,
        resting_status="idle",
        values='{"n": 1}',
        interrupts="{}",
        error=None,
    )
    return None if ended is None else ended.active_runs


async def thread_row(conn: Conn, thread_id: str) -> tuple[str, int]:
    cur = await conn.execute("select status, active_runs from thread where thread_id = %s", (thread_id,))
    row = await cur.fetchone()
    assert row is not None
    return row[0], row[1]


async def expire(conn: Conn, key: RunKey) -> None:
    await conn.execute("update run set lease_expires_at = '-infinity' where run_id = %s", (key.run_id,))


async def test_run_on_an_idle_thread_is_created_as_claimed(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn), metadata='{"mine": true}')
        row = await create(conn, run, claim_for="w")
        assert row is not None
        assert (row.status, row.attempt, row.graph_id) == ("running", 1, "g")
        assert row.epoch_ms > 0
        assert row.metadata == {
            "created_by": "system",
            "from": "thread",
            "graph_id": "g",
            "assistant_id": ASSISTANT,
            "mine": True,
        }
        assert row.assistant_config["configurable"] == {"x": 1}
        assert await thread_row(conn, run.key.thread_id) == ("busy", 1)


async def test_creating_on_a_busy_thread_takes_the_queued_path(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        thread_id = await thread(conn)
        assert await create(conn, new_run(thread_id), claim_for="w")
        assert await create(conn, new_run(thread_id), claim_for="w") is None
        assert (await enqueue(conn, new_run(thread_id))).status == "pending"
        assert await thread_row(conn, thread_id) == ("busy", 2)


async def test_unknown_assistant_or_thread_creates_nothing(db: Database) -> None:
    async with db.connection() as conn:
        assert await create(conn, new_run(await thread(conn))) is None
        await assistant(conn)
        assert await create(conn, new_run(str(uuid4()))) is None


async def test_run_and_thread_are_created_together_once(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(str(uuid4()), temporary=True)
        row = await runs.create_with_thread(conn, run, claim_for=None, lease_s=10, notify=True)
        assert row is not None
        assert row.metadata["m"] == 1
        again = new_run(run.key.thread_id)
        assert await runs.create_with_thread(conn, again, claim_for=None, lease_s=10, notify=True) is None
        assert await thread_row(conn, run.key.thread_id) == ("busy", 1)


async def test_claims_the_oldest_run_of_each_idle_thread(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        one, two = await thread(conn), await thread(conn)
        first = await enqueue(conn, new_run(one))
        await enqueue(conn, new_run(one))
        other = await enqueue(conn, new_run(two))
        claimed = await claim(conn)
        assert {c.key.run_id for c in claimed} == {first.run_id, other.run_id}
        assert claimed[0].attempt == 1
        assert list(claimed[0].kwargs) == ["b", "a"]
        assert await claim(conn) == []


async def test_second_run_waits_for_the_first(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        thread_id = await thread(conn)
        first = new_run(thread_id)
        await create(conn, first, claim_for="w")
        second = await enqueue(conn, new_run(thread_id))
        assert await claim(conn) == []
        assert await finish(conn, first.key, 1) == 1
        assert await thread_row(conn, thread_id) == ("busy", 1)
        assert [c.key.run_id for c in await claim(conn)] == [second.run_id]


async def test_delayed_run_is_not_claimed_and_holds_up_nobody(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        thread_id = await thread(conn)
        await enqueue(conn, new_run(thread_id, after_s=3600.0))
        due = await enqueue(conn, new_run(thread_id))
        assert [c.key.run_id for c in await claim(conn)] == [due.run_id]


async def test_finish_frees_the_thread_and_shows_its_face(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        assert await finish(conn, run.key, 1) == 0
        assert await thread_row(conn, run.key.thread_id) == ("idle", 0)
        output = await runs.run_output(conn, run.key)
        assert output is not None
        assert (output.status, json.loads(output.values or "")) == ("success", {"n": 1})


async def test_final_status_is_never_left(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        await finish(conn, run.key, 1)
        assert await finish(conn, run.key, 1) is None
        assert not await runs.release(conn, run.key, 1)
        async with conn.transaction():
            await runs.lock_thread(conn, TENANT, run.key.thread_id)
            wish = await runs.wish_cancel(
                conn, TENANT, run.key.thread_id, run_ids=[run.key.run_id], action="interrupt", reason=None
            )
        assert wish == []
        await expire_is_refused(conn, run.key)


async def expire_is_refused(conn: Conn, key: RunKey) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await expire(conn, key)


async def test_stale_attempt_can_neither_finish_nor_release(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        await expire(conn, run.key)
        assert await runs.sweep_expired(conn, max_crashes=3, lease_s=10) == [(run.key, 1)]
        assert await finish(conn, run.key, 1) is None
        (again,) = await claim(conn)
        assert (again.attempt, again.crashes) == (2, 1)
        assert await finish(conn, run.key, 1) is None
        assert not await runs.release(conn, run.key, 1)
        assert await finish(conn, run.key, 2) == 0


async def test_events_of_a_later_attempt_have_later_ids(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        first = await create(conn, run, claim_for="w")
        assert first is not None
        assert await runs.release(conn, run.key, 1)
        (again,) = await claim(conn)
        assert again.epoch_ms > first.epoch_ms
        assert again.crashes == 0


async def test_last_chances_are_claimed_one_by_one_and_apart_from_other_runs(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        suspects = [new_run(await thread(conn)) for _ in range(2)]
        for run in suspects:
            await create(conn, run)
        for _ in range(2):
            for claimed in await claim(conn):
                await expire(conn, claimed.key)
            await runs.sweep_expired(conn, max_crashes=3, lease_s=10)
        healthy = new_run(await thread(conn))
        await create(conn, healthy)
        assert [run.key for run in await claim(conn)] == [healthy.key]
        first, second = await claim_last_chance(conn), await claim_last_chance(conn)
        assert [run.key for run in first + second] == [run.key for run in suspects]
        assert (len(first), first[0].attempt, first[0].crashes) == (1, 3, 2)


async def test_run_that_crashes_too_often_is_ended(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        for attempt in (1, 2):
            await expire(conn, run.key)
            assert await runs.bury_poisoned(conn, max_crashes=3, lease_s=10, error="{}") == []
            assert await runs.sweep_expired(conn, max_crashes=3, lease_s=10) == [(run.key, attempt)]
            assert len(await claim(conn) or await claim_last_chance(conn)) == 1
        await expire(conn, run.key)
        assert await runs.sweep_expired(conn, max_crashes=3, lease_s=10) == []
        (buried,) = await runs.bury_poisoned(conn, max_crashes=3, lease_s=10, error='{"error": "WorkerLost"}')
        assert (buried.key, buried.attempt, buried.status) == (run.key, 3, "error")
        assert await thread_row(conn, run.key.thread_id) == ("error", 0)


async def test_a_run_that_the_sweep_gives_up_is_counted_among_those_that_ended(db: Database) -> None:
    class Events:
        async def end(self, *_: object, **__: object) -> None: ...

    def ended() -> float:
        return REGISTRY.get_sample_value("waystation_runs_finished_total", {"outcome": "error"}) or 0

    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        await expire(conn, run.key)
    side: Any = SimpleNamespace(db=db)
    events: Any = Events()
    before = ended()
    await Upkeep(side, events, Settings(max_crashes=1)).sweep()
    assert ended() == before + 1


async def checkpoint(conn: Conn, run: NewRun, name: str, *, source: str = "loop") -> None:
    await conn.execute(
        "insert into checkpoints (thread_id, checkpoint_id, checkpoint, metadata) "
        "values (%s, %s, '{}', jsonb_build_object('source', %s::text))",
        (run.key.thread_id, name, source),
    )


async def crash(conn: Conn, run: NewRun) -> int:
    """Let the run's lease run out and a worker take it up again; its crashes then."""
    await expire(conn, run.key)
    assert await runs.bury_poisoned(conn, max_crashes=3, lease_s=10, error="{}") == []
    assert len(await runs.sweep_expired(conn, max_crashes=3, lease_s=10)) == 1
    (again,) = await claim(conn) or await claim_last_chance(conn)
    return again.crashes


async def test_run_that_gets_further_between_crashes_is_no_poison(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        for step in range(7):
            await checkpoint(conn, run, f"step-{step}")
            # The second one may have been where the first one was: its steps did not wait for their checkpoints.
            assert await crash(conn, run) == (2 if step == 1 else 1)


@pytest.mark.parametrize("ahead", [0, 1, 3])
async def test_poison_that_was_ahead_of_its_checkpoints_is_executed_three_times(db: Database, ahead: int) -> None:
    """At the first crash neither the input nor the steps before the poison were written down; later ones wait."""
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        assert await crash(conn, run) == 1
        await checkpoint(conn, run, "step--1", source="input")
        for step in range(ahead):
            await checkpoint(conn, run, f"step-{step}")
        assert await crash(conn, run) == 2
        await expire(conn, run.key)
        assert await runs.sweep_expired(conn, max_crashes=3, lease_s=10) == []
        (buried,) = await runs.bury_poisoned(conn, max_crashes=3, lease_s=10, error="{}")
        assert (buried.key, buried.attempt) == (run.key, 3)


async def test_crashes_far_apart_are_not_added_up(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        await checkpoint(conn, run, "step-0")
        assert await crash(conn, run) == 1
        for step in range(1, 5):
            await checkpoint(conn, run, f"step-{step}")
        assert [await crash(conn, run), await crash(conn, run)] == [1, 2]


async def test_live_lease_is_not_swept(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        await create(conn, new_run(await thread(conn)), claim_for="w")
        assert await runs.sweep_expired(conn, max_crashes=3, lease_s=10) == []


async def test_leases_of_a_dead_worker_can_be_disowned(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        mine, other = new_run(await thread(conn)), new_run(await thread(conn))
        await create(conn, mine, claim_for="dead")
        await create(conn, other, claim_for="alive")
        assert await runs.disown(conn, worker_id="dead") == 1
        assert await runs.sweep_expired(conn, max_crashes=3, lease_s=10) == [(mine.key, 1)]


async def test_renewal_tells_of_lost_leases_and_wishes(db: Database, database_uri: str) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        kept, lost = new_run(await thread(conn)), new_run(await thread(conn))
        await create(conn, kept, claim_for="w")
        await create(conn, lost, claim_for="w")
        await runs.release(conn, lost.key, 1)
        async with conn.transaction():
            await runs.lock_thread(conn, TENANT, kept.key.thread_id)
            await runs.wish_cancel(
                conn, TENANT, kept.key.thread_id, run_ids=[kept.key.run_id], action="rollback", reason="why"
            )
    with psycopg.connect(database_uri, autocommit=True) as sync:
        renewed = runs.renew_leases(sync, [(kept.key, 1), (lost.key, 1)], lease_s=10)
    assert renewed.lost == [(lost.key, 1)]
    assert [(w.key, w.action, w.reason) for w in renewed.wishes] == [(kept.key, "rollback", "why")]


async def test_wished_run_cannot_be_finished_as_if_it_were_not(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        async with conn.transaction():
            await runs.lock_thread(conn, TENANT, run.key.thread_id)
            await runs.wish_cancel(
                conn, TENANT, run.key.thread_id, run_ids=[run.key.run_id], action="interrupt", reason=None
            )
        assert await finish(conn, run.key, 1) is None
        assert await finish(conn, run.key, 1, cancelled=True) == 0


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_pending_run_ends_at_once_and_frees_its_thread(db: Database, action: str) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await enqueue(conn, run)
        async with conn.transaction():
            await runs.lock_thread(conn, TENANT, run.key.thread_id)
            ids = [run.key.run_id]
            if action == "rollback":
                ended = await runs.delete_pending(conn, TENANT, run.key.thread_id, run_ids=ids)
            else:
                ended = await runs.cancel_pending(conn, TENANT, run.key.thread_id, run_ids=ids, error=None)
        assert ended == [run.key.run_id]
        assert await thread_row(conn, run.key.thread_id) == ("idle", 0)
        state = await runs.run_state(conn, run.key)
        assert state is None if action == "rollback" else state is not None and state.status == "interrupted"


async def test_rolled_back_run_is_gone_and_its_thread_free(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(await thread(conn))
        await create(conn, run, claim_for="w")
        async with conn.transaction():
            await runs.lock_thread(conn, TENANT, run.key.thread_id)
            await runs.wish_cancel(
                conn, TENANT, run.key.thread_id, run_ids=[run.key.run_id], action="rollback", reason=None
            )
        left = await runs.finish_rolled_back(conn, run.key, 1, values=None, interrupts="{}", error=None)
        assert left is not None
        assert left.active_runs == 0
        assert await runs.run_state(conn, run.key) is None
        assert await thread_row(conn, run.key.thread_id) == ("idle", 0)


async def test_temporary_thread_is_hidden_when_its_run_ends(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        run = new_run(str(uuid4()), temporary=True)
        await runs.create_with_thread(conn, run, claim_for="w", lease_s=10, notify=True)
        await finish(conn, run.key, 1)
        assert not await runs.thread_exists(conn, TENANT, run.key.thread_id)
        assert await runs.run_face(conn, run.key) is None
        assert await runs.run_output(conn, run.key) is not None


async def test_idempotency_key_belongs_to_the_first_run(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        first, second = new_run(await thread(conn)), new_run(await thread(conn))
        assert await runs.remember_idempotency(conn, first.key, idempotency_key="k", request_hash=b"h")
        assert not await runs.remember_idempotency(conn, second.key, idempotency_key="k", request_hash=b"h")
        assert await runs.recall_idempotency(conn, TENANT, idempotency_key="k") == (first.key, b"h")


async def test_faces_list_newest_first_with_the_fields_asked_for(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        thread_id = await thread(conn)
        first, second = await enqueue(conn, new_run(thread_id)), await enqueue(conn, new_run(thread_id))
        faces = json.loads(await runs.list_faces(conn, TENANT, thread_id, fields=["run_id", "status"]))
        assert faces == [
            {"run_id": second.run_id, "status": "pending"},
            {"run_id": first.run_id, "status": "pending"},
        ]
        face = json.loads(await runs.run_face(conn, RunKey(TENANT, thread_id, first.run_id)) or "")
        assert face["kwargs"] == {"b": 1, "a": [2]}
        assert face["created_at"] == first.created_at
        assert first.created_at.endswith("+00:00")


async def test_waiting_runs_are_counted_no_further_than_asked(db: Database) -> None:
    async with db.connection() as conn:
        await assistant(conn)
        await create(conn, new_run(await thread(conn)), claim_for="w")
        for _ in range(3):
            await enqueue(conn, new_run(await thread(conn)))
        assert await runs.pending_up_to(conn, 10) == 3
        assert await runs.pending_up_to(conn, 2) == 2
