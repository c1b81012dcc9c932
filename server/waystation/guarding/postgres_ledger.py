"""The guards' ledger on Postgres: what all runs of a process want of it at one moment is one round trip.

    reserve, settle, release ──▶ LedgerDesk ──one batch in flight──▶ waystation_guard_work (0040) ──▶ each its answer

A budget of a whole tenant is one row that every call changes: grouped, its throughput is not bound to one call per
commit. A reserve whose caller is cancelled is followed by a release, so that nothing stays held that nobody knows of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final

import structlog

from waystation.events.batcher import Batcher
from waystation.guarding.ledger_operations import account_id, release_op, reserve_op, settle_op, short
from waystation_db import guard_ledger
from waystation_db.errors import DatabaseUnavailable
from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_guards.calls import CallSite
from waystation_guards.errors import Killed
from waystation_guards.ports import Account, Balance, Entry, Hold, PortUnavailable, Refusal

log = structlog.get_logger(__name__)

ANSWER_S: Final = 2.0
"""How long Postgres may take, tries after lost connections included, before a guard goes by its fail mode."""

_AT_ONCE: Final = 128
_CLOCK_S: Final = 10.0
"""How long the database's clock is carried on by this process's monotonic one before it is read again."""
_RATIO_S: Final = 10.0
_RATIOS: Final = 10_000


class LedgerDesk:
    """Everything that the ledgers of one loop share: the queue to Postgres, its clock, what is learned of models."""

    def __init__(self, db: Database, *, answer_s: float = ANSWER_S) -> None:
        self._db = db
        self._answer_s = answer_s
        self._batches = Batcher[dict[str, Any], dict[str, Any]](self._work, limit=_AT_ONCE)
        self._clock: tuple[float, float] | None = None
        self._ratios: dict[tuple[str, str], tuple[float, float]] = {}
        self._releases: set[asyncio.Task[dict[str, Any]]] = set()

    async def ask(self, op: dict[str, Any]) -> dict[str, Any]:
        """An operation's answer. Cancelling the wait leaves the operation on its way.

        Raises:
            PortUnavailable: Postgres did not answer; the operation may have been done all the same.
        """
        return await self._batches.ask(op)

    def ask_later(self, op: dict[str, Any]) -> None:
        """Do it behind everything asked before, with nobody waiting."""
        task = asyncio.get_running_loop().create_task(self._batches.ask(op))
        self._releases.add(task)
        task.add_done_callback(self._forget)

    async def balances(self, accounts: Sequence[tuple[str, str]]) -> list[tuple[int, int, int]]:
        """(spent, held, at risk) of each `(tenant, account id)`. Raises PortUnavailable."""

        async def read() -> list[tuple[int, int, int]]:
            async with self._db.connection() as conn:
                return await guard_ledger.balances(conn, accounts)

        try:
            return await until_done(read, retry_s=self._answer_s)
        except DatabaseUnavailable as error:
            raise PortUnavailable(str(error)) from error

    async def now(self) -> datetime:
        """The database's clock in UTC, read now and then and with every operation. Raises PortUnavailable."""
        if self._clock is None or monotonic() - self._clock[1] > _CLOCK_S:

            async def read() -> None:
                async with self._db.connection() as conn:
                    began = monotonic()
                    found = await guard_ledger.clock(conn)
                self._set_clock(found.timestamp(), (began + monotonic()) / 2)

            try:
                await until_done(read, retry_s=self._answer_s)
            except DatabaseUnavailable as error:
                raise PortUnavailable(str(error)) from error
        assert self._clock is not None
        at, known = self._clock
        return datetime.fromtimestamp(at, UTC) + timedelta(seconds=monotonic() - known)

    async def ratio(self, tenant: str, model: str) -> float:
        """What is learned of a model, as it was some seconds ago at most. Raises PortUnavailable."""
        known = self._ratios.get((tenant, model))
        if known is not None and monotonic() - known[1] < _RATIO_S:
            return known[0]

        async def read() -> float | None:
            async with self._db.connection() as conn:
                return await guard_ledger.ratio(conn, tenant, model)

        try:
            found = await until_done(read, retry_s=self._answer_s)
        except DatabaseUnavailable as error:
            raise PortUnavailable(str(error)) from error
        self._learn(tenant, model, 1.0 if found is None else found)
        return self._ratios[tenant, model][0]

    async def close(self) -> None:
        """Wait until what was asked is done, or Postgres has not answered."""
        await asyncio.gather(*self._releases, return_exceptions=True)
        await self._batches.close()

    async def _work(self, ops: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any] | Exception]:
        try:
            return await self._together(ops)
        except DatabaseUnavailable as error:
            raise PortUnavailable(str(error)) from error
        except Exception:
            if len(ops) == 1:
                raise
        # One of them is refused; each is tried alone, and the others do not hear of it.
        return [await self._alone(op) for op in ops]

    async def _alone(self, op: dict[str, Any]) -> dict[str, Any] | Exception:
        try:
            return (await self._together([op]))[0]
        except DatabaseUnavailable as error:
            return PortUnavailable(str(error))
        except Exception as error:  # it belongs to whoever asked for this one
            return error

    async def _together(self, ops: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        async def send() -> guard_ledger.Worked:
            async with self._db.connection() as conn:
                return await guard_ledger.work(conn, ops)

        worked = await until_done(send, retry_s=self._answer_s)
        self._set_clock(worked.now, monotonic())
        for tenant, model, ratio in worked.ratios:
            self._learn(tenant, model, ratio)
        return worked.answers

    def _set_clock(self, at: float, known: float) -> None:
        self._clock = at, known

    def _learn(self, tenant: str, model: str, ratio: float) -> None:
        if len(self._ratios) >= _RATIOS:
            self._ratios.clear()
        self._ratios[tenant, model] = ratio, monotonic()

    def _forget(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._releases.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a hold of a cancelled call could not be given back; it ends by itself", error=str(error))


class PostgresLedger:
    """`waystation_guards.ports.Ledger` of a tenant, over the loop's desk.

    `reserve` raises Killed for an attempt of a run that is no longer its current one: nothing that it pays for counts.
    """

    __slots__ = ("_desk", "_tenant")

    def __init__(self, desk: LedgerDesk, *, tenant: str = "default") -> None:
        self._desk = desk
        self._tenant = tenant

    async def reserve(
        self, call: str, site: CallSite, holds: Sequence[Hold], *, ttl_s: float
    ) -> Refusal | Sequence[Balance]:
        try:
            answer = await self._desk.ask(reserve_op(call, site, holds, ttl_s=ttl_s))
        except asyncio.CancelledError:
            self._desk.ask_later(release_op(call, site.tenant))
            raise
        except PortUnavailable:
            # It may have been committed with the answer lost. Where Postgres comes back in time the hold does too.
            self._desk.ask_later(release_op(call, site.tenant))
            raise
        if answer.get("is_over"):
            raise Killed("This attempt of the run is over")
        balances = _balances([hold.account for hold in holds], answer["balances"])
        refused: int | None = answer.get("refused")
        return balances if refused is None else Refusal(holds[refused], balances[refused])

    async def settle(self, call: str, site: CallSite, entry: Entry) -> Sequence[Balance]:
        answer = await self._desk.ask(settle_op(call, site, entry))
        # None where it had been settled before.
        return _balances(list(entry.spent) if answer["balances"] else (), answer["balances"])

    async def release(self, call: str) -> None:
        await self._desk.ask(release_op(call, self._tenant))

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        return _balances(
            accounts, await self._desk.balances([(short(one.tenant), account_id(one)) for one in accounts])
        )

    async def now(self) -> datetime:
        return await self._desk.now()

    async def ratio(self, tenant: str, model: str) -> float:
        return await self._desk.ratio(short(tenant), short(model))


def _balances(accounts: Sequence[Account], found: Sequence[Sequence[int]]) -> list[Balance]:
    return [Balance(account, *amounts) for account, amounts in zip(accounts, found, strict=True)]
