"""`cache` and `tool_cache` of `waystation.guards`: what is kept, by meaning too, and what that needs of the store.

"cache":      [{"ttl_s": 600, "semantic": {"threshold": 0.95}}],
"tool_cache": [{"tools": ["search_*"], "ttl_s": 600, "fold": ["query"]}]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from waystation.catalog.keys import StoreKeys
from waystation.catalog.keys_form import Text
from waystation.catalog.keys_guards_for import Entry
from waystation.catalog.keys_guards_own import OwnKeys
from waystation.catalog.keys_own import VectorKeys
from waystation.errors import ConfigError
from waystation_guards.caching.rules import CacheRules
from waystation_guards.caching.tools import ToolRule


class SemanticKeys(OwnKeys):
    """`cache.….semantic`: answers to questions that mean the same. See `SemanticCache`."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.92
    candidates: Annotated[int, Field(ge=1, le=100)] = 5
    within_s: Annotated[float, Field(gt=0, le=60)] = 2.0


@dataclass(frozen=True, slots=True)
class CacheKeys(CacheRules):
    """`cache`: the exact cache of models' answers; with `semantic` also one by meaning."""

    semantic: SemanticKeys | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCacheKeys(ToolRule):
    """`tool_cache`: how results of the tools of these names (or patterns of them) are kept."""

    tools: Annotated[tuple[Text, ...], Field(min_length=1)]


def check_semantic(entries: Iterable[Entry[CacheKeys]], store: StoreKeys | None, vectors: VectorKeys) -> None:
    """Whether the project's store can find what means the same.

    Raises:
        ConfigError: a cache is to look by meaning, and the store has no index, or one that scores otherwise.
    """
    for at, entry in enumerate(entries):
        if entry.settings.semantic is None:
            continue
        key = f"waystation.guards.cache.{at}.semantic"
        if store is None or store.index is None:
            raise ConfigError(f"{key} needs store.index, which is missing: expected dims and embed")
        if vectors.distance == "l2":
            raise ConfigError(
                f"{key} needs a likeness of 1 for the same, and waystation.store.vectors.distance is 'l2': expected "
                "'cosine' (or 'inner_product' over vectors of length 1)"
            )
