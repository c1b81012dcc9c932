"""The guards' ledger: entries that are never changed, and the balances and open holds that go with them.

Everything that changes an account goes through `work`, which does what a process wants at one moment in one round trip
and one transaction. Amounts are integers in an account's own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.json import dumps
from waystation_db.sql import load

_q = load("guard_ledger")

Conn = AsyncConnection[TupleRow]

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
ACCOUNTS_KEPT_S = 62 * 86_400.0
"""How long the balances of windows and runs are kept from their beginning: twice the longest window."""


@dataclass(frozen=True, slots=True)
class Worked:
    """What `work` answers: one object for each operation, learned ratios, and the database's clock in epoch seconds."""

    answers: list[dict[str, Any]]
    ratios: list[tuple[str, str, float]]
    now: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the ledger: entries are read from the one behind it."""

    created_at: datetime = BEGINNING
    call: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What a model call came to, as it was written, and what corrections `[cost, spent]` added to it since.

    `spent` and that of corrections: `[[account_id, scope, owner, unit, window, amount, tenant], …]`.
    """

    created_at: datetime
    call: str
    call_id: str
    bills: bool
    model: str
    provider: str
    usage: dict[str, Any]
    cost_nano_usd: int | None
    price_version: str
    spent: list[list[Any]]
    thread_id: str
    run_id: str
    attempt: int
    node: str
    namespace: str
    assistant_id: str
    graph_id: str
    user_id: str
    key_id: str
    corrections: list[list[Any]]

    @property
    def mark(self) -> Mark:
        return Mark(self.created_at, self.call)


@dataclass(frozen=True, slots=True)
class CallEntry:
    """An entry about a call: the call's own, or a correction."""

    call: str
    kind: str
    cost_nano_usd: int | None
    model: str
    spent: list[list[Any]]
    detail: dict[str, Any]
    thread_id: str
    run_id: str
    attempt: int
    node: str
    graph_id: str
    user_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Drift:
    """An account, and what its balance lacks of what the ledger's entries and the open holds say."""

    account_id: str
    scope: str
    owner: str
    unit: str
    window: str
    spent: int
    held: int
    at_risk: int


async def work(conn: Conn, ops: Sequence[dict[str, Any]]) -> Worked:
    """Do all operations or, where Postgres refuses one, none. Commits.

    An operation is `{"do": "reserve" | "settle" | "release", …}` as migration 0040 describes them. Sending one again is
    safe: a call is held once and settled once.
    """
    row = await (await conn.execute(_q["work"], {"ops": dumps(list(ops)).decode()})).fetchone()
    told = orjson.loads(cast("tuple[str]", row)[0])
    return Worked(told["answers"], [(tenant, model, ratio) for tenant, model, ratio in told["ratios"]], told["now"])


async def balances(conn: Conn, accounts: Sequence[tuple[str, str]]) -> list[tuple[int, int, int]]:
    """(spent, held, at risk) of each `(tenant_id, account_id)`, in order; zeros where nobody has used one."""
    params = {"tenant_ids": [tenant for tenant, _ in accounts], "account_ids": [one for _, one in accounts]}
    return [(row[0], row[1], row[2]) for row in await (await conn.execute(_q["balances"], params)).fetchall()]


async def clock(conn: Conn) -> datetime:
    """The database's clock, in UTC."""
    row = await (await conn.execute(_q["clock"])).fetchone()
    return cast("tuple[datetime]", row)[0].astimezone(UTC)


async def ratio(conn: Conn, tenant_id: str, model: str) -> float | None:
    """The learned ratio of a model's actual to estimated cost; None before anything is learned."""
    row = await (await conn.execute(_q["ratio"], {"tenant_id": tenant_id, "model": model})).fetchone()
    return None if row is None else row[0]


async def sweep(conn: Conn, *, limit: int) -> int:
    """Give back holds of dead attempts and of calls that never came back; how many. Commits."""
    row = await (await conn.execute(_q["sweep"], {"limit": limit})).fetchone()
    return cast("tuple[int]", row)[0]


async def prune_accounts(conn: Conn, *, limit: int, kept_s: float = ACCOUNTS_KEPT_S) -> int:
    """Forget balances of windows and runs that began `kept_s` seconds ago; how many. Entries stay. Commits."""
    rows = await (await conn.execute(_q["prune_accounts"], {"kept_s": kept_s, "limit": limit})).fetchall()
    return len(rows)


async def entries(
    conn: Conn,
    tenant_id: str,
    *,
    after: Mark,
    until: datetime | None = None,
    limit: int = 1000,
    all_kinds: bool = False,
) -> list[tuple[Mark, bytes]]:
    """A page of the ledger behind `after`, the oldest first: where each entry is, and the entry as JSON.

    `all_kinds`: also notes of alerts and of self-tests, which are not about money.
    """
    params = {**_page(tenant_id, after, until, limit), "all": all_kinds}
    rows = await (await conn.execute(_q["entries"], params)).fetchall()
    return [(Mark(row[0], row[1]), cast("str", row[2]).encode()) for row in rows]


async def model_entries(
    conn: Conn, tenant_id: str, *, after: Mark, until: datetime | None = None, limit: int = 1000
) -> list[ModelEntry]:
    """A page of what model calls came to, behind `after`, the oldest first."""
    rows = await (await conn.execute(_q["model_entries"], _page(tenant_id, after, until, limit))).fetchall()
    return [ModelEntry(*row) for row in rows]


async def of_call(conn: Conn, tenant_id: str, call_id: str) -> list[CallEntry]:
    """The entries about a call, the oldest first."""
    rows = await (await conn.execute(_q["of_call"], {"tenant_id": tenant_id, "call_id": call_id})).fetchall()
    return [CallEntry(*row) for row in rows]


async def drift(conn: Conn, tenant_id: str) -> list[Drift]:
    """The accounts of a tenant whose balances are not what the ledger says. Reads the tenant's whole ledger."""
    rows = await (await conn.execute(_q["drift"], {"tenant_id": tenant_id})).fetchall()
    return [Drift(*row) for row in rows]


async def restore_account(conn: Conn, tenant_id: str, one: Drift) -> None:
    """An account that was forgotten, with nothing on it; one that is there stays as it is. Commits."""
    params = {
        "tenant_id": tenant_id,
        "account_id": one.account_id,
        "scope": one.scope,
        "owner": one.owner,
        "unit": one.unit,
        "window": one.window,
    }
    await conn.execute(_q["restore_account"], params)


async def mend(conn: Conn, tenant_id: str, one: Drift) -> None:
    """Add to an account's balance what it lacks. Commits."""
    params = {
        "tenant_id": tenant_id,
        "account_id": one.account_id,
        "spent": one.spent,
        "held": one.held,
        "at_risk": one.at_risk,
    }
    await conn.execute(_q["mend"], params)


def _page(tenant_id: str, after: Mark, until: datetime | None, limit: int) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "after_time": after.created_at,
        "after_call": after.call,
        "until": until,
        "limit": limit,
    }
