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
from waystation_guards.errors import InMinimal
from waystation_guards.levels.levels import LEVELS, Degradation, LevelStanding, Signal
from waystation_guards.levels.signals import breakers_open, budget_spent
from waystation_guards.model_layer import went_through
from waystation_guards.ports import Ports
from waystation_guards.watching.watcher import ModelCall

REDUCED: Final = frozenset(("reduced", "minimal", "maintenance"))
"""Levels from which on the cheaper model answers."""


class Levels(Degradation):
    """Levels at whose `minimal` no model is called: what can be answered then, the models' layer has answered."""

    def __init__(self, keys: LevelKeys, signals: Mapping[str, Signal]) -> None:
        super().__init__(keys.policy(), signals, on_level=_told, refuse_at=keys.refuse_at)

    @property
    def answers_at_minimal(self) -> bool:
        """Nothing is refused before that level is passed."""
        return LEVELS.index(self.refuse_at) > LEVELS.index("minimal")

    async def before_model(self, call: ModelCall) -> None:
        """Raises InMaintenance: the level lets nothing through. InMinimal: it lets no model be called, and this call
        went by the layer (a model of LangChain's older kind, or one in a thread without a context)."""
        await super().before_model(call)
        if not went_through() and (await self.level(call.ports, call.site)).level == "minimal":
            raise InMinimal("the service is limited and calls no model at present")


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
