"""What guards spend, save and tell, as metrics and webhooks: of all forms of guards, since all of them use the ports.

ledger.settle(…) ─▶ MeteredLedger ─▶ waystation_guard_spent_dollars_total
alert of a budget ─▶ Alerting ─▶ metric, and the outbox of webhooks where `waystation.guards.alerts` has an address
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from waystation.catalog.keys_guards_own import AlertKeys, MetricsKeys
from waystation.telemetry import metrics
from waystation.telemetry.counting import OTHER, Names
from waystation_db import guard_standing
from waystation_db.errors import DatabaseError
from waystation_db.json import dumps
from waystation_db.pool import Database
from waystation_db.rows import RunKey
from waystation_guards.budget.alerts import Alert
from waystation_guards.calls import CallSite
from waystation_guards.ports import Account, Balance, Entry, Hold, Ledger, Refusal

log = structlog.get_logger(__name__)

_REMEMBERED: Final = 10_000
_MODELS: Final = 100
"""Names of models that have a series of their own where the policy names none: programs may call them anything."""


class Meter:
    """Counts dollars by model and tenant, each call once. On one loop."""

    def __init__(self, keys: MetricsKeys) -> None:
        self._keys = keys
        self._models = Names(_MODELS)
        self._counted: OrderedDict[str, None] = OrderedDict()

    def count(self, call: str, site: CallSite, entry: Entry) -> None:
        """Count an entry of a model's call, if it has a price and was not counted."""
        call_id = call.partition("/")[0]
        if entry.kind != "model" or not entry.cost_nano_usd or call_id in self._counted:
            return
        self._counted[call_id] = None
        if len(self._counted) > _REMEMBERED:
            self._counted.popitem(last=False)
        tenant = site.tenant if site.tenant in self._keys.tenants else OTHER
        metrics.GUARD_SPENT_DOLLARS.labels(self._model(entry.model), tenant).inc(entry.cost_nano_usd / 1e9)

    def _model(self, name: str) -> str:
        if self._keys.models is None:
            return self._models[name]
        return name if name in self._keys.models else OTHER


class MeteredLedger:
    """A ledger (`waystation_guards.ports.Ledger`) that counts what is written."""

    __slots__ = ("_ledger", "_meter")

    def __init__(self, ledger: Ledger, meter: Meter) -> None:
        self._ledger = ledger
        self._meter = meter

    async def reserve(
        self, call: str, site: CallSite, holds: Sequence[Hold], *, ttl_s: float
    ) -> Refusal | Sequence[Balance]:
        return await self._ledger.reserve(call, site, holds, ttl_s=ttl_s)

    async def settle(self, call: str, site: CallSite, entry: Entry) -> Sequence[Balance]:
        balances = await self._ledger.settle(call, site, entry)
        self._meter.count(call, site, entry)
        return balances

    async def release(self, call: str) -> None:
        await self._ledger.release(call)

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        return await self._ledger.balances(accounts)

    async def now(self) -> datetime:
        return await self._ledger.now()

    async def ratio(self, tenant: str, model: str) -> float:
        return await self._ledger.ratio(tenant, model)


class Alerting:
    """Tells alerts of budgets; for `Ports.on_alert`."""

    def __init__(self, db: Database, keys: AlertKeys) -> None:
        self._db = db
        self._url = keys.webhook

    async def __call__(self, alert: Alert) -> None:
        """Count an alert, and put it into the outbox. Does not raise."""
        metrics.GUARD_ALERTS.labels(alert.limit.scope).inc()
        site = alert.site
        if self._url is None or not site.run or not site.thread:
            return
        key = RunKey(site.tenant, site.thread, site.run)
        try:
            async with self._db.connection() as conn:
                await guard_standing.queue_alert(conn, key, url=self._url, payload=dumps(_payload(alert)).decode())
        except DatabaseError as error:
            log.warning("an alert of a budget could not be put into the outbox", alert=alert.text, error=str(error))


def _payload(alert: Alert) -> dict[str, object]:
    site, limit = alert.site, alert.limit
    return {
        "type": "budget_alert",
        "tenant_id": site.tenant,
        "thread_id": site.thread,
        "run_id": site.run,
        "graph_id": site.graph,
        "scope": limit.scope,
        "owner": alert.owner,
        "name": limit.name,
        "unit": limit.unit,
        "window": limit.window,
        "limit": limit.size,
        "part": alert.part,
        "spent": alert.spent,
        "text": alert.text,
    }
