"""Where a budget's limits are counted, what a call sets aside there, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from time import monotonic
from typing import Final, cast

from waystation_guards.budget.estimates import Estimate, completed_usage
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.budget.windows import window_end, window_label
from waystation_guards.calls import CallSite
from waystation_guards.errors import BudgetDegrades, BudgetExceeded
from waystation_guards.ports import Account, Entry, Hold, Unit
from waystation_guards.providers.errors import classify
from waystation_guards.watching.calls import Made, ModelCall, ToolCall

_WORST_SECONDS: Final = 60
_SHARED: Final = -1
"""Where a call keeps which accounts budgets have set something aside on. No object has this id."""

AnyCall = ModelCall | ToolCall

degraded: ContextVar[bool] = ContextVar("waystation_guards_degraded", default=False)
"""Whether the calls made here are of the cheaper model that a limit degrades to."""


@dataclass(frozen=True, slots=True)
class Share:
    """A limit's part in a call. `counts`: this budget counts the call on the account; else another one does.

    `needs` and `size`: what the call is expected to come to, and what it has to fit, in the ledger's integers.
    """

    limit: Limit
    account: Account
    hold: Hold
    needs: int
    size: int
    counts: bool = True


@dataclass(slots=True)
class Held:
    """What a budget keeps about an open call. `reserved`: False where the ledger was away and the call went on."""

    estimate: Estimate
    shares: Sequence[Share] = ()
    reserved: bool = True
    degraded: bool = False


@dataclass(slots=True)
class Counted:
    """The holds on the accounts that a call is counted on, by whichever budget; and where it is written already."""

    by_account: dict[Account, Hold] = field(default_factory=dict[Account, Hold])
    written: set[Account] = field(default_factory=set[Account])


def owner_of(limit: Limit, site: CallSite) -> str:
    """Whose account it is. Where a program names no thread or run, the run it is in is meant."""
    owner = str(getattr(site, limit.scope))
    return owner or (f"run {site.run}" if limit.scope == "thread" else owner)


def account_of(limit: Limit, site: CallSite, now: datetime) -> Account:
    """The account that a limit counts on for a caller, at a moment of the ledger's clock."""
    name = f"{limit.scope}/{limit.name}" if limit.name else limit.scope
    return Account(
        site.tenant, name, owner_of(limit, site), limit.unit, window_label(limit.window, now, limit.timezone)
    )


def shares_of(limits: Sequence[Limit], call: AnyCall, estimate: Estimate | None, now: datetime) -> list[Share]:
    """The parts of a call's limits, those that only degrade last: what stops a call goes first.

    What another budget counts already is checked against this limit without being counted twice: the account's state
    includes that hold, so the limit is moved by it.
    """
    counted = _counted(call)
    is_tool = isinstance(call, ToolCall)
    shares: list[Share] = []
    for limit in sorted(limits, key=lambda one: one.on_limit == "degrade"):
        if (limit.unit == "tool_calls") != is_tool:
            continue
        account = account_of(limit, call.site, now)
        hold = _hold(limit, account, estimate)
        other = counted.by_account.get(account)
        if other is None:
            shares.append(Share(limit, account, hold, hold.amount, hold.limit))
        else:
            moved = hold.limit + max(other.amount, other.worst) - hold.amount
            shares.append(Share(limit, account, Hold(account, 0, moved), hold.amount, hold.limit, counts=False))
    return shares


def count(call: AnyCall, shares: Sequence[Share]) -> None:
    """Remember what was set aside, for budgets that are asked later."""
    _counted(call).by_account.update({share.account: share.hold for share in shares if share.counts})


def uncount(call: AnyCall, shares: Sequence[Share]) -> None:
    """Forget it: it was given back."""
    for share in shares:
        if share.counts:
            _counted(call).by_account.pop(share.account, None)


