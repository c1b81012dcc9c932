"""Caches of answers and of tools' results."""

from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.prompts import PromptCaching, PromptCachingModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheEvent, CacheRules
from waystation_guards.caching.semantic import SemanticCache
from waystation_guards.caching.shared import SharedCache
from waystation_guards.caching.tools import ToolCache, ToolRule, cached_tool

__all__ = [
    "CacheEvent",
    "CacheRules",
    "CachedModel",
    "PromptCaching",
    "PromptCachingModel",
    "ResponseCache",
    "SemanticCache",
    "SharedCache",
    "ToolCache",
    "ToolRule",
    "cached_tool",
]
