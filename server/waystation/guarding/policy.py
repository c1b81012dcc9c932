"""A project's policy (`waystation.guards`), made into guards for a run: which entries are about it, and what they are.

    run ─▶ Whose (graph, assistant, tenant, user, key) ─▶ entries whose `for` matches ─▶ Applied: the guards, in order

Guards keep what they know of a process (who waits in which line), so that runs with the same entries share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from waystation.catalog.keys_guards import GuardKeys, prices_of
from waystation.catalog.keys_guards_for import Entry
from waystation_guards.budget import Budget
from waystation_guards.budget_alerts import Alert
from waystation_guards.limits import Limit
from waystation_guards.permissions import ToolGuard
from waystation_guards.pricing import Prices
from waystation_guards.rates import RateLimit
from waystation_guards.watching import Guard

T = TypeVar("T")

_REMEMBERED: Final = 10_000
"""Callers whose entries are known; tenants, users and keys are many, combinations of entries few."""


@dataclass(frozen=True, slots=True)
class Whose:
    """What selectors look at."""

    graph: str
    assistant: str
    tenant: str
    user: str
    key: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The guards of some runs, in the order in which they are asked. `budget` is one of them, if there is any."""

    guards: tuple[Guard, ...]
    budget: Budget | None = None


class Policy:
    """The policy of a process. Asked on the graph loop."""

    def __init__(self, keys: GuardKeys, root: Path, *, on_alert: Callable[[Alert], None] | None = None) -> None:
        """Raises ConfigError: the price list cannot be read."""
        self.keys = keys
        self.prices: Prices = prices_of(keys, root)
        self._on_alert = on_alert
        self._by_run: dict[Whose, Applied] = {}
        self._by_entries: dict[tuple[tuple[int, ...], ...], Applied] = {}

    def of(self, whose: Whose) -> Applied:
        """The guards of a run."""
        known = self._by_run.get(whose)
        if known is None:
            if len(self._by_run) >= _REMEMBERED:
                self._by_run.clear()
            known = self._by_run[whose] = self._applied(whose)
        return known

    def limits_of(self, whose: Whose) -> tuple[Limit, ...]:
        """The limits of the budgets that hold for a run."""
        return limits(entry for entry in self.keys.budgets if _is_about(entry, whose))

    def _applied(self, whose: Whose) -> Applied:
        keys = self.keys
        which = tuple(
            tuple(number for number, entry in enumerate(entries) if _is_about(entry, whose))
            for entries in (keys.budgets, keys.rates, keys.permissions)
        )
        known = self._by_entries.get(which)
        if known is None:
            known = self._by_entries[which] = self._made(whose)
        return known

    def _made(self, whose: Whose) -> Applied:
        keys = self.keys
        permissions = [ToolGuard(entry.settings) for entry in keys.permissions if _is_about(entry, whose)]
        budget = self._budget(self.limits_of(whose))
        rates = [entry.settings for entry in keys.rates if _is_about(entry, whose)]
        limiter = RateLimit(*rates, wait_s=keys.rates_wait_s, fail=keys.rates_fail) if rates else None
        # Who may not is told so before anything is set aside, and nobody waits in line for what they cannot pay.
        guards: list[Guard | None] = [*permissions, budget, limiter]
        return Applied(tuple(guard for guard in guards if guard is not None), budget)

    def _budget(self, all_limits: Sequence[Limit]) -> Budget | None:
        if not all_limits:
            return None
        return Budget(*all_limits, prices=self.prices, wait_s=self.keys.budget_wait_s, on_alert=self._on_alert)


def limits(entries: Iterable[Entry[Limit]]) -> tuple[Limit, ...]:
    """The limits of entries. What is counted for some runs only has an account of its own, named after them. Of several
    limits on one account the smallest is left: the others can never be reached before it."""
    smallest: dict[tuple[Any, ...], Limit] = {}
    for entry in entries:
        limit = entry.settings
        if not limit.name and entry.selector.text:
            limit = replace(limit, name=entry.selector.text)
        account = (limit.scope, limit.name, limit.unit, limit.window, limit.timezone)
        if account not in smallest or limit.size < smallest[account].size:
            smallest[account] = limit
    return tuple(smallest.values())


def most_specific(entries: Iterable[Entry[T]], whose: Whose) -> T | None:
    """The settings of the entry that is most specific for a run; of equals the first."""
    found = [entry for entry in entries if _is_about(entry, whose)]
    return max(found, key=lambda entry: entry.selector.specificity).settings if found else None


def _is_about(entry: Entry[Any], whose: Whose) -> bool:
    return entry.selector.matches(**asdict(whose))
