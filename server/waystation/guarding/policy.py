"""A project's policy (`waystation.guards`), made into guards for a run: which entries are about it, and what they are.

    run ─▶ Whose (graph, assistant, tenant, user, key) ─▶ entries whose `for` matches ─▶ Applied: the guards, in order

Guards keep what they know of a process (who waits in which line), so that runs with the same entries share them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from waystation.catalog.keys_guards import GuardKeys, faq_of, prices_of
from waystation.catalog.keys_guards_for import Entry
from waystation.guarding.policy_levels import REDUCED, Levels, open_levels
from waystation.guarding.policy_models import ModelParts, count_hit
from waystation.guarding.whose import Whose
from waystation_db.pool import Database
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices
from waystation_guards.caching.tools import ToolCache, ToolRule
from waystation_guards.calls import CallSite
from waystation_guards.caps.caps import CapGuard
from waystation_guards.levels.answering import LIMITED, Known
from waystation_guards.levels.levels import LevelStanding
from waystation_guards.model_layer import Layer, install, layered
from waystation_guards.permissions.permissions import ToolGuard
from waystation_guards.ports import Ports
from waystation_guards.rates.guard import RateLimit
from waystation_guards.screening.guard import ScreenGuard
from waystation_guards.screening.screening import Screening
from waystation_guards.tool_layer import install as install_for_tools
from waystation_guards.tool_layer import remembered
from waystation_guards.watching.watcher import Guard

_REMEMBERED: Final = 10_000
"""Callers whose entries are known; tenants, users and keys are many, combinations of entries few."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The guards of some runs, in the order in which they are asked. `budget` is one of them, if there is any. `layer`
    is for their models, `steps` how many supersteps they may have, `results` keeps what their tools said."""

    guards: tuple[Guard, ...]
    budget: Budget | None = None
    layer: Layer | None = None
    steps: int | None = None
    results: ToolCache | None = None

    @property
    def ends_runs(self) -> bool:
        """A refusal may end the run with a message instead of an error."""
        return self.budget is not None and self.budget.ends_runs

    @contextmanager
    def over_calls(self) -> Generator[None]:
        """Put what answers in the place of models and tools over all calls in this context."""
        with layered(self.layer), ExitStack() as stack:
            if self.results is not None:
                stack.enter_context(remembered(self.results))
            yield


class Policy:
    """The policy of a process. Asked on the graph loop."""

    def __init__(self, keys: GuardKeys, root: Path, *, db: Database) -> None:
        """Raises ConfigError: the price list cannot be read, or a model cannot be made."""
        self.keys = keys
        self.prices: Prices = prices_of(keys, root)
        self.models = ModelParts(keys, self.prices)
        self.levels: Levels | None = None if keys.levels is None else open_levels(keys.levels, db, self._budget_of_site)
        self.minimal: Known | None = _minimal(keys, root, self.levels)
        if not self.models.is_empty:
            install()
        if keys.tool_cache:
            install_for_tools()
        self._by_run: dict[Whose, Applied] = {}
        self._by_entries: dict[tuple[Any, ...], Applied] = {}

    def of(self, whose: Whose) -> Applied:
        """The guards of a run."""
        known = self._by_run.get(whose)
        if known is None:
            if len(self._by_run) >= _REMEMBERED:
                self._by_run.clear()
            known = self._by_run[whose] = self._applied(whose)
        return known

    async def self_test(self, ports: Ports) -> list[str]:
        """What of the budgets does not work, in sentences; nothing for a policy without any."""
        found = limits(self.keys.budgets)
        return await Budget(*found, prices=self.prices).self_test(ports) if found else []

    @property
    def fails_open(self) -> bool:
        """Calls go on while the ledger is away, for all budgets."""
        return all(entry.settings.fail == "open" for entry in self.keys.budgets)

    def site_of(self, whose: Whose, *, thread: str = "") -> CallSite:
        """A caller as guards see them, before there is a run."""
        return replace(_site(whose), thread=thread)

    async def level(self, ports: Ports, whose: Whose) -> LevelStanding | None:
        """The level that holds for a caller; None without levels. Does not raise."""
        return None if self.levels is None else await self.levels.level(ports, _site(whose))

    def _applied(self, whose: Whose) -> Applied:
        keys = self.keys
        adding = (keys.budgets, keys.rates, keys.permissions, keys.screening, keys.caps)
        choosing = (keys.cache, keys.failover, keys.cheaper)
        which = (
            *(tuple(at for at, entry in enumerate(entries) if is_about(entry, whose)) for entries in adding),
            tuple(most_specific_first(keys.tool_cache, whose)),
            *(most_specific(entries, whose) for entries in choosing),
            None if self.levels is None else self.levels.policy.name_for(_site(whose)),
        )
        known = self._by_entries.get(which)
        if known is None:
            if len(self._by_entries) >= _REMEMBERED:
                self._by_entries.clear()
            known = self._by_entries[which] = self._made(whose)
        return known

    def _made(self, whose: Whose) -> Applied:
        keys = self.keys
        permissions = [ToolGuard(entry.settings) for entry in keys.permissions if is_about(entry, whose)]
        screens = [ScreenGuard(Screening(entry.settings)) for entry in keys.screening if is_about(entry, whose)]
        caps = [entry.settings for entry in keys.caps if is_about(entry, whose)]
        budget = self._budget(limits(entry for entry in keys.budgets if is_about(entry, whose)))
        rates = [entry.settings for entry in keys.rates if is_about(entry, whose)]
        limiter = RateLimit(*rates, wait_s=keys.rates_wait_s, fail=keys.rates_fail) if rates else None
        # Who may not is told so before anything is set aside, and nobody waits in line for what they cannot pay.
        guards: list[Guard | None] = [self.levels, *permissions, *screens, *map(CapGuard, caps), budget, limiter]
        layer = self.models.layer(
            lambda entries: most_specific(entries, whose),
            max_tokens=least(one.output_tokens for one in caps),
            reduced=lambda: self._is_reduced(whose),
            known=self.minimal,
        )
        asked = tuple(guard for guard in guards if guard is not None)
        return Applied(asked, budget, layer, least(one.steps for one in caps), self._results(whose))

    def _results(self, whose: Whose) -> ToolCache | None:
        rules: dict[str, ToolRule] = {}
        for at in most_specific_first(self.keys.tool_cache, whose):
            entry = self.keys.tool_cache[at].settings
            for pattern in entry.tools:
                rules.setdefault(pattern, entry)
        return ToolCache(rules, count_hit, by_graph=True) if rules else None

    def _budget(self, all_limits: Sequence[Limit]) -> Budget | None:
        if not all_limits:
            return None
        return Budget(*all_limits, prices=self.prices, wait_s=self.keys.budget_wait_s)

    def _budget_of_site(self, site: CallSite) -> Budget | None:
        return self.of(Whose(site.graph, site.assistant, site.tenant, site.user, site.key)).budget

    def _is_reduced(self, whose: Whose) -> bool:
        """By the last reading: the guard reads before every call."""
        return self.levels is not None and self.levels.known(_site(whose)).level in REDUCED


def _minimal(keys: GuardKeys, root: Path, levels: Levels | None) -> Known | None:
    if keys.levels is None or levels is None or not levels.answers_at_minimal:
        return None
    return Known(levels, faq_of(keys, root), keys.levels.otherwise or LIMITED)


def _site(whose: Whose) -> CallSite:
    """A caller, before there is a call."""
    return CallSite(tenant=whose.tenant, graph=whose.graph, assistant=whose.assistant, user=whose.user, key=whose.key)


def least(values: Iterable[int | None]) -> int | None:
    """The smallest that is given; None for none."""
    return min((value for value in values if value is not None), default=None)


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


def most_specific(entries: Sequence[Entry[Any]], whose: Whose) -> int | None:
    """The number of the entry that is most specific for a run, of equals the first; None for none."""
    return next(iter(most_specific_first(entries, whose)), None)


def most_specific_first(entries: Sequence[Entry[Any]], whose: Whose) -> list[int]:
    """The numbers of the entries that are about a run, those first that are most about it, of equals the first."""
    found = [at for at, entry in enumerate(entries) if is_about(entry, whose)]
    return sorted(found, key=lambda at: -entries[at].selector.specificity)


def is_about(entry: Entry[Any], whose: Whose) -> bool:
    """Whether an entry holds for a run."""
    return entry.selector.matches(**asdict(whose))
