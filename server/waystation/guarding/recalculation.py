"""Setting the ledger right: other prices for what was called, balances made anew of entries, corrections by hand.

Entries are never changed. What turns out otherwise is written as a correction, which the balances follow in the same
transaction; so all of this may run while the servers do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from waystation.errors import NotFound
from waystation_db import guard_ledger
from waystation_db.guard_ledger import CallEntry, Drift, Mark, ModelEntry
from waystation_db.pool import Database
from waystation_guards.budget.pricing import Prices

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Repriced:
    """What other prices change: entries looked at, of those corrected, without a price, and the difference in all."""

    entries: int
    corrected: int
    unpriced: int
    nano_usd: int


async def reprice(
    db: Database,
    tenant: str,
    *,
    prices: Prices,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
) -> Repriced:
    """Write corrections for all model calls of a tenant that cost otherwise by these prices.

    Calls whose model has no price stay as they are. Done again, or by two at a time, it corrects nothing twice.
    """
    seen = corrected = unpriced = total = 0
    async for page in _model_entries(db, tenant, since, until):
        ops: list[dict[str, Any]] = []
        for entry in page:
            seen += 1
            price = prices.cost(entry.model, entry.usage, provider=entry.provider or None)
            if price is None:
                unpriced += 1
                continue
            op = _correction(tenant, entry, price.nano_usd, price.version)
            if op is not None:
                corrected += 1
                total += op["cost"] or 0
                ops.append(op)
        if ops and not dry_run:
            async with db.connection() as conn:
                await guard_ledger.work(conn, ops)
    return Repriced(seen, corrected, unpriced, total)


async def rebuild(db: Database, tenant: str, *, dry_run: bool = False) -> list[Drift]:
    """Make a tenant's balances what its entries and open holds say; the accounts that were otherwise, and by how much.

    Reads the whole ledger of the tenant once. No account is locked meanwhile.
    """
    async with db.connection() as conn:
        found = await guard_ledger.drift(conn, tenant)
        for one in () if dry_run else found:
            await guard_ledger.restore_account(conn, tenant, one)
            await guard_ledger.mend(conn, tenant, one)
    return found


async def correct(db: Database, tenant: str, call_id: str, *, nano_usd: int, reason: str) -> int:
    """Add an amount to what a call cost, on all accounts in dollars that it counted on; how many accounts those are.

    For calls that were lost with their process and turn up on a provider's bill, and for what a provider gives back.

    Raises:
        NotFound: the ledger knows no such call.
    """
    async with db.connection() as conn:
        entries = await guard_ledger.of_call(conn, tenant, call_id)
        if not entries:
            raise NotFound(f"the ledger has no call {call_id}")
        accounts = _accounts_in_dollars(entries)
        first = entries[0]
        op: dict[str, Any] = {
            **_op(tenant, first, f"{call_id}#by-hand-{uuid4()}", call_id, first.model),
            "cost": nano_usd,
            "price_version": "",
            "spent": [_account(account, nano_usd) for account in accounts],
            "detail": {"by_hand": first.call, "reason": reason},
        }
        await guard_ledger.work(conn, [op])
    return len(accounts)


async def exported(
    db: Database,
    tenant: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    all_kinds: bool = False,
) -> AsyncGenerator[list[bytes]]:
    """The ledger of a tenant, the oldest entry first, page by page; each entry is JSON.

    `all_kinds`: also notes of alerts and of self-tests, which are not about money.
    """
    mark = Mark() if since is None else Mark(since)
    while True:
        async with db.connection() as conn:
            page = await guard_ledger.entries(conn, tenant, after=mark, until=until, limit=_PAGE, all_kinds=all_kinds)
        if not page:
            return
        yield [entry for _, entry in page]
        mark = page[-1][0]


async def _model_entries(
    db: Database, tenant: str, since: datetime | None, until: datetime | None
) -> AsyncGenerator[list[ModelEntry]]:
    mark = Mark() if since is None else Mark(since)
    while True:
        async with db.connection() as conn:
            page = await guard_ledger.model_entries(conn, tenant, after=mark, until=until, limit=_PAGE)
        if not page:
            return
        yield page
        mark = page[-1].mark


def _correction(tenant: str, entry: ModelEntry, nano_usd: int, version: str) -> dict[str, Any] | None:
    """What an entry lacks of its new price; None if nothing."""
    spent: dict[str, int] = {}
    accounts: dict[str, Sequence[Any]] = {}
    for account in (*entry.spent, *(one for _, made in entry.corrections for one in made)):
        if account[3] == "usd":
            accounts.setdefault(account[0], account)
            spent[account[0]] = spent.get(account[0], 0) + account[5]
    lacking = {one: nano_usd - amount for one, amount in spent.items() if amount != nano_usd}
    counted = (entry.cost_nano_usd or 0) + sum(cost or 0 for cost, _ in entry.corrections)
    cost = nano_usd - counted if entry.bills else None
    if not lacking and not cost:
        return None
    return {
        **_op(tenant, entry, f"{entry.call}#{len(entry.corrections) + 1}", entry.call_id, entry.model),
        "cost": cost,
        "price_version": version,
        "spent": [_account(accounts[one], amount) for one, amount in lacking.items()],
        "detail": {"corrects": entry.call, "priced_before": entry.price_version},
    }


def _op(tenant: str, entry: ModelEntry | CallEntry, call: str, call_id: str, model: str) -> dict[str, Any]:
    return {
        "do": "settle",
        "tenant": tenant,
        "call": call,
        "call_id": call_id,
        "kind": "correction",
        "model": model,
        "estimate": None,
        "usage": {},
        "thread": entry.thread_id,
        "run": entry.run_id,
        "attempt": entry.attempt,
        "node": entry.node,
        "namespace": "",
        "assistant": "",
        "graph": entry.graph_id,
        "user": entry.user_id,
        "key": entry.key_id,
        "claim": "",
    }


def _account(account: Sequence[Any], amount: int) -> dict[str, Any]:
    number, scope, owner, unit, window, _, tenant = account
    return {
        "tenant": tenant,
        "id": number,
        "scope": scope,
        "owner": owner,
        "unit": unit,
        "window": window,
        "amount": amount,
    }


def _accounts_in_dollars(entries: Sequence[CallEntry]) -> list[Sequence[Any]]:
    """Each account in dollars that a call counted on, or would have if it had not been lost."""
    found: dict[str, Sequence[Any]] = {}
    for entry in entries:
        for account in (*entry.spent, *entry.detail.get("accounts", ())):
            if account[3] == "usd":
                found.setdefault(account[0], account)
    return list(found.values())
