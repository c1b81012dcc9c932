"""Marks the stable beginning of prompts for the provider's own cache, where that pays.

    model = PromptCachingModel(inner=ChatAnthropic(model="claude-sonnet-4-5"))

Anthropic    writing a prefix into its cache costs a quarter more, reading it a tenth: it is marked once the same prefix
             has been seen within the cache's lifetime, or when an agent is in the middle of its tool calls, and only if
             it is longer than the model's minimum. Marked are the tools, the system prompt and the history.
OpenAI       caches by itself; a `prompt_cache_key` of the prefix sends calls that share it to the same machines.

Other providers are told nothing. The ledger has an entry of what a call saved (or, for the first write, cost more).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal, cast

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from waystation_guards.budget.pricing import Prices, details
from waystation_guards.budget.savings import cost_of, name_of, record_saving
from waystation_guards.caching.keys import digest_of, key_of
from waystation_guards.models.preparing import Prepared, PreparingModel, Told

log = logging.getLogger(__name__)

_MINIMUM: Final = (
    ("opus-4-5", 4096),
    ("opus-4-6", 4096),
    ("haiku-4-5", 4096),
    ("sonnet-4-6", 2048),
    ("haiku", 2048),
)
"""Tokens below which Anthropic caches nothing, by a part of the model's name; its documentation of prompt caching."""
_MINIMUM_ELSE: Final = 1024
_LIFE_S: Final = {"5m": 300.0, "1h": 3600.0}
_STORE_S: Final = 0.5
_CHARS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class PromptCaching:
    """When prompts are marked.

    `ttl`: how long Anthropic keeps a prefix; an hour costs twice the input's price to write. `min_tokens`: None for
    the model's own minimum. `reuse`: mark what was `seen` before within that time, or `always`. `history`: also mark
    the end of the conversation, which the next turn begins with.
    """

    ttl: Literal["5m", "1h"] = "5m"
    min_tokens: int | None = None
    reuse: Literal["seen", "always"] = "seen"
    history: bool = True

    def __post_init__(self) -> None:
        if self.ttl not in _LIFE_S:
            raise ValueError(f"ttl of prompt caching is {self.ttl!r}; expected is 5m or 1h")
        if self.reuse not in ("seen", "always"):
            raise ValueError(f"reuse of prompt caching is {self.reuse!r}; expected is seen or always")
        if self.min_tokens is not None and self.min_tokens < 0:
            raise ValueError(f"min_tokens of prompt caching is {self.min_tokens!r}; expected is not below zero")

    def least(self, model: str) -> int:
        """The tokens that a prefix needs to be worth a mark."""
        if self.min_tokens is not None:
            return self.min_tokens
        name = model.replace(".", "-").lower()
        return next((tokens for part, tokens in _MINIMUM if part in name), _MINIMUM_ELSE)

    @property
    def control(self) -> dict[str, str]:
        """Anthropic's mark."""
        return {"type": "ephemeral"} if self.ttl == "5m" else {"type": "ephemeral", "ttl": self.ttl}


@dataclass(frozen=True, slots=True)
class Prefix:
    """What calls begin with: tools and system prompt. Sizes in tokens, roughly."""

    digest: str
    tokens: int
    with_history: int


def prefix_of(messages: Sequence[BaseMessage], tools: Any) -> Prefix:
    """The prefix of a prompt."""
    system = [message for message in messages if isinstance(message, SystemMessage)]
    described = len(json.dumps(tools, default=str)) if tools else 0
    begin = count_tokens_approximately(system) + ceil(described / _CHARS_PER_TOKEN) if system or tools else 0
    rest = [message for message in messages if not isinstance(message, SystemMessage)]
    digest = digest_of([[message.content for message in system], tools or []])
    return Prefix(digest, begin, begin + count_tokens_approximately(rest))