def spent_after(call: AnyCall, share: Share, spent: int, used: int) -> int:
    """What is spent on a share's account with this call, whether the budget that counts it has written it or not."""
    counted = _counted(call)
    if share.counts:
        counted.written.add(share.account)
    return spent if share.counts or share.account in counted.written else spent + used


def _counted(call: AnyCall) -> Counted:
    return cast("Counted", call.held.setdefault(_SHARED, Counted()))


@dataclass(frozen=True, slots=True)
class Bill:
    """What a model call came to: the ledger's entry, and what it is in each unit."""

    entry: Entry
    used: Mapping[Unit, int]


def bill_of(call: ModelCall, held: Held, made: Made, *, prices: Prices, flat: Rates | None) -> Bill:
    """What a call came to, by what its provider says or by what was counted; what was expected, if it was lost."""
    usage, counted = completed_usage(
        call.usage,
        held.estimate.input_tokens,
        chunks=held.estimate.output_tokens if _is_lost(call, made) else call.streamed_chunks,
        chars=max(call.streamed_chars, call.answered_chars),
    )
    price = prices.cost(call.model, usage, provider=call.provider or None)
    cost = price.nano_usd if price else flat.nano_usd(usage) if flat else None
    milliseconds = ceil((monotonic() - call.began) * 1000)
    used: dict[Unit, int] = {
        "usd": cost or 0,
        "tokens": int(usage.get("total_tokens") or 0),
        "model_calls": 1,
        "tool_calls": 0,
        "seconds": milliseconds,
    }
    entry = Entry(
        "model",
        call.model,
        cost_nano_usd=cost,
        # Nothing is learned of calls that broke off: they say how long the provider lasted, not what answers cost.
        estimate_nano_usd=held.estimate.plain_nano_usd if made == "made" else None,
        price_version=price.version if price else "flat" if flat else "",
        usage=usage,
        spent={share.account: used[share.limit.unit] if share.counts else 0 for share in held.shares},
        detail={
            "node": call.site.node,
            "provider": call.provider,
            "outcome": made,
            "milliseconds": milliseconds,
            **({"counted": list(counted)} if counted else {}),
            **({"unpriced": True} if cost is None else {}),
            **({"degraded": True} if held.degraded else {}),
            **({} if held.reserved else {"without_hold": True}),
        },
    )
    return Bill(entry, used)


def _is_lost(call: ModelCall, made: Made) -> bool:
    """Whether a whole answer was made that nobody has seen."""
    if made != "failed" or call.error is None or call.streamed_chunks or call.usage is not None:
        return False
    return classify(call.error).billed == "answer"


def exceeded(limit: Limit, now: datetime, *, refused: bool = False, why: str = "") -> BudgetExceeded:
    """The refusal. `refused`: a human was asked for more and said no, `why` if it was not understood."""
    end = window_end(limit.window, now, limit.timezone)
    again = "" if end is None else f"; there is more from {end:%Y-%m-%d %H:%M} UTC"
    said = f", and no more was granted{f' ({why})' if why else ''}" if refused else ""
    kind = BudgetDegrades if limit.on_limit == "degrade" and not degraded.get() else BudgetExceeded
    return kind(
        f"the budget of {limit.text} is spent{said}{again}",
        limit=limit,
        retry_after_s=None if end is None else max(0.0, (end - now).total_seconds()),
        ends_run=refused or limit.on_limit == "end",
    )


def _hold(limit: Limit, account: Account, expected: Estimate | None) -> Hold:
    size = limit.in_units if degraded.get() else limit.degrades_in_units
    if expected is None:
        return Hold(account, 1, size, worst=1)
    second = limit.unit_size
    amount, worst = {
        "usd": (expected.nano_usd or 0, expected.worst_nano_usd or 0),
        "tokens": (expected.tokens, expected.worst_tokens),
        "seconds": (second, _WORST_SECONDS * second),
    }.get(limit.unit, (1, 1))
    return Hold(account, amount, size, worst=worst)
