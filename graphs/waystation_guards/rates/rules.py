"""How much of a model's endpoint may be used: rules, and what a call draws by them.

A target is what has limits of its own at a provider: `openai/gpt-4o`, or what the program calls it in the metadata of
its model (`ChatOpenAI(…, metadata={"waystation_target": "azure/gpt-4o/swedencentral"})`). Rules name targets by
patterns (`openai/*`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil, isfinite
from typing import Any, Final, Literal, get_args

from waystation_guards.calls import CallSite
from waystation_guards.ports import SHARED, Draw, Rate
from waystation_guards.rates.headers import Kind
from waystation_guards.watching.watcher import ModelCall

Per = Literal["target", "tenant", "user", "key", "thread", "run", "assistant", "graph"]

TARGET_KEY: Final = "waystation_target"
"""The member of a model's metadata in which a program names the target."""

_PREFIX: Final = f"{SHARED}{{model-rates}}"
"""A provider counts the operator's calls, whichever tenant they are for. The tag keeps the buckets of a draw together
in a Redis Cluster."""

_KINDS: Final[tuple[Kind, ...]] = ("requests", "tokens", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRate:
    """At most so many requests and tokens per `seconds` of each target that `target` matches; None for no limit.

    `tokens` counts what goes in and what comes out; `input_tokens` and `output_tokens` count one of them. `concurrent`:
    calls that are open at a time. `burst`: the part of an amount that may be used at once. `per`: whose calls are
    counted together: everybody's, or those of each tenant, user, key and so on. `together`: count all targets that
    match as one, where a provider's limit is for an account.
    """

    target: str = "*"
    requests: int | None = None
    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrent: int | None = None
    seconds: float = 60.0
    burst: float = 1.0
    per: Per = "target"
    together: bool = False

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in (*_KINDS, "concurrent")}
        for name, size in sizes.items():
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise ValueError(f"{name} of a model rate is {size!r}; expected is a whole number above zero")
        if all(size is None for size in sizes.values()):
            raise ValueError(f"a model rate for {self.target!r} limits nothing; expected is one of {', '.join(sizes)}")
        if not (self.seconds > 0 and isfinite(self.seconds)):
            raise ValueError(f"seconds of a model rate is {self.seconds!r}; expected is a number above zero")
        if not 0 < self.burst <= 1:
            raise ValueError(f"burst of a model rate is {self.burst!r}; expected is a part above 0 and up to 1")
        if self.per not in get_args(Per):
            raise ValueError(f"per of a model rate is {self.per!r}; expected is one of {', '.join(get_args(Per))}")

    def rate(self, kind: Kind) -> Rate | None:
        """The bucket for a kind."""
        amount: int | None = getattr(self, kind)
        if amount is None:
            return None
        size = max(1, ceil(amount * self.burst))
        return Rate(size, self.seconds * size / amount)

    def bucket(self, target: str, site: CallSite) -> str:
        """The name of what is counted together."""
        counted = self.target if self.together else target
        owner = "" if self.per == "target" else f"/{self.per}/{site.tenant}/{owner_of(site, self.per)}"
        return f"{_PREFIX}/{counted}{owner}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One draw of a call, and what it is for."""

    draw: Draw
    kind: Kind
    rule: ModelRate


@dataclass(frozen=True, slots=True)
class Place:
    """One place that a call takes while it is open."""

    name: str
    limit: int


def target_of(call: ModelCall) -> str:
    """The target of a call: as the program names it, else its provider and model."""
    named: Any = call.params.get(TARGET_KEY)
    if isinstance(named, str) and named:
        return named
    return f"{call.provider}/{call.model}" if call.provider else call.model


def draws_of(
    rules: Sequence[ModelRate], target: str, site: CallSite, *, input_tokens: int, output_tokens: int
) -> Iterator[Asked]:
    """What a call with so many tokens draws."""
    costs = amounts(input_tokens, output_tokens)
    seen = set[tuple[str, Rate]]()
    for rule in rules:
        if not fnmatchcase(target, rule.target):
            continue
        for kind in _KINDS:
            rate = rule.rate(kind)
            name = f"{rule.bucket(target, site)}/{kind}"
            if rate is not None and (name, rate) not in seen:
                seen.add((name, rate))
                yield Asked(Draw(name, rate, costs[kind]), kind, rule)


def places_of(rules: Sequence[ModelRate], target: str, site: CallSite) -> Iterator[Place]:
    """The places that a call takes."""
    for rule in rules:
        if rule.concurrent is not None and fnmatchcase(target, rule.target):
            yield Place(f"{rule.bucket(target, site)}/open/{rule.concurrent}", rule.concurrent)


def amounts(input_tokens: int, output_tokens: int) -> dict[Kind, int]:
    """What one call with so many tokens counts as, by kind."""
    return {
        "requests": 1,
        "tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }


def requests_of(rule: ModelRate, target: str) -> Draw:
    """One request to a target, from the bucket that a rule has for everybody."""
    rate = rule.rate("requests")
    if rate is None:
        raise ValueError(f"requests of the model rate for {target!r} is missing")
    return Draw(f"{_PREFIX}/{target}/requests", rate)


def pause_of(target: str) -> Draw:
    """A draw that costs nothing and waits only while the target is paused."""
    return Draw(f"{_PREFIX}/{target}/pause", Rate(1, 1.0), 0)


def owner_of(site: CallSite, per: Per) -> str:
    """Who of a tenant a call is counted for."""
    return "" if per in ("target", "tenant") else str(getattr(site, per))
