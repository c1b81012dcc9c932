"""What a failover does when: targets, the table of decisions by class of error, and times.

    policy = FailoverPolicy(decisions={"content_policy": Decision(then="fail")}, on_break="restart")

The table is data. `DECISIONS` holds the defaults; a policy overrides single rows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

from waystation_guards.failover.hedging import Hedge
from waystation_guards.ports import BreakerRules
from waystation_guards.providers.errors import ErrorClass

Then = Literal["next", "fail"]
OnBreak = Literal["continue", "restart", "fail"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens on an error: so many more tries of the same target, then the next target or the error itself.

    `retries`: while another target is left; none where tokens were shown, as their reader waits. `last_retries`: of the
    last one. `counts`: whether the breaker takes it as the target's failure. An error of the caller's is none.
    """

    retries: int = 0
    last_retries: int = 0
    then: Then = "next"
    counts: bool = True

    def __post_init__(self) -> None:
        if self.then not in get_args(Then):
            raise ValueError(f"then of a decision is {self.then!r}; expected is next or fail")
        for name, value in (("retries", self.retries), ("last_retries", self.last_retries)):
            if value < 0:
                raise ValueError(f"{name} of a decision is {value!r}; expected is a number that is not below zero")


DECISIONS: Final[Mapping[ErrorClass, Decision]] = {
    "rate_limit": Decision(retries=1, last_retries=3),
    "overload": Decision(retries=1, last_retries=3),
    "timeout": Decision(last_retries=1),
    "connection": Decision(retries=1, last_retries=3),
    "malformed": Decision(last_retries=2),
    "context_window": Decision(counts=False),
    "content_policy": Decision(counts=False),
    "auth": Decision(),
    "bad_request": Decision(then="fail", counts=False),
    "unknown": Decision(),
}
"""The defaults. Another target may have a larger window or another policy on contents; a request that is wrong is wrong
everywhere."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries of one target: a random part (full jitter) of a span that grows by `factor`.

    A provider's `Retry-After` is waited for too, up to `patience_s` where another target is left and up to `longest_s`
    where none is.
    """

    first_s: float = 0.25
    factor: float = 2.0
    longest_s: float = 30.0
    patience_s: float = 2.0

    def wait_s(self, number: int, *, retry_after_s: float = 0.0) -> float:
        """Seconds before try `number` (from 0)."""
        span = min(self.longest_s, self.first_s * self.factor ** min(number, 60))
        return retry_after_s + random.uniform(0.0, span)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a target may take, in seconds; None is without end.

    `first_s`: to the first token of a stream. `idle_s`: from one token to the next. `whole_s`: for an answer that is
    not streamed.
    """

    first_s: float | None = 60.0
    idle_s: float | None = 30.0
    whole_s: float | None = 300.0


@dataclass(frozen=True, slots=True)
class FailoverPolicy:
    """How a failover behaves.

    `decisions`: rows that differ from `DECISIONS`. `breaker`: None for none. `hedge`: None for none. `deadline_s`: for
    a whole call, besides the caller's deadline. `on_break`: what happens when a stream breaks after tokens were shown,
    at most `breaks` times in one call; what cannot be continued (a tool call, reasoning) is restarted.
    `across_tenants`: whether a server's tenants share the targets' breakers, as they do where they share the providers'
    keys.
    """

    decisions: Mapping[ErrorClass, Decision] = field(default_factory=dict[ErrorClass, Decision])
    backoff: Backoff = Backoff()
    patience: Patience = Patience()
    breaker: BreakerRules | None = field(default_factory=BreakerRules)
    hedge: Hedge | None = None
    deadline_s: float | None = None
    on_break: OnBreak = "continue"
    breaks: int = 3
    across_tenants: bool = True

    def __post_init__(self) -> None:
        if self.on_break not in get_args(OnBreak):
            raise ValueError(f"on_break of a failover is {self.on_break!r}; expected is continue, restart or fail")
        for kind in self.decisions:
            if kind not in DECISIONS:
                raise ValueError(f"decisions of a failover has {kind!r}; expected is one of {', '.join(DECISIONS)}")

    def decide(self, kind: ErrorClass) -> Decision:
        """The row for a class of error."""
        return self.decisions.get(kind) or DECISIONS[kind]

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> FailoverPolicy:
        """A policy from JSON values: the members of this class by name, each nested one as an object.

        Raises:
            ValueError: a key or value that is none; the message names it.
        """
        made: dict[str, Any] = {}
        parts: dict[str, type[Any]] = {
            "backoff": Backoff,
            "patience": Patience,
            "breaker": BreakerRules,
            "hedge": Hedge,
        }
        _check_keys("failover", given, cls)
        for name, value in given.items():
            if name == "decisions":
                made[name] = {kind: _part(f"failover.decisions.{kind}", row, Decision) for kind, row in value.items()}
            elif name in parts and value is not None:
                made[name] = _part(f"failover.{name}", value, parts[name])
            else:
                made[name] = value
        return cls(**made)


def _part(where: str, given: Any, kind: type[Any]) -> Any:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}; expected is an object")
    _check_keys(where, given, kind)  # pyright: ignore[reportUnknownArgumentType]: keys are checked there
    return kind(**given)


def _check_keys(where: str, given: Mapping[str, Any], kind: type[Any]) -> None:
    known = [one.name for one in fields(kind)]
    for name in given:
        if name not in known:
            raise ValueError(f"{where}.{name} is unknown; expected is one of {', '.join(known)}")
