"""What is cached and for how long, whose it is, and what caches tell about what they do. All of it can be JSON."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from waystation_guards.caching.keys import CacheScope
from waystation_guards.caching.single_flight import Patience
from waystation_guards.calls import CallSite

Layer = Literal["exact", "semantic", "tool"]
Happened = Literal["hit", "stale", "waited", "miss", "kept", "not_kept", "skipped", "unavailable"]
Temperature = Literal["zero", "unset", "any"]


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How answers of models are cached.

    `ttl_s`: how long an answer is fresh; shortened at random by up to `jitter` of it, so that what was kept together
    does not end together. `stale_s`: how long afterwards it is still given, while one caller asks anew.
    `scope`: who may be given it: all of the tenant, only the user that caused it, or (on purpose) everybody.
    `temperature`: of which calls answers are kept: `zero`, those that set it to zero; `unset`, also those that set none
    (providers then vary their answers); `any`.
    `single_flight`: of many that miss at once, one asks; the others wait up to `wait_s`. `lock_s`: after which silence
    it counts as dead. `store_s`: how long the cache may take to answer before the call is made without.
    `version`: change it, and nothing from before is found. `max_bytes`: larger answers are not kept.
    """

    ttl_s: float = 3600.0
    jitter: float = 0.1
    stale_s: float = 0.0
    scope: CacheScope = "tenant"
    temperature: Temperature = "zero"
    single_flight: bool = True
    wait_s: float = 30.0
    lock_s: float = 20.0
    store_s: float = 0.5
    version: str = ""
    max_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        for member, value, known in (
            ("scope", self.scope, get_args(CacheScope)),
            ("temperature", self.temperature, get_args(Temperature)),
        ):
            if value not in known:
                raise ValueError(f"{member} of a cache is {value!r}; expected is one of {', '.join(known)}")
        check_positive("cache", ttl_s=self.ttl_s, lock_s=self.lock_s, store_s=self.store_s, max_bytes=self.max_bytes)
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter of a cache is {self.jitter!r}; expected is a part between 0 and 1")
        if not 0 <= self.stale_s < float("inf") or not 0 <= self.wait_s < float("inf"):
            raise ValueError("stale_s and wait_s of a cache are seconds that are not below zero")

    @property
    def patience(self) -> Patience:
        return Patience(lock_s=self.lock_s, wait_s=self.wait_s, store_s=self.store_s)


@dataclass(frozen=True, slots=True)
class CacheEvent:
    """What a cache did, for metrics. `why`: the reason why a call was skipped or its answer not kept.

    `name`: the model's or the tool's. `saved_nano_usd` is 0 where the model has no price.
    """

    happened: Happened
    layer: Layer
    name: str
    site: CallSite
    saved_tokens: int = 0
    saved_nano_usd: int = 0
    why: str = ""


OnCacheEvent = Callable[[CacheEvent], None]


def ttl_of(rules: CacheRules) -> float:
    """How long an answer is fresh, in seconds: a little less each time."""
    return rules.ttl_s * (1 - random.uniform(0, rules.jitter))


def why_not_the_temperature(temperature: Any, rules: CacheRules) -> str | None:
    """Why answers at this temperature are not cached; None if they are."""
    if rules.temperature == "any" or (temperature is None and rules.temperature == "unset"):
        return None
    if temperature is None:
        return "its temperature is not set"
    return None if temperature == 0 else "its temperature is above zero"


def check_positive(what: str, **numbers: float) -> None:
    """Raises ValueError naming the member that is not a number above zero."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not 0 < number < float("inf"):
            raise ValueError(f"{name} of a {what} is {number!r}; expected is a number above zero")
