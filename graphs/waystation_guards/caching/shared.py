"""LangChain's own cache interface over the guards' cache: for graphs that nobody edited.

    set_llm_cache(SharedCache(CacheRules(temperature="unset")))           the same rules for the whole process
    set_llm_cache(SharedCache(lambda config: …))                          rules by the running config; None: no cache

LangChain asks it for `invoke`, `ainvoke` and batches of every chat model (not for `stream` and `astream`: `CachedModel`
does those), and only after callbacks have heard of the call: what a guard holds for a call is given back as soon as the
answer is found, but a call that a budget refuses is refused although its answer may be known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Final, cast

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import RunnableConfig

from waystation_guards.blocking import wait_for
from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.savings import record_hit
from waystation_guards.caching.answers import Answer, decode, encode, given_again, why_not_kept
from waystation_guards.caching.keys import digest_of, key_of
from waystation_guards.caching.rules import (
    CacheEvent,
    CacheRules,
    Happened,
    OnCacheEvent,
    ttl_of,
    why_not_the_temperature,
)
from waystation_guards.caching.single_flight import Turn, take_turn
from waystation_guards.calls import CallSite, current_config, site_of
from waystation_guards.errors import GuardUnavailable
from waystation_guards.ports import Ports, ports_of

log = logging.getLogger(__name__)

RulesOf = Callable[[RunnableConfig | None], CacheRules | None]

_AWAY_S: Final = 5.0
_WAIT_S: Final = 10.0
"""How long others wait at most: LangChain does not tell a cache that a call failed, so its lock ends by time alone."""
_TEMPERATURE: Final = re.compile(r"""["']temperature["']\s*[:,]\s*([0-9.eE+-]+|None|null)""")
_OF_THE_RUN: Final = frozenset(("id", "response_metadata", "usage_metadata", "artifact"))


class SharedCache(BaseCache):
    """A `BaseCache` of the caller's tenant, with the ports of the running config."""

    def __init__(
        self,
        rules: CacheRules | RulesOf | None = None,
        *,
        prices: Prices | None = None,
        on_event: OnCacheEvent | None = None,
    ) -> None:
        """`rules`: what is cached, or a function that says it for a running config (None: nothing). Staleness is not
        for this cache: there is nobody here who could ask anew."""
        fixed = CacheRules() if rules is None else rules
        self._rules: RulesOf = fixed if callable(fixed) else lambda _: fixed
        self._prices = prices or Prices()
        self._on_event = on_event
        self._away_until = 0.0

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer to a prompt that is known; None for LangChain to make the call."""
        asked = self._asked(prompt, llm_string)
        return None if asked is None else await self._lookup(*asked)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep an answer that is worth it."""
        asked = self._asked(prompt, llm_string)
        if asked is not None:
            await self._update(*asked, return_val)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """As `alookup`, for code that blocks."""
        asked = self._asked(prompt, llm_string)
        if asked is None:
            return None
        try:
            return wait_for(self._lookup(*asked), asked[1].loop)
        except GuardUnavailable as error:
            log.warning("a cache was not asked: %s", error)
            return None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """As `aupdate`, for code that blocks."""
        asked = self._asked(prompt, llm_string)
        if asked is None:
            return
        try:
            wait_for(self._update(*asked, return_val), asked[1].loop)
        except GuardUnavailable:
            return

    def clear(self, **_: Any) -> None:
        """Nothing: what others rely on is not one caller's to remove. Another `version` of the rules finds nothing."""

    async def aclear(self, **_: Any) -> None:
        """As `clear`."""

    def _asked(self, prompt: str, llm_string: str) -> tuple[CacheRules, Ports, CallSite, str] | None:
        if monotonic() < self._away_until:
            return None
        config = current_config()
        rules = self._rules(config)
        if rules is None:
            return None
        site = site_of(config)
        if why_not_the_temperature(_temperature(llm_string), rules) or (rules.scope == "user" and not site.user):
            self._tell("skipped", "", site)
            return None
        digest = digest_of([llm_string, _plain_prompt(prompt)])
        return rules, ports_of(config), site, key_of("langchain", site, rules.scope, digest, version=rules.version)

    async def _lookup(self, rules: CacheRules, ports: Ports, site: CallSite, key: str) -> list[Generation] | None:
        async def read() -> Answer | None:
            data = await ports.cache.get(key)
            return None if data is None else decode(data)

        try:
            async with asyncio.timeout(rules.store_s):
                answer = await read()
            happened: Happened = "hit"
            if answer is None and (holder := _holder(rules, site)):
                happened, patience = (
                    "waited",
                    replace(rules.patience, wait_s=min(rules.wait_s, _WAIT_S), lock_s=_WAIT_S),
                )
                found = await take_turn(ports.cache, key, read=read, patience=patience, holder=holder)
                answer = None if isinstance(found, Turn) else found
        except Exception as error:  # a cache in trouble costs money and breaks nothing
            self._away(site, error)
            return None
        if answer is None:
            self._tell("miss", "", site)
            return None
        mark: dict[str, Any] = {"layer": "exact", "saved_tokens": answer.tokens, "saved_nano_usd": answer.cost_nano_usd}
        await record_hit(ports, site, answer.model, mark, within_s=rules.store_s)
        self._tell(happened, answer.model, site, tokens=answer.tokens, nano_usd=answer.cost_nano_usd or 0)
        return [ChatGeneration(message=given_again(answer, mark))]

    async def _update(
        self, rules: CacheRules, ports: Ports, site: CallSite, key: str, made: Sequence[Generation]
    ) -> None:
        message = made[0].message if len(made) == 1 and isinstance(made[0], ChatGeneration) else None
        try:
            async with asyncio.timeout(rules.store_s):
                if isinstance(message, AIMessage):
                    await self._keep(rules, ports, site, key, message)
                if holder := _holder(rules, site):
                    await ports.cache.unlock(key, holder=holder)
        except Exception as error:  # as in `_lookup`
            self._away(site, error)

    async def _keep(self, rules: CacheRules, ports: Ports, site: CallSite, key: str, message: AIMessage) -> None:
        told = message.response_metadata
        provider, model = str(told.get("model_provider") or ""), str(told.get("model_name") or told.get("model") or "")
        if (why := why_not_kept(message, provider)) is not None:
            self._tell("not_kept", model, site, why=why)
            return
        usage = cast("Mapping[str, Any]", message.usage_metadata or {})
        price = self._prices.cost(model, usage, provider=provider or None) if usage and model else None
        try:
            data = encode(Answer(message, model, provider, None if price is None else price.nano_usd))
        except TypeError as error:
            self._tell("not_kept", model, site, why=f"it is no JSON: {error}")
            return
        if len(data) <= rules.max_bytes:
            await ports.cache.put(key, data, ttl_s=ttl_of(rules))
            self._tell("kept", model, site)

    def _away(self, site: CallSite, error: Exception) -> None:
        self._away_until = monotonic() + _AWAY_S
        log.warning("a cache does not answer; calls are made without it", exc_info=error)
        self._tell("unavailable", "", site, why=type(error).__name__)

    def _tell(
        self, happened: Happened, model: str, site: CallSite, *, tokens: int = 0, nano_usd: int = 0, why: str = ""
    ) -> None:
        if self._on_event is not None:
            self._on_event(CacheEvent(happened, "exact", model, site, tokens, nano_usd, why))


def _holder(rules: CacheRules, site: CallSite) -> str:
    """Who asks: a task of a run, so that the retry of a call does not wait for the call that failed. Where nobody knows
    the task, nobody waits."""
    known = rules.single_flight and (site.run or site.namespace)
    return digest_of([site.run, site.attempt, site.namespace, site.node]) if known else ""


def _temperature(llm_string: str) -> float | None:
    """The temperature that LangChain's text about a model and its arguments names; the arguments come last."""
    found = _TEMPERATURE.findall(llm_string)
    try:
        return float(found[-1]) if found else None
    except ValueError:
        return None


def _plain_prompt(prompt: str) -> Any:
    """LangChain's text of messages without what is of the run that they are from."""
    try:
        messages = cast("list[Any]", json.loads(prompt))
        plain = [_plain_message(message["kwargs"]) for message in messages]
    except (ValueError, TypeError, KeyError):
        return prompt
    numbers: dict[str, str] = {}
    for message in plain:
        for call in cast("list[dict[str, Any]]", message.get("tool_calls") or []):
            numbers.setdefault(json.dumps(call.get("id")), f'"#{len(numbers)}"')
    text = json.dumps(plain, sort_keys=True)
    for number, placed in numbers.items():
        text = text.replace(number, placed)
    return text


def _plain_message(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in _OF_THE_RUN}
