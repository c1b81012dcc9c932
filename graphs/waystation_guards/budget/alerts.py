"""Tells when parts of a limit are spent: once for each window, by whichever of all processes sees it first.

    an entry leaves a balance ─▶ parts at or below it ─▶ claimed in the ledger, by one entry each
        ─▶ log, `on_alert` of the budget, `on_alert` of the ports, event in the custom stream

Hooks are called as `hook(alert)` and may be async; what they raise is logged and does no harm to the run. The event is
`{"type": "waystation.budget_alert", ...Alert.event}`, in `stream_mode="custom"` of the graph whose call it was.
"""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from langgraph.config import get_stream_writer

from waystation_guards.budget.limits import Limit
from waystation_guards.calls import CallSite
from waystation_guards.ports import Account, Balance, Entry, Ports

log = logging.getLogger(__name__)

EVENT_TYPE: Final = "waystation.budget_alert"

_REMEMBERED: Final = 10_000

AlertHook = Callable[["Alert"], Awaitable[None] | None]
"""What is told of alerts. May be async; is called on the loop where the ledger lives, within the run's call."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A part of a limit is spent. `spent` is in the limit's unit; `account` is where it is counted."""

    limit: Limit
    site: CallSite
    owner: str
    part: float
    spent: float
    account: Account
    budget: str = ""

    @property
    def text(self) -> str:
        return f"{self.part:.0%} of {self.limit.text} are spent ({self.owner or 'all'}: {self.spent:g})"

    @property
    def event(self) -> dict[str, Any]:
        """What the run's client may see: the limit and the part, and not whose other runs spent it."""
        return {
            "type": EVENT_TYPE,
            "part": self.part,
            "unit": self.limit.unit,
            "size": self.limit.size,
            "scope": self.limit.scope,
            "window": self.limit.window,
            "name": self.limit.name,
            "text": f"{self.part:.0%} of {self.limit.text} are spent",
        }

    @property
    def claim(self) -> str:
        """What the entry is called that only one process can write: the account, the limit's size and the part."""
        named = repr((self.account, self.limit.size, self.part))
        return f"alert-{sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}/alert"


class Alerts:
    """The alerts of a budget."""

    def __init__(self, budget: str, hook: AlertHook | None) -> None:
        self._budget = budget
        self._hook = hook
        self._told: OrderedDict[tuple[Account, float, float], None] = OrderedDict()

    async def look(self, limit: Limit, site: CallSite, balance: Balance, ports: Ports) -> None:
        """Tell what a balance says, unless it has been told."""
        for alert in self._of(limit, site, balance):
            entry = Entry("correction", spent={balance.account: 0}, detail={"alert": alert.part, "text": alert.text})
            try:
                is_first = bool(await ports.ledger.settle(alert.claim, site, entry))
            except Exception as error:  # the next call sees the same balance, or more
                log.warning("the budget's ledger does not answer; an alert waits", exc_info=error)
                return
            self._remember(alert)
            if is_first:
                await self._tell(alert, (self._hook, ports.on_alert))

    def _of(self, limit: Limit, site: CallSite, balance: Balance) -> Iterable[Alert]:
        if limit.in_units <= 0:
            return
        for part in sorted(limit.alerts):
            if balance.spent >= part * limit.in_units and (balance.account, limit.size, part) not in self._told:
                spent = balance.spent / limit.unit_size
                yield Alert(limit, site, balance.account.owner, part, spent, balance.account, self._budget)

    async def _tell(self, alert: Alert, hooks: Iterable[AlertHook | None]) -> None:
        log.warning("budget: %s", alert.text)
        _write(alert.event)
        for hook in dict.fromkeys(hooks):
            try:
                if hook is not None and inspect.isawaitable(telling := hook(alert)):
                    await telling
            except Exception:  # the run goes on: it did nothing wrong
                log.exception("a hook for budget alerts failed")

    def _remember(self, alert: Alert) -> None:
        self._told[alert.account, alert.limit.size, alert.part] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)


def _write(event: dict[str, Any]) -> None:
    try:
        get_stream_writer()(event)
    except (RuntimeError, KeyError, AttributeError):  # outside of a graph nobody reads a stream
        return
