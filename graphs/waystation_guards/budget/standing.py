"""How a budget's limits stand for a caller, and what is granted beyond them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from waystation_guards.budget.accounts import account_of
from waystation_guards.budget.limits import Limit
from waystation_guards.calls import CallSite
from waystation_guards.ports import Entry, Ports


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands for a caller, in the limit's own unit. `held`: what open calls are expected to come to."""

    limit: Limit
    spent: float
    held: float

    @property
    def left(self) -> float:
        return max(0.0, self.limit.size - self.spent)


async def standing_of(limits: Sequence[Limit], ports: Ports, site: CallSite) -> list[Standing]:
    """How all limits stand for a caller, now."""
    now = await ports.ledger.now()
    balances = await ports.ledger.balances([account_of(limit, site, now) for limit in limits])
    return [
        Standing(limit, balance.spent / limit.unit_size, balance.held / limit.unit_size)
        for limit, balance in zip(limits, balances, strict=True)
    ]


async def grant(limit: Limit, ports: Ports, site: CallSite, amount: float, *, by: str, budget: str) -> None:
    """Let a caller spend more in the present window: an entry that takes back so much of what was spent."""
    account = account_of(limit, site, await ports.ledger.now())
    detail = {"granted": amount, "unit": limit.unit, "granted_by": by}
    entry = Entry("correction", spent={account: -limit.units_of(amount)}, detail=detail)
    await ports.ledger.settle(f"grant-{random.getrandbits(128):032x}/{budget}", site, entry)
