"""Budgets: what runs, threads, users, keys, assistants and tenants may spend, in dollars, tokens, calls or seconds.

    budget = Budget(Limit(5, scope="user", window="day", timezone="Europe/Berlin"), Limit(0.5, scope="run"))
    await graph.ainvoke(input, watched(config, [budget]))

    before a call:  expected and worst cost ─▶ one atomic reserve over the accounts of all limits ─▶ the call, or
                    BudgetExceeded; where only open calls stand in the way, it waits for them
    after it:       what the provider says it was (or what was counted) ─▶ one entry in the ledger, holds given back

A limit is passed by at most one call's estimation error, however many calls run in parallel (`ports.Hold`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from math import ceil
from time import monotonic
from typing import Final, TypeVar

from waystation_guards.budget_alerts import Alert, alerts_of
from waystation_guards.calls import CallSite
from waystation_guards.errors import BudgetExceeded, GuardError, GuardUnavailable, PriceUnknown
from waystation_guards.estimates import Estimate, counted_usage, estimate, input_tokens
from waystation_guards.limits import Limit
from waystation_guards.ports import Account, Balance, Entry, Hold, Ports, Refusal
from waystation_guards.pricing import Prices, Rates
from waystation_guards.provider_errors import Billed, classify
from waystation_guards.watching import Made, ModelCall, ToolCall
from waystation_guards.windows import window_end, window_label

log = logging.getLogger(__name__)

HOLD_S: Final = 900.0
"""How long a hold lives whose call is never heard of again."""

_POLL_S: Final = 0.05
_WORST_SECONDS: Final = 60
_RETRIES_S: Final = (0.2, 1.0, 3.0)

T = TypeVar("T")


@dataclass(slots=True)
class _Held:
    """What a budget keeps about an open call."""

    estimate: Estimate
    accounts: tuple[tuple[Limit, Account], ...]
    reserved: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands for a caller, in the limit's own unit."""

    limit: Limit
    spent: float
    held: float

    @property
    def left(self) -> float:
        return max(0.0, self.limit.size - self.spent)


