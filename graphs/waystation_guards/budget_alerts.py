"""Which thresholds of a limit an entry passed.

Each entry is written in one atomic step that tells the balance after it, so each threshold is passed by exactly one
entry, in whichever process.
"""

from __future__ import annotations

from dataclasses import dataclass

from waystation_guards.calls import CallSite
from waystation_guards.limits import Limit
from waystation_guards.ports import Balance


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold was passed. `spent` is in the limit's unit."""

    limit: Limit
    site: CallSite
    owner: str
    part: float
    spent: float

    @property
    def text(self) -> str:
        return f"{self.part:.0%} of {self.limit.text} are spent ({self.owner or 'all'}: {self.spent:g})"


def alerts_of(limit: Limit, site: CallSite, after: Balance, *, added: int) -> list[Alert]:
    """The alerts of an entry that added so much and left this balance."""
    before = after.spent - added
    size = limit.in_units
    return [
        Alert(limit, site, after.account.owner, part, after.spent / limit.unit_size)
        for part in limit.alerts
        if before < part * size <= after.spent
    ]