async def pays(settings: PromptCaching, prefix: Prefix, told: Told, *, model: str) -> bool:
    """Whether a mark will be read again, as far as one can know. A cache that is away knows nothing: then it is not."""
    if max(prefix.tokens, prefix.with_history if settings.history else 0) < settings.least(model):
        return False
    in_a_loop = bool(told.messages) and isinstance(told.messages[-1], ToolMessage)
    if settings.reuse == "always" or in_a_loop:
        return True
    key = key_of("prefix", told.site, "tenant", digest_of([model, prefix.digest]))
    try:
        async with asyncio.timeout(_STORE_S):
            seen = await told.ports.cache.get(key) is not None
            await told.ports.cache.put(key, b"1", ttl_s=_LIFE_S[settings.ttl])
    except Exception as error:  # not knowing costs at most the discount
        log.warning("a cache does not answer; prompts are not marked for the provider's", exc_info=error)
        return False
    return seen


def marked_for_anthropic(
    messages: Sequence[BaseMessage], kwargs: Mapping[str, Any], settings: PromptCaching, *, prefix: Prefix, model: str
) -> tuple[list[BaseMessage], dict[str, Any]]:
    """The call with marks on what is long enough. What is given is left as it is."""
    told, given, control = [*messages], dict(kwargs), settings.control
    least = settings.least(model)
    system = [number for number, message in enumerate(told) if isinstance(message, SystemMessage)]
    if prefix.tokens >= least:
        if given.get("tools"):
            *others, last = cast("list[Any]", given["tools"])
            given["tools"] = [*others, {**last, "cache_control": control} if isinstance(last, dict) else last]
        if system and (blocks := _blocks(told[system[-1]].content)):
            told[system[-1]] = SystemMessage([*blocks[:-1], {**blocks[-1], "cache_control": control}])
    if settings.history and prefix.with_history >= least:
        given.setdefault("cache_control", control)
    return told, given


class PromptCachingModel(PreparingModel):
    """Marks what it passes on."""

    kind: str = "prompt-caching"
    settings: PromptCaching = PromptCaching()
    prices: Prices = Prices()

    async def prepared(self, told: Told) -> Prepared:
        model, provider = name_of(self.inner, told.kwargs)
        prefix = prefix_of(told.messages, told.kwargs.get("tools"))
        if provider in ("openai", "azure"):
            if prefix.tokens < _MINIMUM_ELSE or "prompt_cache_key" in told.kwargs:
                return Prepared(told.messages, told.kwargs)
            key = digest_of([told.site.tenant, model, prefix.digest])[:32]
            return Prepared(told.messages, {**told.kwargs, "prompt_cache_key": key})
        if provider != "anthropic" or not await pays(self.settings, prefix, told, model=model):
            return Prepared(told.messages, told.kwargs)
        messages, kwargs = marked_for_anthropic(told.messages, told.kwargs, self.settings, prefix=prefix, model=model)
        return Prepared(messages, kwargs)

    async def learned(self, told: Told, prepared: Prepared, message: AIMessage) -> None:
        usage = cast("Mapping[str, Any]", message.usage_metadata or {})
        parts = details(usage, "input_token_details")
        if not parts.get("cache_read") and not parts.get("cache_creation"):
            return
        model, provider = name_of(self.inner, told.kwargs)
        plain = {name: usage.get(name) for name in ("input_tokens", "output_tokens", "total_tokens")}
        cost, uncached = (cost_of(self.prices, model, provider, one) for one in (usage, plain))
        saved = None if cost is None or uncached is None else uncached - cost
        detail = {
            "what": "prompt_cache",
            "saved_tokens": 0,
            "saved_nano_usd": saved,
            "read": parts.get("cache_read", 0),
        }
        await record_saving(told.ports, told.site, model, {**detail, "written": parts.get("cache_creation", 0)})


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = cast("list[Any]", content)
    return [block if isinstance(block, dict) else {"type": "text", "text": str(block)} for block in blocks]