class Budget:
    """A guard (`watching.Guard`) over some limits, all of which a call has to fit."""

    def __init__(
        self,
        *limits: Limit,
        prices: Prices | None = None,
        wait_s: float = 30.0,
        on_alert: Callable[[Alert], None] | None = None,
        name: str = "",
    ) -> None:
        """`wait_s`: how long a call waits for open ones to be settled. `on_alert`: told once for each threshold of a
        limit that is passed, by whichever process passes it. `name`: stable, for the ledger; made of the limits if
        there is none, so that two budgets with the same limits count a call once."""
        if not limits:
            raise ValueError("a budget needs at least one limit")
        self.limits = limits
        self.prices = prices or Prices()
        self._wait_s = wait_s
        self._on_alert = on_alert
        self.name = name or sha256(repr(limits).encode()).hexdigest()[:8]
        self._fails_open = all(limit.fail == "open" for limit in limits)

    async def before_model(self, call: ModelCall) -> None:
        """Set aside what the call may come to.

        Raises:
            BudgetExceeded: it might pass a limit.
            PriceUnknown: the model has no price, and a limit in dollars asks for one.
            GuardUnavailable: the ledger is away, and a limit fails closed.
        """
        try:
            expected = await self._estimate(call)
            accounts = await self._accounts(call.ports, call.site, tool=False)
            holds = [_hold(limit, account, expected) for limit, account in accounts]
            await self._reserve(self._key(call), call.site, call.ports, accounts, holds)
        except GuardError:
            raise
        except Exception as error:
            self._without_ledger(error)
            call.held[id(self)] = _Held(Estimate(0, 0, 0, None, None), (), reserved=False)
            return
        call.held[id(self)] = _Held(expected, tuple(accounts))

    async def after_model(self, call: ModelCall, made: Made) -> None:
        """Write what the call came to: what the provider says, or what was counted where it had no time to say it.

        A call that failed before it was answered costs nothing, one whose answer was lost what was expected.
        """
        held: _Held | None = call.held.pop(id(self), None)
        if held is None:
            return
        billed = _billed(call, made)
        if billed == "no":
            if held.reserved:
                await _insist(lambda: call.ports.ledger.release(self._key(call)))
            return
        entry = self._entry(call, held, made, is_lost=billed == "answer")
        balances = await _insist(lambda: call.ports.ledger.settle(self._key(call), call.site, entry))
        if balances is not None:
            self._alert(call.site, held.accounts, entry, balances)

    async def before_tool(self, call: ToolCall) -> None:
        """Count a tool call against the limits in tool calls. Raises as `before_model`."""
        try:
            accounts = await self._accounts(call.ports, call.site, tool=True)
            if not accounts:
                return
            holds = [Hold(account, 1, limit.in_units, worst=1) for limit, account in accounts]
            await self._reserve(self._key(call), call.site, call.ports, accounts, holds)
        except GuardError:
            raise
        except Exception as error:
            self._without_ledger(error)
            return
        call.held[id(self)] = _Held(Estimate(0, 0, 0, None, None), tuple(accounts))

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        """Write the tool call, unless it was not made."""
        held: _Held | None = call.held.pop(id(self), None)
        if held is None:
            return
        if made == "not made":
            await _insist(lambda: call.ports.ledger.release(self._key(call)))
            return
        spent = {account: 1 for _, account in held.accounts}
        entry = Entry("tool", call.name, spent=spent, detail={"node": call.site.node, "outcome": made})
        balances = await _insist(lambda: call.ports.ledger.settle(self._key(call), call.site, entry))
        if balances is not None:
            self._alert(call.site, held.accounts, entry, balances)

    async def standing(self, ports: Ports, site: CallSite) -> list[Standing]:
        """How all limits stand for a caller."""
        now = await ports.ledger.now()
        accounts = [_account(limit, site, now) for limit in self.limits]
        balances = await ports.ledger.balances(accounts)
        return [
            Standing(limit, balance.spent / limit.unit_size, balance.held / limit.unit_size)
            for limit, balance in zip(self.limits, balances, strict=True)
        ]

    async def grant(self, ports: Ports, site: CallSite, limit: Limit, amount: float, *, by: str = "") -> None:
        """Let a caller spend more in the present window: an entry that takes back so much of what was spent."""
        now = await ports.ledger.now()
        account = _account(limit, site, now)
        entry = Entry("correction", spent={account: -limit.units_of(amount)}, detail={"granted_by": by})
        await ports.ledger.settle(f"grant-{random.getrandbits(128):032x}", site, entry)

    async def _estimate(self, call: ModelCall) -> Estimate:
        flat = self._flat()
        expected = estimate(
            self.prices,
            model=call.model,
            provider=call.provider,
            prompt_tokens=input_tokens(call.messages, call.params),
            max_tokens=call.max_tokens,
            ratio=await call.ports.ledger.ratio(call.site.tenant, call.model),
            flat=flat,
        )
        if expected.nano_usd is None and any(one.unit == "usd" and one.unpriced == "deny" for one in self.limits):
            raise PriceUnknown(f"nobody knows what {call.model or 'this model'} costs, and its budget is in dollars")
        return expected

    async def _accounts(self, ports: Ports, site: CallSite, *, tool: bool) -> list[tuple[Limit, Account]]:
        now = await ports.ledger.now()
        return [(limit, _account(limit, site, now)) for limit in self.limits if (limit.unit == "tool_calls") == tool]

    async def _reserve(
        self,
        call: str,
        site: CallSite,
        ports: Ports,
        accounts: Sequence[tuple[Limit, Account]],
        holds: Sequence[Hold],
    ) -> None:
        deadline, pause = monotonic() + self._wait_s, _POLL_S
        while True:
            outcome = await ports.ledger.reserve(call, site, holds, ttl_s=HOLD_S)
            if not isinstance(outcome, Refusal):
                return
            if not outcome.may_fit_later or monotonic() >= deadline:
                limit = next(limit for limit, account in accounts if account == outcome.hold.account)
                raise await _exceeded(limit, ports)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.5, 1.0)

    def _entry(self, call: ModelCall, held: _Held, made: Made, *, is_lost: bool) -> Entry:
        chunks = held.estimate.output_tokens if is_lost else call.streamed_chunks
        usage = call.usage or counted_usage(
            held.estimate.input_tokens, chunks=chunks, chars=max(call.streamed_chars, call.answered_chars)
        )
        price = self.prices.cost(call.model, usage, provider=call.provider or None)
        flat = self._flat()
        cost = price.nano_usd if price else flat.nano_usd(usage) if flat else None
        seconds = ceil((monotonic() - call.began) * 1000)
        used = {
            "usd": cost or 0,
            "tokens": int(usage.get("total_tokens") or 0),
            "model_calls": 1,
            "tool_calls": 0,
            "seconds": seconds,
        }
        return Entry(
            "model",
            call.model,
            cost_nano_usd=cost,
            # Nothing is to be learned of calls that were broken off.
            estimate_nano_usd=held.estimate.plain_nano_usd if made == "made" else None,
            price_version=price.version if price else "flat" if flat else "",
            usage=usage,
            spent={account: used[account.unit] for _, account in held.accounts},
            detail={
                "node": call.site.node,
                "provider": call.provider,
                "outcome": made,
                "milliseconds": seconds,
                **({} if call.usage else {"counted": True}),
                **({} if cost is not None else {"unpriced": True}),
            },
        )

    def _alert(
        self, site: CallSite, accounts: Sequence[tuple[Limit, Account]], entry: Entry, balances: Sequence[Balance]
    ) -> None:
        after = {balance.account: balance for balance in balances}
        for limit, account in accounts:
            if account not in after:  # another settled this call, and hears of it
                continue
            for alert in alerts_of(limit, site, after[account], added=entry.spent[account]):
                log.warning("budget: %s", alert.text)
                if self._on_alert is not None:
                    self._on_alert(alert)

    def _key(self, call: ModelCall | ToolCall) -> str:
        return f"{call.id}/{self.name}"

    def _flat(self) -> Rates | None:
        return next((limit.unpriced for limit in self.limits if not isinstance(limit.unpriced, str)), None)

    def _without_ledger(self, error: Exception) -> None:
        if not self._fails_open:
            raise GuardUnavailable("the budget's ledger does not answer, and the budget fails closed") from error
        log.warning("the budget's ledger does not answer; the call goes on without it", exc_info=error)


