"""Budgets and breakers as gauges: read for who scrapes, at most every few seconds, and only where a policy has them."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from waystation.auth.principal import DEFAULT_TENANT
from waystation.runs.guard_levels import open_breakers
from waystation.runs.guard_money import current_limits
from waystation.services import GraphSide, Services
from waystation.telemetry import metrics
from waystation_db import guard_ledger, guard_standing
from waystation_db.errors import DatabaseError

if TYPE_CHECKING:  # loaded where there are guards
    from waystation_guards.budget.limits import Limit

FRESH_S: Final = 5.0

_MANY: Final = frozenset({"run", "thread"})
"""Scopes with as many accounts as there are runs: no figure for operators."""


class GuardFigures:
    """The gauges of one process's policy."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._keys = services.project.guards
        self._looked_at = -FRESH_S

    async def look(self) -> None:
        """Bring the gauges up to date, if they are old. Does not raise when Postgres is away."""
        if self._keys is None or monotonic() - self._looked_at < FRESH_S:
            return
        self._looked_at = monotonic()
        try:
            await self._look_at_breakers()
            if self._keys.budgets:
                await self._look_at_budgets(self._keys.metrics.tenants)
        except DatabaseError:
            return

    async def _look_at_breakers(self) -> None:
        for target, is_open in (await states_of_targets(self._services)).items():
            metrics.GUARD_BREAKER_OPEN.labels(target).set(is_open)

    async def _look_at_budgets(self, named: tuple[str, ...]) -> None:
        from waystation_guards.budget.limits import UNIT_SIZES

        tenants = sorted({DEFAULT_TENANT, *named})
        async with self._services.db.connection() as conn:
            now = await guard_ledger.clock(conn)
            limits: dict[tuple[str, str, str, str], Limit] = {
                (tenant, *key): limit
                for tenant in tenants
                for key, limit in current_limits(self._services.project, tenant, now).items()
                if limit.scope not in _MANY
            }
            found = await guard_standing.totals(
                conn,
                tenants=tenants,
                scopes=sorted({scope for _, scope, _, _ in limits}),
                windows=sorted({window for *_, window in limits}),
            )
        known = {(one.tenant_id, one.scope, one.unit, one.window): one for one in found}
        for key, limit in limits.items():
            one = known.get(key)
            labels = (key[0], key[1], key[2], limit.window or "ever")
            size: int = UNIT_SIZES[limit.unit]
            metrics.GUARD_BUDGET_SPENT.labels(*labels).set(one.spent / size if one else 0)
            metrics.GUARD_BUDGET_HELD.labels(*labels).set(one.held / size if one else 0)
            part = one.most / size / limit.size if one and limit.size else 0
            metrics.GUARD_BUDGET_USED_MOST.labels(*labels).set(part)


async def states_of_targets(services: Services) -> dict[str, bool]:
    """The policy's targets, and all others whose breakers are open: whether they are. Raises DatabaseError."""

    async def targets(side: GraphSide) -> list[str]:
        policy = None if side.guards is None else side.guards.policy
        return [] if policy is None else policy.models.targets

    known = dict.fromkeys(await services.graphs.call(targets), False)
    return known | dict.fromkeys(await open_breakers(services, DEFAULT_TENANT), True)
