"""What rules of levels may be about: breakers, budgets, and numbers that somebody shares, such as the age of a queue.

Degradation(policy, {"breakers": breakers_open("a", "b"), "budget": budget_spent(budget), "queue": shared("age_s")})
"""

from __future__ import annotations

from typing import Protocol

from waystation_guards.blocking import at_home
from waystation_guards.budget.budget import Budget
from waystation_guards.calls import CallSite
from waystation_guards.failover.breakers import open_mark
from waystation_guards.levels.levels import Signal
from waystation_guards.ports import SHARED, Ports


class Named(Protocol):
    """A target, or anything else with its name."""

    @property
    def name(self) -> str: ...


def breakers_open(*targets: str | Named, across_tenants: bool = True) -> Signal:
    """The part of these targets whose breakers are open, from 0 to 1. `across_tenants`: as their failover's policy."""
    names = [target if isinstance(target, str) else target.name for target in targets]
    if not names:
        raise ValueError("breakers_open needs at least one target")

    async def read(ports: Ports, _: CallSite) -> float:
        marks = [open_mark(name, across_tenants=across_tenants) for name in names]
        found = [await at_home(ports.state.read(mark), ports.loop) for mark in marks]
        return sum(one is not None for one in found) / len(names)

    return read


def budget_spent(budget: Budget) -> Signal:
    """The part that is spent of the caller's most used limit, from 0 to 1 and beyond."""

    async def read(ports: Ports, site: CallSite) -> float:
        standings = await at_home(budget.standing(ports, site), ports.loop)
        return max((one.spent / one.limit.size for one in standings if one.limit.size), default=0.0)

    return read


def shared(name: str) -> Signal:
    """A number that `share` wrote, from whichever process; 0 where there is none, or it is too old."""

    async def read(ports: Ports, _: CallSite) -> float:
        return float(await at_home(ports.state.read(_name(name)), ports.loop) or 0.0)

    return read


async def share(ports: Ports, name: str, value: float, *, ttl_s: float = 60.0) -> None:
    """Tell all processes a number, such as `queue_age_s`, the age in seconds of the oldest run that waits."""
    await at_home(ports.state.write(_name(name), f"{value:g}", ttl_s=ttl_s), ports.loop)


def _name(name: str) -> str:
    return f"{SHARED}signal:{name}"