def _billed(call: ModelCall, made: Made) -> Billed | None:
    """What of a call that told no usage is to be paid; None where what is known of it is all."""
    if made == "not made":
        return "no"
    if made != "failed" or call.streamed_chunks or call.usage is not None or call.error is None:
        return None
    return classify(call.error).billed


async def _insist(work: Callable[[], Awaitable[T]]) -> T | None:
    """Write to the ledger, again where it does not answer. What cannot be written in the end is in the log."""
    for pause in (*_RETRIES_S, None):
        try:
            return await work()
        except Exception as error:
            if pause is None:
                log.exception("the budget's ledger does not answer; an entry is missing in it")
                return None
            log.warning("the budget's ledger does not answer, trying again", exc_info=error)
            await asyncio.sleep(pause)
    return None


def _account(limit: Limit, site: CallSite, now: datetime) -> Account:
    owner = site.tenant if limit.scope == "tenant" else str(getattr(site, limit.scope))
    name = f"{limit.scope}/{limit.name}" if limit.name else limit.scope
    return Account(site.tenant, name, owner, limit.unit, window_label(limit.window, now, limit.timezone))


def _hold(limit: Limit, account: Account, expected: Estimate) -> Hold:
    amount, worst = {
        "usd": (expected.nano_usd or 0, expected.worst_nano_usd or 0),
        "tokens": (expected.tokens, expected.worst_tokens),
        "seconds": (1000, _WORST_SECONDS * 1000),
    }.get(limit.unit, (1, 1))
    return Hold(account, amount, limit.in_units, worst=worst)


async def _exceeded(limit: Limit, ports: Ports) -> BudgetExceeded:
    end = window_end(limit.window, now := await ports.ledger.now(), limit.timezone)
    again = "" if end is None else f"; there is more from {end:%Y-%m-%d %H:%M} UTC"
    return BudgetExceeded(
        f"the budget of {limit.text} is spent{again}",
        limit=limit,
        retry_after_s=None if end is None else max(0.0, (end - now).total_seconds()),
    )
