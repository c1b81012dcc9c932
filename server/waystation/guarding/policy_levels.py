"""The levels of a policy: its rules over breakers, budgets and the queue, and what is told when a level changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from waystation.catalog.keys_guards import LevelKeys
from waystation.telemetry import metrics
from waystation_db.pool import Database
from waystation_db.queue import queue_statistics
from waystation_guards.budget.budget import Budget
from waystation_guards.calls import CallSite
from waystation_guards.levels.levels import LEVELS, Degradation, LevelStanding, Signal
from waystation_guards.levels.signals import breakers_open, budget_spent
from waystation_guards.ports import Ports

REDUCED: Final = frozenset(("reduced", "minimal", "maintenance"))
"""Levels from which on the cheaper model answers."""

_REMEMBERED: Final = 10_000


class Levels(Degradation):
    """Levels whose last reading can be asked for without waiting."""

    def __init__(self, keys: LevelKeys, signals: Mapping[str, Signal]) -> None:
        super().__init__(keys.policy(), signals, on_level=_told, refuse_at=keys.refuse_at)
        self._read_last: dict[str, LevelStanding] = {}

    async def level(self, ports: Ports, site: CallSite) -> LevelStanding:
        """As `Degradation.level`."""
        standing = await super().level(ports, site)
        if len(self._read_last) >= _REMEMBERED:
            self._read_last.clear()
        self._read_last[self.policy.name_for(site)] = standing
        return standing

    def known(self, site: CallSite) -> LevelStanding:
        """The level as it was last read; full before."""
        return self._read_last.get(self.policy.name_for(site)) or LevelStanding()


def open_levels(keys: LevelKeys, db: Database, budget_of: Callable[[CallSite], Budget | None]) -> Levels:
    """The guard of a process. `budget_of` finds what holds for a caller."""

    async def budget(ports: Ports, site: CallSite) -> float:
        found = budget_of(site)
        return 0.0 if found is None else await budget_spent(found)(ports, site)

    async def queue_age_s(_: Ports, __: CallSite) -> float:
        async with db.connection() as conn:
            return (await queue_statistics(conn)).oldest_wait_s or 0.0

    signals: dict[str, Signal] = {"budget": budget, "queue_age_s": queue_age_s}
    if keys.breakers:
        signals["breakers"] = breakers_open(*keys.breakers)
    return Levels(keys, signals)


def _told(_: LevelStanding, now: LevelStanding) -> None:
    metrics.GUARD_LEVEL.set(LEVELS.index(now.level))
