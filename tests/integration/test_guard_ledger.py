"""The guards' ledger on Postgres: dead attempts, cancelled callers, many processes at once, what it refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest

from eventually import eventually
from integration.checkpointer_world import next_run, running_run
from waystation.guarding.ledger_operations import reserve_op, settle_op
from waystation.guarding.postgres_ledger import LedgerDesk, PostgresLedger
from waystation.guarding.recalculation import rebuild
from waystation_db import guard_ledger
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.guard_ledger import work
from waystation_db.migrate import migrate
from waystation_db.pool import Database
from waystation_db.rows import RunKey
from waystation_guards.calls import CallSite
from waystation_guards.errors import Killed
from waystation_guards.ports import Account, Balance, Entry, Hold, PortUnavailable, Refusal

pytestmark = pytest.mark.anyio

TTL_S = 600.0


@pytest.fixture
async def ledger(db: Database) -> AsyncIterator[PostgresLedger]:
    desk = LedgerDesk(db)
    yield PostgresLedger(desk)
    await desk.close()


def an_account(scope: str = "user") -> Account:
    return Account("default", scope, str(uuid4()), "usd")


def site_of(key: RunKey, attempt: int = 1) -> CallSite:
    return CallSite(thread=key.thread_id, run=key.run_id, attempt=attempt, node="model")


async def hold(ledger: PostgresLedger, site: CallSite, *holds: Hold) -> str | None:
    call = f"{uuid4()}/b"
    return None if isinstance(await ledger.reserve(call, site, holds, ttl_s=TTL_S), Refusal) else call


async def balance(ledger: PostgresLedger, account: Account) -> Balance:
    (found,) = await ledger.balances([account])
    return found


async def count(db: Database, what: LiteralString) -> int:
    async with db.connection() as conn:
        row = await (await conn.execute(what)).fetchone()
    assert row is not None
    return row[0]


async def billed(db: Database) -> int:
    return await count(db, "select sum(cost_nano_usd)::bigint from guard_ledger")


HOLDS: LiteralString = "select count(*) from guard_hold"
ENTRIES: LiteralString = "select count(*) from guard_ledger"
CHANGES: list[LiteralString] = ["update guard_ledger set cost_nano_usd = 0", "delete from guard_ledger"]


class TestDeadAttempts:
    async def test_what_an_attempt_held_is_free_when_the_run_is_over(
        self, db: Database, ledger: PostgresLedger
    ) -> None:
        key, account = await running_run(db), an_account()
        assert await hold(ledger, site_of(key), Hold(account, 10, 100, worst=100))
        assert await hold(ledger, CallSite(), Hold(account, 1, 100)) is None
        await next_run(db, key.thread_id)
        assert (await balance(ledger, account)).held == 0
        assert await hold(ledger, CallSite(), Hold(account, 90, 100))

    async def test_what_an_attempt_held_is_free_for_the_next_attempt(
        self, db: Database, ledger: PostgresLedger
    ) -> None:
        key, account = await running_run(db), an_account("run")
        assert await hold(ledger, site_of(key), Hold(account, 10, 100, worst=100))
        async with db.connection() as conn:
            await conn.execute("update run set attempt = 2 where run_id = %s", (key.run_id,))
        assert await hold(ledger, site_of(key, 2), Hold(account, 90, 100))

    async def test_what_is_held_by_a_run_that_was_deleted_is_free(self, db: Database, ledger: PostgresLedger) -> None:
        key, account = await running_run(db), an_account()
        assert await hold(ledger, site_of(key), Hold(account, 10, 100, worst=100))
        async with db.connection() as conn:
            await conn.execute("delete from thread where thread_id = %s", (key.thread_id,))
        assert await hold(ledger, CallSite(), Hold(account, 90, 100))

    async def test_what_a_running_attempt_holds_stays(self, db: Database, ledger: PostgresLedger) -> None:
        key, account = await running_run(db), an_account()
        assert await hold(ledger, site_of(key), Hold(account, 100, 100))
        async with db.connection() as conn:
            assert await guard_ledger.sweep(conn, limit=100) == 0
        assert await hold(ledger, CallSite(), Hold(account, 1, 100)) is None

    @pytest.mark.parametrize("attempt", [1, 3])
    async def test_an_attempt_that_is_not_the_current_one_spends_nothing(
        self, db: Database, ledger: PostgresLedger, attempt: int
    ) -> None:
        key, account = await running_run(db, attempt=2), an_account()
        with pytest.raises(Killed):
            await hold(ledger, site_of(key, attempt), Hold(account, 1, 100))
        assert await balance(ledger, account) == Balance(account, 0, 0)
        assert await hold(ledger, site_of(key, 2), Hold(account, 1, 100))

    async def test_a_run_that_is_over_spends_nothing(self, db: Database, ledger: PostgresLedger) -> None:
        key, account = await running_run(db), an_account()
        await next_run(db, key.thread_id)
        with pytest.raises(Killed):
            await hold(ledger, site_of(key), Hold(account, 1, 100))

    async def test_a_program_has_runs_of_its_own(self, ledger: PostgresLedger) -> None:
        site = CallSite(thread=str(uuid4()), run=str(uuid4()))
        assert await hold(ledger, site, Hold(an_account(), 1, 100))

    async def test_upkeep_gives_back_what_was_held_and_counts_what_was_expected(
        self, db: Database, ledger: PostgresLedger
    ) -> None:
        key, account, other = await running_run(db), an_account(), an_account("tenant")
        call = await hold(ledger, site_of(key), Hold(account, 70, 100, worst=90), Hold(other, 70, 1000))
        assert call is not None
        await next_run(db, key.thread_id)
        async with db.connection() as conn:
            assert await guard_ledger.sweep(conn, limit=100) == 2
            assert await guard_ledger.sweep(conn, limit=100) == 0
            (lost,) = await guard_ledger.of_call(conn, "default", call.partition("/")[0])
        assert (lost.kind, lost.cost_nano_usd, lost.run_id) == ("correction", 70, key.run_id)
        assert lost.detail["outcome"] == "lost"
        assert await ledger.balances([account, other]) == [Balance(account, 70, 0), Balance(other, 70, 0)]
        assert await rebuild(db, "default", dry_run=True) == []

    async def test_a_lost_call_that_comes_back_costs_what_it_cost(self, db: Database, ledger: PostgresLedger) -> None:
        key, account, other = await running_run(db), an_account(), an_account("tenant")
        call = await hold(ledger, site_of(key), Hold(account, 70, 100))
        assert call is not None
        second = f"{call.partition('/')[0]}/second"
        assert not isinstance(await ledger.reserve(second, site_of(key), [Hold(other, 70, 100)], ttl_s=60), Refusal)
        await next_run(db, key.thread_id)
        async with db.connection() as conn:
            assert await guard_ledger.sweep(conn, limit=100) == 2
        assert await billed(db) == 70
        for one, where in ((second, other), (call, account), (second, other)):
            await ledger.settle(one, site_of(key), Entry("model", "m", cost_nano_usd=60, spent={where: 60}))
        assert await billed(db) == 60
        assert await ledger.balances([account, other]) == [Balance(account, 60, 0), Balance(other, 60, 0)]
        assert await rebuild(db, "default", dry_run=True) == []

    async def test_a_lost_call_that_was_never_made_costs_nothing(self, db: Database, ledger: PostgresLedger) -> None:
        key, account = await running_run(db), an_account()
        call = await hold(ledger, site_of(key), Hold(account, 70, 100))
        assert call is not None
        await next_run(db, key.thread_id)
        async with db.connection() as conn:
            assert await guard_ledger.sweep(conn, limit=100) == 1
        for _ in range(2):
            await ledger.release(call)
        assert await billed(db) == 0
        assert await balance(ledger, account) == Balance(account, 0, 0)
        assert await rebuild(db, "default", dry_run=True) == []

    async def test_what_is_in_the_way_is_found_piece_by_piece(self, db: Database, ledger: PostgresLedger) -> None:
        """A reserve on one account of a lost call gives back that one; upkeep finds the others later."""
        key, account, other = await running_run(db), an_account(), an_account("tenant")
        assert await hold(ledger, site_of(key), Hold(account, 10, 100, worst=100), Hold(other, 10, 1000))
        await next_run(db, key.thread_id)
        assert await hold(ledger, CallSite(), Hold(account, 90, 100)) is not None
        async with db.connection() as conn:
            assert await guard_ledger.sweep(conn, limit=100) == 1
        assert await billed(db) == 10
        assert await ledger.balances([account, other]) == [Balance(account, 10, 90, 90), Balance(other, 10, 0)]
        assert await rebuild(db, "default", dry_run=True) == []

    async def test_a_call_of_a_program_elsewhere_that_never_came_back_counts_nothing(
        self, db: Database, ledger: PostgresLedger
    ) -> None:
        account = an_account()
        await ledger.reserve("x/b", CallSite(), [Hold(account, 70, 100)], ttl_s=0)
        async with db.connection() as conn:
            assert await guard_ledger.sweep(conn, limit=100) == 1
            (lost,) = await guard_ledger.of_call(conn, "default", "x")
        assert (lost.cost_nano_usd, lost.spent) == (None, [])
        assert await balance(ledger, account) == Balance(account, 0, 0)


class TestCancelledCallers:
    async def test_a_reserve_whose_caller_is_cancelled_holds_nothing(self, db: Database) -> None:
        desk = LedgerDesk(db)
        ledger, account = PostgresLedger(desk), an_account()
        for pause in range(20):
            task = asyncio.create_task(hold(ledger, CallSite(), Hold(account, 1, 100)))
            for _ in range(pause):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and (call := task.result()) is not None:
                await ledger.release(call)
        await desk.close()
        assert await count(db, HOLDS) == 0
        assert await balance(ledger, account) == Balance(account, 0, 0)

    async def test_a_settlement_whose_caller_is_cancelled_is_written(self, db: Database) -> None:
        desk = LedgerDesk(db)
        ledger, account = PostgresLedger(desk), an_account()
        call = await hold(ledger, CallSite(), Hold(account, 5, 100))
        assert call is not None
        task = asyncio.create_task(ledger.settle(call, CallSite(), Entry("model", spent={account: 4})))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await desk.close()
        assert await balance(ledger, account) == Balance(account, 4, 0)


class TestManyProcesses:
    async def test_a_limit_holds_over_connections_of_several_processes(self, database_uri: str, db: Database) -> None:
        account = an_account("tenant")
        async with Database(database_uri, name="second", max_size=3) as second:
            desks = [LedgerDesk(db), LedgerDesk(second), LedgerDesk(second)]
            calls = await asyncio.gather(
                *(hold(PostgresLedger(desk), CallSite(), Hold(account, 10, 100)) for desk in desks for _ in range(20))
            )
            for desk in desks:
                await desk.close()
        assert sum(call is not None for call in calls) == 10

    async def test_accounts_in_any_order_never_wait_in_a_circle(self, database_uri: str) -> None:
        """New and old accounts, in any order, from many connections: Postgres would end one of those that do."""
        random.seed(7)
        accounts = [an_account(f"scope{n}") for n in range(12)]
        spent = 0

        async def client(db: Database) -> None:
            nonlocal spent
            async with db.connection() as conn:
                for _ in range(20):
                    calls = [f"{uuid4()}/b" for _ in range(3)]
                    holds = [[Hold(one, 1, 10**9) for one in random.sample(accounts, 4)] for _ in calls]
                    await work(
                        conn,
                        [reserve_op(call, CallSite(), some, ttl_s=60) for call, some in zip(calls, holds, strict=True)],
                    )
                    shares = [dict.fromkeys(random.sample(accounts, 3), 1) for _ in calls]
                    entries = [Entry("model", random.choice("xyz"), 1, 2, spent=share) for share in shares]
                    await work(
                        conn, [settle_op(call, CallSite(), one) for call, one in zip(calls, entries, strict=True)]
                    )
                    spent += 9

        async with Database(database_uri, name="many", max_size=8) as db:
            await asyncio.gather(*(client(db) for _ in range(8)))
            found = await PostgresLedger(LedgerDesk(db)).balances(accounts)
        assert sum(one.spent for one in found) == spent
        assert all((one.held, one.at_risk) == (0, 0) for one in found)

    async def test_the_same_settlement_from_two_processes_counts_once(self, database_uri: str, db: Database) -> None:
        account, call = an_account(), f"{uuid4()}/b"
        async with Database(database_uri, name="second") as second:
            ledgers = [PostgresLedger(LedgerDesk(db)), PostgresLedger(LedgerDesk(second))]
            entry = Entry("model", cost_nano_usd=3, spent={account: 3})
            await asyncio.gather(*(one.settle(call, CallSite(), entry) for one in ledgers for _ in range(5)))
        assert await balance(ledgers[0], account) == Balance(account, 3, 0)

    async def test_who_asks_again_because_the_answer_was_lost_hears_it(self, db: Database) -> None:
        account = an_account()
        op = settle_op("x/b", CallSite(), Entry("model", spent={account: 3}))
        async with db.connection() as conn:
            for _ in range(2):
                assert (await work(conn, [op])).answers[0]["balances"] == [[3, 0, 0]]
            other = settle_op("x/b", CallSite(), Entry("model", spent={account: 3}))
            assert (await work(conn, [other])).answers[0]["balances"] == []

    async def test_of_two_budgets_that_settle_a_call_at_once_one_says_what_it_cost(
        self, database_uri: str, db: Database
    ) -> None:
        call = str(uuid4())
        async with Database(database_uri, name="second") as second:
            ledgers = [PostgresLedger(LedgerDesk(db)), PostgresLedger(LedgerDesk(second))]
            await asyncio.gather(
                *(
                    ledger.settle(
                        f"{call}/{n}", CallSite(), Entry("model", cost_nano_usd=3, spent={an_account(f"s{n}"): 3})
                    )
                    for n, ledger in enumerate(ledgers * 3)
                )
            )
        async with db.connection() as conn:
            entries = await guard_ledger.of_call(conn, "default", call)
        assert sorted(str(entry.cost_nano_usd) for entry in entries) == ["3", *["None"] * 5]


class TestWhatItTakes:
    @pytest.mark.parametrize("text", ["\0", "\ud800", "x" * 10_000, "'; drop table guard_ledger; --", "{}", ""])
    async def test_any_text_is_a_name(self, text: str, db: Database, ledger: PostgresLedger) -> None:
        account = Account("default", "user", text, "usd", text)
        site = CallSite(thread=text, run=text, node=text, user=text, graph=text)
        call = f"{text}{uuid4()}/{text}"
        assert not isinstance(await ledger.reserve(call, site, [Hold(account, 5, 10)], ttl_s=60), Refusal)
        entry = Entry("model", text, 4, 5, text, {"details": text}, {account: 4}, {text: text})
        await ledger.settle(call, site, entry)
        assert await balance(ledger, account) == Balance(account, 4, 0)
        assert await ledger.ratio("default", text) < 1

    async def test_figures_beyond_all_measure_leave_the_account_usable(self, ledger: PostgresLedger) -> None:
        account = an_account()
        for _ in range(3):
            await ledger.settle(str(uuid4()), CallSite(), Entry("model", "m", 10**30, 1, spent={account: 10**30}))
        assert (await balance(ledger, account)).spent > 10**18
        assert await hold(ledger, CallSite(), Hold(account, 1, 10**300)) is not None
        for _ in range(3):
            await ledger.settle(str(uuid4()), CallSite(), Entry("correction", spent={account: -(10**30)}))
        assert (await balance(ledger, account)).spent < -(10**18)

    async def test_an_operation_that_postgres_refuses_fails_alone(self, ledger: PostgresLedger) -> None:
        account = an_account()
        wrong = Account("default", "user", "x", "bananas")  # pyright: ignore[reportArgumentType]  # what is to be refused
        outcomes = await asyncio.gather(
            hold(ledger, CallSite(), Hold(account, 1, 10)),
            hold(ledger, CallSite(), Hold(wrong, 1, 10)),
            hold(ledger, CallSite(), Hold(account, 1, 10)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, psycopg.Error) for outcome in outcomes] == [False, True, False]
        assert (await balance(ledger, account)).held == 2

    async def test_entries_cannot_be_changed(self, db: Database, ledger: PostgresLedger) -> None:
        await ledger.settle("a/b", CallSite(), Entry("model", cost_nano_usd=3))
        async with db.connection() as conn:
            for statement in CHANGES:
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                    await conn.execute(statement)
        assert await count(db, ENTRIES) == 1

    async def test_balances_of_long_ago_are_forgotten_and_entries_stay(
        self, db: Database, ledger: PostgresLedger
    ) -> None:
        past = Account("default", "user", "ada", "usd", "day:2020-01-01T00:00Z")
        ever = an_account()
        await ledger.settle("a/b", CallSite(), Entry("model", cost_nano_usd=3, spent={past: 3, ever: 3}))
        async with db.connection() as conn:
            assert await guard_ledger.prune_accounts(conn, limit=10) == 0
            assert await guard_ledger.prune_accounts(conn, limit=10, kept_s=0) == 1
        assert [one.spent for one in await ledger.balances([past, ever])] == [0, 3]
        assert await count(db, ENTRIES) == 1


async def test_the_clock_and_the_windows_are_those_of_postgres(db: Database, ledger: PostgresLedger) -> None:
    async with db.connection() as conn:
        before = await guard_ledger.clock(conn)
    told = await ledger.now()
    async with db.connection() as conn:
        after = await guard_ledger.clock(conn)
    assert before - timedelta(seconds=5) <= told <= after + timedelta(seconds=5)
    assert told.tzinfo is not None


async def test_a_ledger_without_postgres_says_so_soon_and_works_again_afterwards(
    make_postgres: Callable[[], EmbeddedPostgres],
) -> None:
    server = make_postgres()
    await migrate(server.conninfo)
    account = an_account()
    async with Database(server.conninfo, name="test") as db:
        patient, desk = LedgerDesk(db, answer_s=20), LedgerDesk(db, answer_s=0.5)
        ledger = PostgresLedger(desk)
        call = await hold(PostgresLedger(patient), CallSite(), Hold(account, 40, 100))
        assert call is not None
        server.halt()
        async with asyncio.timeout(30):
            for work in (
                hold(ledger, CallSite(), Hold(account, 1, 100)),
                ledger.settle(call, CallSite(), Entry("model", spent={account: 30})),
                ledger.balances([account]),
                ledger.ratio("default", "m"),
            ):
                with pytest.raises(PortUnavailable):
                    await work
        server.revive()

        async def works() -> bool:
            try:
                await ledger.settle(call, CallSite(), Entry("model", spent={account: 30}))
            except PortUnavailable:
                return False
            return True

        await eventually(works)
        await desk.close()
        assert await balance(PostgresLedger(patient), account) == Balance(account, 30, 0)
        await patient.close()
