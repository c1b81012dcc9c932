"""One limit of a budget: how much, of what, for whom, in which window, and what happens there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from waystation_guards.budget.pricing import Rates
from waystation_guards.budget.windows import Window
from waystation_guards.ports import Unit

Scope = Literal["run", "thread", "assistant", "graph", "user", "key", "tenant"]
OnLimit = Literal["raise", "end", "interrupt", "degrade"]

UNIT_SIZES: Final[dict[Unit, int]] = {
    "usd": 1_000_000_000,
    "tokens": 1,
    "model_calls": 1,
    "tool_calls": 1,
    "seconds": 1000,
}
"""What one of a unit is in the ledger's integers."""

_WORDS: Final[dict[Unit, str]] = {
    "usd": "$",
    "tokens": "tokens",
    "model_calls": "model calls",
    "tool_calls": "tool calls",
    "seconds": "seconds of model time",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `size` of a unit for each owner of the scope, in each window.

    `unpriced`: what a limit in dollars does with a model whose price nobody knows: `deny` it, let it pass and `flag` it
    in the ledger, or take these rates. `fail`: what happens while the ledger is away. `alerts`: parts of the limit of
    which it is told when they are spent.

    `on_limit`: `raise` BudgetExceeded; `end` the run with a message; `interrupt` it and ask a human for more, where the
    graph has a checkpointer (else it raises); or `degrade` to a cheaper model once the part `degrade_at` is spent, and
    raise when all is. Ending needs a form that can do it (`guarded`, `BudgetMiddleware`), degrading a model that can
    (`BudgetMiddleware`, `degrading`); without it they raise. `grant_by`: who may grant more when asked: one of these
    roles, or, where there are none, whoever can resume the run.

    `name`: limits of different names count apart, those of one scope, unit, window and name together. The size is no
    part of that: where it changes, what was spent stays spent.
    """

    size: float
    unit: Unit = "usd"
    scope: Scope = "run"
    window: Window = "none"
    timezone: str = "UTC"
    name: str = ""
    on_limit: OnLimit = "raise"
    unpriced: Literal["deny", "flag"] | Rates = "deny"
    fail: Literal["closed", "open"] = "closed"
    alerts: tuple[float, ...] = (0.5, 0.75, 0.9, 1.0)
    degrade_at: float = 0.9
    grant_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for member, value, known in (
            ("unit", self.unit, get_args(Unit)),
            ("scope", self.scope, get_args(Scope)),
            ("window", self.window, get_args(Window)),
            ("on_limit", self.on_limit, get_args(OnLimit)),
            ("fail", self.fail, ("closed", "open")),
        ):
            if value not in known:
                raise ValueError(f"{member} of a limit is {value!r}; expected is one of {', '.join(known)}")
        if not 0 <= self.size < float("inf"):
            raise ValueError(f"size of a limit is {self.size!r}; expected is a number that is not below zero")
        if not 0 < self.degrade_at <= 1:
            raise ValueError(f"degrade_at of a limit is {self.degrade_at!r}; expected is a part, above 0 and up to 1")
        if any(not 0 < part <= 10 for part in self.alerts):
            raise ValueError(f"alerts of a limit are {self.alerts!r}; expected are parts such as 0.5, above 0")
        if isinstance(self.unpriced, str) and self.unpriced not in ("deny", "flag"):
            raise ValueError(f"unpriced of a limit is {self.unpriced!r}; expected is deny, flag, or rates")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"timezone of a limit is {self.timezone!r}; expected is an IANA name") from None

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Limit:
        """A limit from JSON: its members by name, `unpriced` rates as an object.

        Raises:
            ValueError: a member is unknown or wrong; the message names it.
        """
        known = {one.name for one in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ValueError(f"{', '.join(unknown)} of a limit is not known; known are {', '.join(sorted(known))}")
        if "size" not in given:
            raise ValueError("size of a limit is missing")
        values = dict(given)
        for name in ("alerts", "grant_by"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        if isinstance(values.get("unpriced"), Mapping):
            values["unpriced"] = Rates.from_mapping(values["unpriced"], of="an unpriced model")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"a limit has a member of the wrong type: {error}") from None

    @property
    def unit_size(self) -> int:
        """What one of the unit is in the ledger's integers."""
        return UNIT_SIZES[self.unit]

    @property
    def in_units(self) -> int:
        """The limit in the ledger's integers."""
        return self.units_of(self.size)

    @property
    def degrades_in_units(self) -> int:
        """The limit of calls that a cheaper model could make, in the ledger's integers."""
        return self.units_of(self.size * self.degrade_at) if self.on_limit == "degrade" else self.in_units

    def units_of(self, amount: float) -> int:
        """An amount of the limit's unit in the ledger's integers."""
        return int((Decimal(str(amount)) * self.unit_size).to_integral_value())

    @property
    def text(self) -> str:
        """The limit as a person reads it: `2.5 $ per user and day`."""
        size = f"{self.size:g} {_WORDS[self.unit]} per {self.scope}"
        return size if self.window == "none" else f"{size} and {self.window}"
