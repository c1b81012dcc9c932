"""Circuit breakers of targets, shared by all processes through `State`, and who is told when one opens or closes.

    State.admit ─▶ call ─▶ State.report ─▶ opened or closed? ─▶ log, stream event, callback

Where the state is away, calls go on as if all breakers were closed: a breaker saves time, and must not cost answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from waystation_guards.blocking import at_home
from waystation_guards.ports import SHARED, Admission, BreakerRules, Ports
from waystation_guards.telling import tell

log = logging.getLogger(__name__)

_STATE_S: Final = 1.0
"""How long the state may take to answer before a call goes on without it."""


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker opened or closed by a call of this process. `cause`: the class of the error that opened it."""

    target: str
    event: Literal["opened", "closed"]
    cause: str = ""
    cooldown_s: float = 0.0

    def as_event(self) -> dict[str, Any]:
        """The members of the stream's event."""
        return asdict(self)


OnChange = Callable[[BreakerChange], None]


def breaker_name(target: str, *, across_tenants: bool = True) -> str:
    """The name under which `State` keeps a target's breaker."""
    return f"{SHARED if across_tenants else ''}target:{target}"


def open_mark(target: str, *, across_tenants: bool = True) -> str:
    """The shared value that is there while a target's breaker is open, until its probe at the latest.

    Whoever only wants to know reads this: asking `State.admit` may take the probe.
    """
    return f"{breaker_name(target, across_tenants=across_tenants)}:open"


@dataclass(frozen=True, slots=True)
class Breakers:
    """The breakers of some targets under one set of rules. `on_change` is called on the loop that made the call."""

    rules: BreakerRules | None
    on_change: OnChange | None = None
    across_tenants: bool = True

    async def admit(self, ports: Ports, target: str) -> Admission:
        """Whether the target may be called now."""
        if self.rules is None:
            return Admission(True)
        try:
            async with asyncio.timeout(_STATE_S):
                return await at_home(ports.state.admit(self._name(target), self.rules), ports.loop)
        except Exception as error:
            log.warning("the state of breakers does not answer; the call goes on without it", exc_info=error)
            return Admission(True)

    async def report(
        self,
        ports: Ports,
        target: str,
        *,
        ok: bool,
        is_probe: bool = False,
        retry_after_s: float = 0.0,
        cause: str = "",
    ) -> BreakerChange | None:
        """Count a call's outcome, and tell if the breaker opened or closed by it."""
        if self.rules is None:
            return None
        name, rules = self._name(target), self.rules
        try:
            async with asyncio.timeout(_STATE_S):
                report = ports.state.report(name, rules, ok=ok, is_probe=is_probe, retry_after_s=retry_after_s)
                changed = await at_home(report, ports.loop)
                if changed or (is_probe and not ok):
                    open_s = None if ok else max(rules.cooldown_s, retry_after_s) + rules.probe_s
                    mark = open_mark(target, across_tenants=self.across_tenants)
                    await at_home(ports.state.write(mark, None if ok else cause, ttl_s=open_s), ports.loop)
        except Exception as error:
            log.warning("the state of breakers does not answer; an outcome is not counted", exc_info=error)
            return None
        if not changed:
            return None
        change = (
            BreakerChange(target, "closed")
            if ok
            else BreakerChange(target, "opened", cause, max(rules.cooldown_s, retry_after_s))
        )
        self._tell(change)
        return change

    def _name(self, target: str) -> str:
        return breaker_name(target, across_tenants=self.across_tenants)

    def _tell(self, change: BreakerChange) -> None:
        log.warning("the breaker of a target %s", change.event, extra={"target": change.target, "cause": change.cause})
        tell("breaker", change.as_event())
        if self.on_change is not None:
            try:
                self.on_change(change)
            except Exception:  # whoever is told must not fail the call that told
                log.exception("a callback for breakers failed")
