"""What a policy says about models, made real: caches, failovers and cheaper models, each made once for a process.

A model that cannot be made (no such name, its provider's package or its key is missing) stops the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from waystation.catalog.keys_guards import CheaperKeys, FailoverKeys, GuardKeys
from waystation.catalog.keys_guards_caches import CacheKeys
from waystation.catalog.keys_guards_for import Entry
from waystation.errors import ConfigError
from waystation.telemetry import metrics
from waystation_guards.budget.pricing import Prices
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheEvent
from waystation_guards.caching.semantic import SemanticCache
from waystation_guards.failover.breakers import BreakerChange
from waystation_guards.failover.targets import Target, target_of
from waystation_guards.levels.answering import Known
from waystation_guards.model_layer import Failover, Layer

_HIT: Final = ("hit", "stale", "waited")


class ModelParts:
    """The parts of layers, in the order of the policy's entries."""

    def __init__(self, keys: GuardKeys, prices: Prices) -> None:
        """Raises ConfigError: a model cannot be made; the message names the key."""
        self._keys = keys
        self._caches = [_cache(one.settings, prices) for one in keys.cache]
        self._failovers = [_failover(f"failover.{at}", one.settings) for at, one in enumerate(keys.failover)]
        self._cheaper = [_cheaper(f"cheaper.{at}", one.settings) for at, one in enumerate(keys.cheaper)]

    @property
    def is_empty(self) -> bool:
        """The policy says nothing about models."""
        caps_answers = any(one.settings.output_tokens is not None for one in self._keys.caps)
        return not (self._caches or self._failovers or self._cheaper or caps_answers or self._keys.levels)

    @property
    def targets(self) -> list[str]:
        """The names of all targets behind models."""
        found = [target.name for one in self._failovers for targets in one.models.values() for target in targets]
        return list(dict.fromkeys(found))

    def layer(
        self,
        chosen: Callable[[tuple[Entry[Any], ...]], int | None],
        *,
        max_tokens: int | None,
        reduced: Callable[[], bool],
        known: Known | None,
    ) -> Layer | None:
        """The layer of a run. `chosen` finds the entry that is most specific for it, by its number.
        `max_tokens`: of an answer. `known`: what is answered at the level `minimal`; None where it is not asked for."""
        keys = self._keys
        cache, failover, cheaper = chosen(keys.cache), chosen(keys.failover), chosen(keys.cheaper)
        if cache is None and failover is None and cheaper is None and max_tokens is None and known is None:
            return None
        return Layer(
            cache=None if cache is None else self._caches[cache],
            failover=None if failover is None else self._failovers[failover],
            cheaper={} if cheaper is None else self._cheaper[cheaper],
            max_tokens=max_tokens,
            reduced=reduced,
            known=known,
        )


def _cache(keys: CacheKeys, prices: Prices) -> ResponseCache:
    near = keys.semantic
    semantic = None if near is None else SemanticCache(near.threshold, near.candidates, near.within_s)
    # A graph may bring a cache of its own along, around the same calls.
    return ResponseCache(keys, semantic=semantic, prices=prices, on_event=count_hit, name="policy")


def _failover(key: str, keys: FailoverKeys) -> Failover:
    models = {
        pattern: tuple(_target(f"{key}.models.{pattern}.{at}", spec) for at, spec in enumerate(specs))
        for pattern, specs in keys.models.items()
    }
    return Failover(models, keys.policy, on_change=_count_change)


def _cheaper(key: str, keys: CheaperKeys) -> dict[str, BaseChatModel]:
    return {pattern: _target(f"{key}.models.{pattern}", spec).model for pattern, spec in keys.models.items()}


def _target(key: str, spec: str | dict[str, Any]) -> Target:
    try:
        return target_of(spec)
    except Exception as error:  # providers' packages raise what they like: a missing key is a ValidationError of theirs
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"waystation.guards.{key} is {spec!r}: {reason or type(error).__name__}") from None


def _count_change(change: BreakerChange) -> None:
    metrics.GUARD_BREAKERS.labels(change.target, change.event).inc()


def count_hit(event: CacheEvent) -> None:
    """Count what a cache answered, and what that saved."""
    if event.happened in _HIT:
        metrics.GUARD_CACHE_HITS.labels(event.layer).inc()
        metrics.GUARD_SAVED_DOLLARS.inc(event.saved_nano_usd / 1e9)
