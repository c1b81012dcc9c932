"""A budget's self-test at the start of a server: on an account of its own, through the very ports that calls will use.

    reserve ─▶ a second one is refused ─▶ release ─▶ reserve again ─▶ settle once, not twice; prices resolve; clock sane

It leaves one entry without cost in the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.windows import window_end, window_start
from waystation_guards.calls import CallSite
from waystation_guards.ports import Account, Entry, Hold, Ledger, Ports, Refusal

_FROM: Final = datetime(2024, 1, 1, tzinfo=UTC)
_MILLION: Final = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "total_tokens": 2_000_000}
_TTL_S: Final = 60.0


async def self_test(ports: Ports, limits: Sequence[Limit], prices: Prices, *, models: Sequence[str] = ()) -> list[str]:
    """What does not work, in sentences. `models`, as `provider:name` or by name, are those that are to have prices.

    Does not raise, except when it is cancelled.
    """
    found = [problem async for problem in _ledger(ports)]
    found += [problem async for problem in _clock(ports.ledger, limits)]
    return [*found, *_prices(limits, prices, models)]


async def _ledger(ports: Ports) -> AsyncIterator[str]:
    try:
        for problem in await _sequence(ports.ledger, ports.tenant or "default"):
            yield problem
    except Exception as error:  # whatever a store raises is what is to be told
        yield f"the ledger does not answer: {type(error).__name__}: {error}"


async def _sequence(ledger: Ledger, tenant: str) -> list[str]:
    name = uuid4().hex
    account = Account(tenant, "self-test", name, "model_calls")
    site = CallSite(tenant=tenant, run=name, node="self-test")
    wrong: list[str] = []
    hold = Hold(account, 1, 1, worst=1)
    if isinstance(await ledger.reserve(f"{name}-a/self-test", site, [hold], ttl_s=_TTL_S), Refusal):
        wrong.append("the ledger refused what fits")
    if not isinstance(await ledger.reserve(f"{name}-b/self-test", site, [hold], ttl_s=_TTL_S), Refusal):
        wrong.append("the ledger let through what does not fit")
        await ledger.release(f"{name}-b/self-test")
    await ledger.release(f"{name}-a/self-test")
    if isinstance(await ledger.reserve(f"{name}-c/self-test", site, [hold], ttl_s=_TTL_S), Refusal):
        wrong.append("the ledger did not give back what was released")
    entry = Entry("correction", spent={account: 1}, detail={"self_test": True})
    first = await ledger.settle(f"{name}-c/self-test", site, entry)
    if await ledger.settle(f"{name}-c/self-test", site, entry) or not first:
        wrong.append("the ledger does not settle a call exactly once")
    (balance,) = await ledger.balances([account])
    if (balance.spent, balance.held, balance.at_risk) != (1, 0, 0):
        wrong.append(f"the ledger's balance is {balance.spent} spent and {balance.held} held, not 1 and 0")
    return wrong


async def _clock(ledger: Ledger, limits: Sequence[Limit]) -> AsyncIterator[str]:
    try:
        now, later = await ledger.now(), await ledger.now()
    except Exception as error:  # as above
        yield f"the ledger's clock does not answer: {type(error).__name__}: {error}"
        return
    if now.tzinfo is None or now.utcoffset() != timedelta(0):
        yield f"the ledger's clock is not in UTC: {now.isoformat()}"
        return
    if now < _FROM:
        yield f"the ledger's clock is wrong: {now.isoformat()}"
    if later < now:
        yield "the ledger's clock goes backwards"
    for limit in limits:
        start, end = window_start(limit.window, now, limit.timezone), window_end(limit.window, now, limit.timezone)
        if start is not None and end is not None and not start <= now < end:
            yield f"{limit.text}: the present moment is not in its window, {start.isoformat()} to {end.isoformat()}"


def _prices(limits: Sequence[Limit], prices: Prices, models: Sequence[str]) -> list[str]:
    denying = [limit for limit in limits if limit.unit == "usd" and limit.unpriced == "deny"]
    if not denying:
        return []
    wrong: list[str] = []
    for model in models:
        provider, _, name = model.rpartition(":")
        if prices.cost(name, _MILLION, provider=provider or None) is None:
            wrong.append(f"{model} has no price, and {denying[0].text} denies it")
    if not models and not prices.own and prices.cost("gpt-4o-mini", _MILLION, provider="openai") is None:
        wrong.append("the price list is empty")
    return wrong
