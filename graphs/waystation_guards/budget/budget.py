"""Budgets: what runs, threads, users, keys, assistants and tenants may spend, in dollars, tokens, calls or seconds.

    budget = Budget(Limit(5, scope="user", window="day", timezone="Europe/Berlin"), Limit(0.5, scope="run"))
    graph = guarded(graph, [budget])                                  or BudgetMiddleware(budget) for `create_agent`

    before a call:  expected and worst cost ─▶ one atomic reserve over the accounts of all limits ─▶ the call; or what
                    the limit's `on_limit` says. Where only open calls stand in the way, it waits for them.
    after it:       what the provider says it was (or what was counted) ─▶ one entry in the ledger, holds given back

A limit is passed by at most one call's estimation error, however many calls run in parallel (`ports.Hold`). A call that
several budgets watch is counted once on each account: by the outermost budget, whose holds the others take as theirs.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import Final

from waystation_guards.budget.accounts import (
    AnyCall,
    Held,
    Share,
    bill_of,
    count,
    degraded,
    exceeded,
    shares_of,
    spent_after,
    uncount,
)
from waystation_guards.budget.alerts import AlertHook, Alerts
from waystation_guards.budget.asking import Asking
from waystation_guards.budget.estimates import Estimate, estimate, input_tokens
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.budget.self_test import self_test
from waystation_guards.budget.standing import Standing, grant, standing_of
from waystation_guards.budget.writing import Writing
from waystation_guards.calls import CallSite
from waystation_guards.errors import GuardError, GuardUnavailable, PriceUnknown
from waystation_guards.ports import Balance, Entry, Ports, Refusal, Unit
from waystation_guards.providers.errors import classify
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

log = logging.getLogger(__name__)

__all__ = ["HOLD_S", "Budget", "Standing"]

HOLD_S: Final = 900.0
"""How long a hold lives whose call is never heard of again."""

_POLL_S: Final = 0.05
_NOTHING: Final = Estimate(0, 0, 0, None, None)


class Budget:
    """A guard (`watching.Guard`) over some limits, all of which a call has to fit."""

    def __init__(
        self,
        *limits: Limit,
        prices: Prices | None = None,
        wait_s: float = 30.0,
        on_alert: AlertHook | None = None,
        name: str = "",
    ) -> None:
        """`wait_s`: how long a call waits for open ones to be settled. `on_alert`: told once for each part of a limit
        that is spent, by whichever process sees it (`budget_alerts`). `name`: stable, for the ledger; made of the
        limits if there is none."""
        if not limits:
            raise ValueError("a budget needs at least one limit")
        self.limits = limits
        self.prices = prices or Prices()
        self.name = name or sha256(repr(limits).encode()).hexdigest()[:8]
        self._wait_s = wait_s
        self._fails_open = all(limit.fail == "open" for limit in limits)
        self._asks = any(limit.on_limit == "interrupt" for limit in limits)
        self._alerts = Alerts(self.name, on_alert)
        self._asking = Asking(self.name)
        self._writing = Writing(patient=not self._fails_open)
        self.ends_runs = any(limit.on_limit in ("end", "interrupt") for limit in limits)
        """Whether a refusal may be one that ends the run (`guarded_endings`)."""

    async def before_model(self, call: ModelCall) -> None:
        """Set aside what the call may come to.

        Raises:
            BudgetExceeded: it might pass a limit.
            PriceUnknown: the model has no price, and a limit in dollars asks for one.
            GuardUnavailable: the ledger is away, and a limit fails closed.
            GraphInterrupt: a human is asked for more.
        """
        await self._admit(call)

    async def before_tool(self, call: ToolCall) -> None:
        """Count a tool call against the limits in tool calls. Raises as `before_model`."""
        if any(limit.unit == "tool_calls" for limit in self.limits):
            await self._admit(call)

    async def after_model(self, call: ModelCall, made: Made) -> None:
        """Write what the call came to. A call that failed without reaching a model costs nothing."""
        held: Held | None = call.held.pop(id(self), None)
        if held is None:
            return
        if made == "not made" or (made == "failed" and _cost_nothing(call)):
            await self._give_back(call, held)
            return
        if not held.reserved:
            held.shares = await self._shares_later(call)
        bill = bill_of(call, held, made, prices=self.prices, flat=self._flat())
        await self._settle(call, held.shares, bill.entry, bill.used)

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        """Write the tool call, unless it was not made."""
        held: Held | None = call.held.pop(id(self), None)
        if held is None:
            return
        if made == "not made":
            await self._give_back(call, held)
            return
        if not held.reserved:
            held.shares = await self._shares_later(call)
        spent = {share.account: int(share.counts) for share in held.shares}
        entry = Entry("tool", call.name, spent=spent, detail={"node": call.site.node, "outcome": made})
        await self._settle(call, held.shares, entry, {"tool_calls": 1})

    async def standing(self, ports: Ports, site: CallSite) -> list[Standing]:
        """How all limits stand for a caller."""
        return await standing_of(self.limits, ports, site)

    async def grant(self, ports: Ports, site: CallSite, limit: Limit, amount: float, *, by: str = "") -> None:
        """Let a caller spend more in the present window: an entry that takes back so much of what was spent."""
        await grant(limit, ports, site, amount, by=by, budget=self.name)

    async def self_test(self, ports: Ports, *, models: Sequence[str] = ()) -> list[str]:
        """What does not work, in sentences; nothing if all is well. For the start of a server (`budget_self_test`)."""
        return await self_test(ports, self.limits, self.prices, models=models)

    async def _admit(self, call: AnyCall) -> None:
        place = self._asking.place(call) if self._asks else None
        asked = [] if place is None else await self._answers_again(call, place)
        deadline, pause = monotonic() + self._wait_s, _POLL_S
        while (refused := await self._try(call)) is not None:
            share, may_fit_later, now = refused
            if may_fit_later and monotonic() < deadline:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 1.5, 1.0)
                continue
            if share.limit.on_limit != "interrupt" or place is None:
                raise exceeded(share.limit, now)
            asked.append(self.limits.index(share.limit))
            await self._asking.note(place, asked, call.ports)
            await self._ask(call, place, share.limit, number=len(asked) - 1)

    async def _answers_again(self, call: AnyCall, place: str) -> list[int]:
        """What was asked when the node ran before is asked again, in the same order."""
        try:
            asked = await self._asking.asked_before(place, call.ports)
        except Exception as error:
            log.warning("the shared state does not answer; who was asked for more is not known", exc_info=error)
            return []
        for number, limit in enumerate(asked):
            await self._ask(call, place, self.limits[limit], number=number)
        return asked

    async def _ask(self, call: AnyCall, place: str, limit: Limit, *, number: int) -> None:
        answer = await self._asking.ask(limit, call, place, number=number)
        if answer.amount <= 0:
            raise exceeded(limit, await call.ports.ledger.now(), refused=True, why=answer.why)

    async def _try(self, call: AnyCall) -> tuple[Share, bool, datetime] | None:
        """Set aside what the call may come to; else the share that does not fit, and whether it may later."""
        expected = _NOTHING
        try:
            if isinstance(call, ModelCall):
                expected = await self._estimate(call)
            now = await call.ports.ledger.now()
            shares = shares_of(self.limits, call, None if isinstance(call, ToolCall) else expected, now)
            outcome = await self._reserve(call, shares)
        except GuardError:
            raise
        except Exception as error:
            self._without_ledger(error)
            call.held[id(self)] = Held(expected, reserved=False, degraded=degraded.get())
            return None
        if isinstance(outcome, Refusal):
            return _refused(shares, outcome, now)
        count(call, shares)
        call.held[id(self)] = Held(expected, shares, degraded=degraded.get())
        return None

    async def _reserve(self, call: AnyCall, shares: Sequence[Share]) -> Refusal | Sequence[Balance]:
        key, ledger = self._key(call), call.ports.ledger
        try:
            return await ledger.reserve(key, call.site, [share.hold for share in shares], ttl_s=HOLD_S)
        except asyncio.CancelledError:
            # Nobody knows whether it was set aside before the cancellation came.
            await self._writing.write(ledger, f"release {key}", lambda ledger: ledger.release(key))
            raise

    async def _estimate(self, call: ModelCall) -> Estimate:
        expected = estimate(
            self.prices,
            model=call.model,
            provider=call.provider,
            prompt_tokens=input_tokens(call.messages, call.params),
            max_tokens=call.max_tokens,
            ratio=await call.ports.ledger.ratio(call.site.tenant, call.model),
            flat=self._flat(),
        )
        if expected.nano_usd is None and any(one.unit == "usd" and one.unpriced == "deny" for one in self.limits):
            raise PriceUnknown(f"nobody knows what {call.model or 'this model'} costs, and its budget is in dollars")
        return expected

    async def _shares_later(self, call: AnyCall) -> Sequence[Share]:
        """The shares of a call that went on without its ledger, if it is back now."""
        try:
            now = await call.ports.ledger.now()
        except Exception as error:
            log.warning("the budget's ledger does not answer; a call is not counted", exc_info=error)
            return ()
        shares = shares_of(self.limits, call, None, now)
        count(call, shares)
        return shares

    async def _settle(self, call: AnyCall, shares: Sequence[Share], entry: Entry, used: Mapping[Unit, int]) -> None:
        key, site = self._key(call), call.site
        balances = await self._writing.write(
            call.ports.ledger, (key, entry), lambda ledger: ledger.settle(key, site, entry)
        )
        after = {balance.account: balance.spent for balance in balances or ()}
        for share in shares:
            if share.account in after:
                spent = spent_after(call, share, after[share.account], used.get(share.limit.unit, 0))
                await self._alerts.look(share.limit, site, Balance(share.account, spent, 0), call.ports)

    async def _give_back(self, call: AnyCall, held: Held) -> None:
        uncount(call, held.shares)
        if held.reserved:
            key = self._key(call)
            await self._writing.write(call.ports.ledger, f"release {key}", lambda ledger: ledger.release(key))

    def _key(self, call: AnyCall) -> str:
        return f"{call.id}/{self.name}"

    def _flat(self) -> Rates | None:
        return next((limit.unpriced for limit in self.limits if not isinstance(limit.unpriced, str)), None)

    def _without_ledger(self, error: Exception) -> None:
        if not self._fails_open:
            raise GuardUnavailable("the budget's ledger does not answer, and the budget fails closed") from error
        log.warning("the budget's ledger does not answer; the call goes on without it", exc_info=error)


def _cost_nothing(call: ModelCall) -> bool:
    if call.streamed_chunks or call.usage is not None:
        return False
    return call.error is None or classify(call.error).billed == "no"


def _refused(shares: Sequence[Share], refusal: Refusal, now: datetime) -> tuple[Share, bool, datetime]:
    """The share that does not fit, and whether it is only open calls that stand in its way."""
    share = next(one for one in shares if one.hold == refusal.hold)
    return share, refusal.balance.spent + share.needs <= share.size, now
