"""Seeded schedules of transitions, by two connections, against a model of the state machine (`runs_model`).

Hypothesis prints the schedule that failed, cut down to what is needed, and how to run it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast
from uuid import uuid4

import psycopg
import uuid_utils
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from integration.runs_model import MAX_CRASHES, Model, ModelRun, ModelThread
from waystation_db import runs
from waystation_db.rows import CancelAction, FinalStatus, RestingStatus, RunKey
from waystation_db.runs import Conn, NewRun

ASSISTANT = str(uuid4())
TENANT = "default"
T = TypeVar("T")

SIDES = st.sampled_from((0, 1))
PICK = st.integers(0, 1000)
RESTING = st.sampled_from(("idle", "interrupted", "error"))
FINAL = st.sampled_from(("success", "error", "timeout", "interrupted"))
ACTION = st.sampled_from(("interrupt", "rollback"))


class Schedule(RuleBasedStateMachine):
    """Two connections to one database, and the model that says what has to come out."""

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self.model = Model()
        self.loop = asyncio.new_event_loop()
        self.sides: list[Conn] = [self.do(_connect(conninfo)) for _ in range(2)]
        self.leases = psycopg.connect(conninfo, autocommit=True)
        self.do(self.sides[0].execute("delete from thread"))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def both(self, first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, T]) -> tuple[T, T]:
        async def together() -> tuple[T, T]:
            return await asyncio.gather(first, second)

        return self.do(together())

    def teardown(self) -> None:
        for side in self.sides:
            self.do(side.close())
        self.leases.close()
        self.loop.close()

    @initialize(count=st.integers(1, 3))
    def threads(self, count: int) -> None:
        for _ in range(count):
            thread_id = str(uuid_utils.uuid7())
            self.do(self.sides[0].execute("insert into thread (thread_id) values (%s)", (thread_id,)))
            self.model.create_thread(thread_id)

    # -- creating and claiming ---------------------------------------------------------------------------------------

    @rule(side=SIDES, pick=PICK, claim=st.booleans())
    def create_on_idle(self, side: int, pick: int, claim: bool) -> None:
        thread, run = self.new_run(pick)
        row = self.do(_create(self.sides[side], run, claim=claim))
        assert (row is not None) == (not thread.active)
        if row is not None:
            self.model.create(thread.thread_id, run.key.run_id, claimed=claim)

    @rule(pick=PICK)
    def create_twice_at_once(self, pick: int) -> None:
        thread, first = self.new_run(pick)
        _, second = self.new_run(pick)
        made = self.both(_create(self.sides[0], first, claim=True), _create(self.sides[1], second, claim=True))
        assert sum(row is not None for row in made) == (0 if thread.active else 1)
        for run, row in zip((first, second), made, strict=True):
            if row is not None:
                self.model.create(thread.thread_id, run.key.run_id, claimed=True)

    @rule(side=SIDES, pick=PICK, claims_meanwhile=st.booleans())
    def enqueue(self, side: int, pick: int, claims_meanwhile: bool) -> None:
        """While the thread is locked, a claim of the other side passes it over."""
        thread, run = self.new_run(pick)

        async def locked() -> list[RunKey]:
            async with self.sides[side].transaction():
                assert await runs.lock_thread(self.sides[side], TENANT, thread.thread_id)
                claimed = await _claim(self.sides[1 - side], 100) if claims_meanwhile else []
                assert await runs.create_queued(self.sides[side], run)
            return claimed

        due = self.model.claimable(last_chances=False) if claims_meanwhile else []
        claimed = self.do(locked())
        self.started(claimed, [one for one in due if one.thread_id != thread.thread_id], limit=100)
        self.model.create(thread.thread_id, run.key.run_id, claimed=False)

    @rule(side=SIDES, limit=st.sampled_from((1, 2, 100)))
    def claim(self, side: int, limit: int) -> None:
        due = self.model.claimable(last_chances=False)
        self.started(self.do(_claim(self.sides[side], limit)), due, limit=limit)

    @rule()
    def claim_at_once(self) -> None:
        """Whatever one side does not get, the other gets, now or with its next claim; nobody gets it twice."""
        due = self.model.claimable(last_chances=False)
        first, second = self.both(_claim(self.sides[0], 100), _claim(self.sides[1], 100))
        assert not {key.run_id for key in first} & {key.run_id for key in second}
        rest = self.do(_claim(self.sides[0], 100))
        self.started([*first, *second, *rest], due, limit=100)

    @rule(side=SIDES)
    def claim_last_chance(self, side: int) -> None:
        due = self.model.claimable(last_chances=True)
        claimed = self.do(runs.claim_last_chance(self.sides[side], "w", lease_s=3600, max_crashes=MAX_CRASHES))
        self.started([run.key for run in claimed], due, limit=1)

    # -- what workers do ---------------------------------------------------------------------------------------------

    @precondition(lambda self: bool(self.model.runs))
    @rule(side=SIDES, pick=PICK, stale=st.booleans(), status=FINAL, cancelled=st.booleans(), resting=RESTING)
    def finish(
        self, side: int, pick: int, stale: bool, status: FinalStatus, cancelled: bool, resting: RestingStatus
    ) -> None:
        run = self.some_run(pick)
        attempt = run.attempt - stale
        left = self.do(_finish(self.sides[side], run, attempt, status, cancelled, resting))
        happened = self.model.finish(run, attempt, status=status, cancelled=cancelled, resting=resting)
        assert left == (len(self.model.threads[run.thread_id].active) if happened else None)

    @precondition(lambda self: any(run.status == "running" for run in self.model.runs))
    @rule(pick=PICK, status=FINAL, resting=RESTING)
    def finish_twice_at_once(self, pick: int, status: FinalStatus, resting: RestingStatus) -> None:
        running = [run for run in self.model.runs if run.status == "running"]
        run = running[pick % len(running)]
        one, other = (_finish(side, run, run.attempt, status, True, resting) for side in self.sides)
        outcomes = self.both(one, other)
        assert sum(left is not None for left in outcomes) == 1
        self.model.finish(run, run.attempt, status=status, cancelled=True, resting=resting)

    @precondition(lambda self: bool(self.model.runs))
    @rule(side=SIDES, pick=PICK, stale=st.booleans())
    def finish_rolled_back(self, side: int, pick: int, stale: bool) -> None:
        run = self.some_run(pick)
        attempt = run.attempt - stale
        left = self.do(
            runs.finish_rolled_back(self.sides[side], _key(run), attempt, values=None, interrupts="{}", error=None)
        )
        assert (left is not None) == self.model.finish_rolled_back(run, attempt)

    @precondition(lambda self: bool(self.model.runs))
    @rule(side=SIDES, pick=PICK, stale=st.booleans())
    def release(self, side: int, pick: int, stale: bool) -> None:
        run = self.some_run(pick)
        attempt = run.attempt - stale
        assert self.do(runs.release(self.sides[side], _key(run), attempt)) == self.model.release(run, attempt)

    @precondition(lambda self: bool(self.model.runs))
    @rule(stale=st.booleans())
    def renew(self, stale: bool) -> None:
        held = [(_key(run), run.attempt - stale) for run in self.model.runs]
        renewed = runs.renew_leases(self.leases, held, lease_s=3600)
        running = [run for run in self.model.runs if run.status == "running" and not stale]
        assert {key.run_id for key, _ in held} - {key.run_id for key, _ in renewed.lost} == {r.run_id for r in running}
        assert {(w.key.run_id, w.action) for w in renewed.wishes} == {(r.run_id, r.wish) for r in running if r.wish}
        for run in running:
            run.expired = False

    # -- cancelling, crashing, deleting ------------------------------------------------------------------------------

    @rule(side=SIDES, pick=PICK, action=ACTION)
    def cancel(self, side: int, pick: int, action: CancelAction) -> None:
        thread = self.some_thread(pick)
        ids = [run.run_id for run in thread.runs.values()]
        self.do(_cancel(self.sides[side], thread.thread_id, ids, action))
        self.model.cancel(thread.thread_id, action)

    @precondition(lambda self: any(run.status == "running" for run in self.model.runs))
    @rule(pick=PICK)
    def lease_runs_out(self, pick: int) -> None:
        running = [run for run in self.model.runs if run.status == "running"]
        run = running[pick % len(running)]
        self.leases.execute("update run set lease_expires_at = '-infinity' where run_id = %s", (run.run_id,))
        run.expired = True

    @rule(side=SIDES)
    def sweep(self, side: int) -> None:
        swept = self.do(runs.sweep_expired(self.sides[side], max_crashes=MAX_CRASHES, lease_s=10))
        assert {(key.run_id, attempt) for key, attempt in swept} == {
            (run.run_id, run.attempt) for run in self.model.lapsed("swept")
        }
        self.model.sweep()

    @rule(side=SIDES)
    def bury(self, side: int) -> None:
        buried = self.do(runs.bury_poisoned(self.sides[side], max_crashes=MAX_CRASHES, lease_s=10, error="{}"))
        assert {one.key.run_id for one in buried} == {run.run_id for run in self.model.lapsed("buried")}
        self.model.bury()

    @precondition(lambda self: bool(self.model.runs))
    @rule(side=SIDES, pick=PICK)
    def delete(self, side: int, pick: int) -> None:
        run = self.some_run(pick)
        assert self.do(runs.delete_final(self.sides[side], _key(run))) == (not run.is_active)
        if not run.is_active:
            del self.model.threads[run.thread_id].runs[run.run_id]

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        rows = self.leases.execute("select run_id::text, status, attempt, crashes, cancel_action from run").fetchall()
        assert sorted(rows) == sorted((r.run_id, r.status, r.attempt, r.crashes, r.wish) for r in self.model.runs)
        rows = self.leases.execute("select thread_id::text, status, active_runs from thread").fetchall()
        threads = self.model.threads.values()
        assert sorted(rows) == sorted((one.thread_id, one.status, len(one.active)) for one in threads)

    @invariant()
    def one_run_at_a_time_on_a_thread(self) -> None:
        for thread in self.model.threads.values():
            assert sum(run.status == "running" for run in thread.active) <= 1

    # -- of use to the rules -----------------------------------------------------------------------------------------

    def some_thread(self, pick: int) -> ModelThread:
        return list(self.model.threads.values())[pick % len(self.model.threads)]

    def some_run(self, pick: int) -> ModelRun:
        return self.model.runs[pick % len(self.model.runs)]

    def new_run(self, pick: int) -> tuple[ModelThread, NewRun]:
        thread = self.some_thread(pick)
        key = RunKey(TENANT, thread.thread_id, str(uuid_utils.uuid7()))
        return thread, NewRun(key=key, assistant_id=ASSISTANT, kwargs_json="{}")

    def started(self, claimed: Sequence[RunKey], due: Sequence[ModelRun], *, limit: int) -> None:
        """Those claimed were due, none of them twice, and as many as could be."""
        ids = [key.run_id for key in claimed]
        assert len(ids) == len(set(ids)) == min(limit, len(due))
        by_id = {run.run_id: run for run in due}
        assert set(ids) <= set(by_id)
        for run_id in ids:
            by_id[run_id].start()


async def _connect(conninfo: str) -> Conn:
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


async def _create(conn: Conn, run: NewRun, *, claim: bool) -> runs.CreatedRun | None:
    return await runs.create_on_idle_thread(conn, run, claim_for="w" if claim else None, lease_s=3600, notify=False)


async def _claim(conn: Conn, limit: int) -> list[RunKey]:
    claimed = await runs.claim_next(conn, "w", limit=limit, lease_s=3600, max_crashes=MAX_CRASHES)
    return [run.key for run in claimed]


async def _finish(
    conn: Conn, run: ModelRun, attempt: int, status: FinalStatus, cancelled: bool, resting: RestingStatus
) -> int | None:
    ended = await runs.finish(
        conn,
        _key(run),
        attempt,
        status=status,
        cancelled=cancelled,
        resting_status=resting,
        values="{}",
        interrupts="{}",
        error=None,
    )
    return None if ended is None else ended.active_runs


async def _cancel(conn: Conn, thread_id: str, run_ids: Sequence[str], action: CancelAction) -> None:
    async with conn.transaction():
        await runs.lock_thread(conn, TENANT, thread_id)
        if action == "rollback":
            await runs.delete_pending(conn, TENANT, thread_id, run_ids=run_ids)
        else:
            await runs.cancel_pending(conn, TENANT, thread_id, run_ids=run_ids, error=None)
        await runs.wish_cancel(conn, TENANT, thread_id, run_ids=run_ids, action=action, reason=None)


def _key(run: ModelRun) -> RunKey:
    return RunKey(TENANT, run.thread_id, run.run_id)


def test_every_schedule_leaves_what_the_model_says(database_uri: str) -> None:
    with psycopg.connect(database_uri, autocommit=True) as conn:
        conn.execute("insert into assistant (assistant_id, graph_id) values (%s, 'g')", (ASSISTANT,))
    run_state_machine_as_test(
        cast("Any", lambda: Schedule(database_uri)),
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
