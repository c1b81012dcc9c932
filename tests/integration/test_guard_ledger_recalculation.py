"""The ledger set right: other prices, balances made anew, corrections by hand, the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import anyio
import psycopg
import pytest
from typer.testing import CliRunner

from waystation.cli.commands import app
from waystation.errors import NotFound
from waystation.guarding.postgres_ledger import LedgerDesk, PostgresLedger
from waystation.guarding.recalculation import Repriced, correct, exported, rebuild, reprice
from waystation_db.pool import Database
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.calls import CallSite
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Account, Entry, Hold

pytestmark = pytest.mark.anyio

USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
DOLLARS = Account("default", "user", "ada", "usd")
TOKENS = Account("default", "user", "ada", "tokens")
TENANT = Account("default", "tenant", "default", "usd")


def prices(dollars_per_million: int, version: str) -> Prices:
    rate = Decimal(dollars_per_million)
    return Prices({"m": Rates(rate, rate)}, version)


async def a_call(ledger: PostgresLedger, *, model: str = "m", cost: int | None = 1_100_000) -> str:
    """A call that two budgets count: 1,100 tokens at a dollar per million."""
    call = str(uuid4())
    spent = {DOLLARS: cost or 0, TOKENS: 1100}
    entry = Entry("model", model, cost, cost, "old", USAGE, spent, {"provider": "p"})
    await ledger.settle(f"{call}/users", CallSite(run="r"), entry)
    await ledger.settle(
        f"{call}/all", CallSite(run="r"), Entry("model", model, cost, cost, "old", USAGE, {TENANT: cost or 0})
    )
    return call


async def spent(ledger: PostgresLedger) -> list[int]:
    return [one.spent for one in await ledger.balances([DOLLARS, TENANT, TOKENS])]


async def billed(db: Database) -> int:
    async with db.connection() as conn:
        row = await (await conn.execute("select sum(cost_nano_usd)::bigint from guard_ledger")).fetchone()
    assert row is not None
    return row[0]


async def test_other_prices_are_written_as_corrections_once(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    for _ in range(3):
        await a_call(ledger)
    assert await reprice(db, "default", prices=prices(2, "new"), dry_run=True) == Repriced(6, 6, 0, 3_300_000)
    assert await billed(db) == 3_300_000
    for _ in range(2):
        await reprice(db, "default", prices=prices(2, "new"))
        assert await billed(db) == 6_600_000
        assert await spent(ledger) == [6_600_000, 6_600_000, 3300]
    await reprice(db, "default", prices=prices(1, "old again"))
    assert await billed(db) == 3_300_000
    assert await spent(ledger) == [3_300_000, 3_300_000, 3300]
    assert await rebuild(db, "default") == []


async def test_a_call_without_a_price_gets_the_one_that_is_known_now(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    await a_call(ledger, cost=None)
    await a_call(ledger, model="nobody-knows", cost=None)
    assert await reprice(db, "default", prices=prices(1, "new")) == Repriced(4, 2, 2, 1_100_000)
    assert await spent(ledger) == [1_100_000, 1_100_000, 2200]


async def test_two_that_price_anew_at_once_correct_once(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    for _ in range(5):
        await a_call(ledger)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(lambda: reprice(db, "default", prices=prices(3, "new")))
    assert await billed(db) == 5 * 3_300_000
    assert await spent(ledger) == [16_500_000, 16_500_000, 5500]


async def test_balances_are_made_anew_of_entries_and_open_holds(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    await a_call(ledger)
    await ledger.reserve("open/b", CallSite(), [Hold(DOLLARS, 7, 10**9, worst=9)], ttl_s=60)
    async with db.connection() as conn:
        await conn.execute("update guard_account set spent = 5, held = 100, at_risk = 100 where scope = 'user'")
        await conn.execute("delete from guard_account where scope = 'tenant'")
    drifted = await rebuild(db, "default", dry_run=True)
    assert {(one.scope, one.unit): one.spent for one in drifted} == {
        ("user", "usd"): 1_099_995,
        ("user", "tokens"): 1095,
        ("tenant", "usd"): 1_100_000,
    }
    assert await rebuild(db, "default") == drifted
    assert await rebuild(db, "default") == []
    assert await spent(ledger) == [1_100_000, 1_100_000, 1100]
    (balance,) = await ledger.balances([DOLLARS])
    assert (balance.held, balance.at_risk) == (7, 9)
    await ledger.release("open/b")
    (balance,) = await ledger.balances([DOLLARS])
    assert (balance.held, balance.at_risk) == (0, 0)


async def test_a_correction_by_hand_counts_on_all_budgets_and_other_prices_leave_it(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    call = await a_call(ledger)
    assert await correct(db, "default", call, nano_usd=-100_000, reason="refund") == 2
    assert await correct(db, "default", call, nano_usd=-100_000, reason="another") == 2
    assert await billed(db) == 900_000
    assert await spent(ledger) == [900_000, 900_000, 1100]
    await reprice(db, "default", prices=prices(2, "new"))
    assert await billed(db) == 2_000_000
    with pytest.raises(NotFound):
        await correct(db, "default", str(uuid4()), nano_usd=1, reason="?")
    with pytest.raises(NotFound):
        await correct(db, "other", call, nano_usd=1, reason="?")


async def test_the_whole_ledger_is_exported_in_order(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    calls = [f"{number}/b" for number in range(450)]
    for number in range(0, 450, 50):
        async with anyio.create_task_group() as group:
            for call in calls[number : number + 50]:
                group.start_soon(ledger.settle, call, CallSite(), Entry("tool", "search", spent={TOKENS: 1}))
    entries = [json.loads(one) async for page in exported(db, "default") for one in page]
    assert sorted(one["call"] for one in entries) == sorted(calls)
    assert [one["created_at"] for one in entries] == sorted(one["created_at"] for one in entries)
    assert [one async for page in exported(db, "other") for one in page] == []


async def test_what_was_only_told_or_tested_is_exported_when_it_is_asked_for(db: Database) -> None:
    ledger = PostgresLedger(LedgerDesk(db))
    ports = replace(memory_ports(), ledger=ledger)
    limit = Limit(1, unit="model_calls", scope="tenant")
    assert await Budget(limit).self_test(ports) == []
    await ledger.settle("t/alert", CallSite(), Entry("correction", detail={"alert": 0.5}))
    await ledger.settle("c/usd", CallSite(), Entry("correction", cost_nano_usd=5, detail={"by_hand": "c"}))
    await ledger.settle("m/usd", CallSite(), Entry("model", "m", cost_nano_usd=7))
    plain = [json.loads(one) async for page in exported(db, "default") for one in page]
    assert [one["call"] for one in plain] == ["c/usd", "m/usd"]
    whole = [json.loads(one) async for page in exported(db, "default", all_kinds=True) for one in page]
    told = [one["detail"] for one in whole if one["call"] not in ("c/usd", "m/usd")]
    assert {"self_test": True} in told
    assert {"alert": 0.5} in told
    assert {one["cost_nano_usd"] for one in whole} == {None, 5, 7}


class TestCommandLine:
    @pytest.fixture
    def ledger(self, database_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
        monkeypatch.setenv("DATABASE_URI", database_uri)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "prices.json").write_text(json.dumps({"models": {"m": {"input": 2, "output": 2}}}))

        async def fill() -> str:
            async with Database(database_uri) as db:
                return await a_call(PostgresLedger(LedgerDesk(db)))

        return anyio.run(fill)

    def invoke(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["ledger", *arguments])
        return result.exit_code, result.output

    def test_export_writes_lines_of_json(self, ledger: str, tmp_path: Path) -> None:
        assert self.invoke("export", "-o", "all.jsonl")[0] == 0
        lines = (tmp_path / "all.jsonl").read_text().splitlines()
        assert {json.loads(line)["call"] for line in lines} == {f"{ledger}/users", f"{ledger}/all"}
        assert self.invoke("export", "--all", "-o", "again.jsonl")[0] == 0
        assert (tmp_path / "again.jsonl").read_text().splitlines() == lines
        code, output = self.invoke("export", "--until", "2026-01-01")
        assert (code, output) == (0, "")

    def test_recalculate_says_what_it_would_do_and_does_it(self, ledger: str, database_uri: str) -> None:
        code, output = self.invoke("recalculate", "--prices", "prices.json", "--dry-run")
        assert (code, "Corrections: 2, in all +0.0011 $" in output) == (0, True)
        assert self.invoke("recalculate", "--prices", "prices.json")[0] == 0
        assert "Corrections: 0" in self.invoke("recalculate", "--prices", "prices.json")[1]
        assert self.invoke("correct", "--reason", "refund", "--", ledger, "-0.0001")[0] == 0
        with psycopg.connect(database_uri) as conn:
            row = conn.execute("select sum(cost_nano_usd) from guard_ledger").fetchone()
        assert row is not None
        assert row[0] == 2_100_000

    @pytest.mark.parametrize(
        "arguments",
        [
            ["correct", "--reason", "x", "no-such-call", "1"],
            ["correct", "--reason", "x", "no-such-call", "nan"],
            ["recalculate", "--prices", "absent.json"],
            ["recalculate", "--since", "yesterday"],
            ["export", "-o", "/no/such/folder/x"],
        ],
    )
    def test_what_cannot_be_done_is_said(self, arguments: list[str], ledger: str) -> None:
        assert self.invoke(*arguments)[0] == 2

    def test_a_wrong_price_list_is_said(self, ledger: str, tmp_path: Path) -> None:
        (tmp_path / "prices.json").write_text("[]")
        code, output = self.invoke("recalculate", "--prices", "prices.json")
        assert (code, "is not a price list" in output) == (2, True)
