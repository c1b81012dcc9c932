"""The cache of models' answers: exact, and where asked for also by meaning. `CachedModel` is the form to use.

    asked = answers.asked(model, messages, …)
    found = await answers.begin(asked)      ─▶ Found: an answer, already in the ledger as a hit with what it saved
                                             └▶ Turn: nobody has it; make the call within it, then `keep`

A cache is never in the way: while its store is away, calls are made without it, and for some seconds nobody asks it.
Nor is it a way around other guards: a miss is a call like any other, and a hit is none at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import Any, Final, cast
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.savings import record_hit
from waystation_guards.caching.answers import Answer, decode, encode, given_again, why_not_kept
from waystation_guards.caching.keys import Question, key_of, question_of
from waystation_guards.caching.rules import (
    CacheEvent,
    CacheRules,
    Happened,
    Layer,
    OnCacheEvent,
    ttl_of,
    why_not_the_temperature,
)
from waystation_guards.caching.semantic import SemanticCache
from waystation_guards.caching.single_flight import Flights, Turn, take_turn
from waystation_guards.calls import CallSite, site_of
from waystation_guards.caps.broken_calls import calls_fit, checks_of
from waystation_guards.ports import Ports, ports_of

log = logging.getLogger(__name__)

_AWAY_S: Final = 5.0
"""How long nobody asks a store that did not answer."""
_REFRESHES: Final = 32
"""Calls in the background of one cache and process."""
_BLOCKING_LOCK_S: Final = 120.0
"""A lock of code that blocks is not renewed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that may be answered from the cache. `why_not`: the reason why it is not even looked for."""

    question: Question
    key: str
    site: CallSite
    ports: Ports
    store: Any = None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An answer from the cache, as a new message. `stale`: it is time that somebody asks anew."""

    message: AIMessage
    stale: bool = False


class ResponseCache:
    """Answers of models, for whoever asks the same again. Any thread and any loop may use it."""

    def __init__(
        self,
        rules: CacheRules | None = None,
        *,
        semantic: SemanticCache | None = None,
        prices: Prices | None = None,
        on_event: OnCacheEvent | None = None,
        name: str = "answer",
    ) -> None:
        """`semantic`: also look for answers to questions that mean the same. `on_event`: told what happens, for
        metrics; it must not block. `name`: caches of one name share what they keep; two that may stand around the same
        call need two, or the inner one would wait for the outer. Defaults: the rules' own, prices of the library,
        nobody told."""
        self.rules = rules or CacheRules()
        self.semantic = semantic
        self.prices = prices or Prices()
        self._on_event = on_event
        self._name = name
        self._away_until = 0.0
        self._flights = Flights()
        self._refreshing: set[asyncio.Task[None]] = set()

    def asked(
        self,
        model: BaseChatModel,
        messages: Sequence[BaseMessage],
        *,
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        config: RunnableConfig | None,
    ) -> Asked:
        """The call as the cache sees it: whose it is, and what is asked."""
        question, site = question_of(model, messages, stop, kwargs), site_of(config)
        key = key_of(self._name, site, self.rules.scope, question.digest, version=self.rules.version)
        return Asked(question, key, site, ports_of(config), _store_of(config), self._why_not(question, site))

    async def begin(self, asked: Asked, *, blocking: bool = False) -> Found | Turn:
        """Look for the answer; wait for whoever is asking the same already. Never raises for the cache's own trouble.

        `blocking`: for code that cannot refresh in the background: the first that finds a stale answer asks anew
        itself.
        """
        if asked.why_not is not None:
            self._tell("skipped", asked, why=asked.why_not)
            return self._alone(asked)
        if monotonic() < self._away_until:
            return self._alone(asked)
        try:
            return await self._begin(asked, blocking)
        except Exception as error:  # a cache in trouble costs money and breaks nothing
            self._away(asked, error)
            return self._alone(asked)

    async def known(self, asked: Asked) -> AIMessage | None:
        """What is kept, also where it is stale; None if nothing is. For callers that can make no call: nobody is
        waited for, and nobody asks anew. Never raises for the cache's own trouble."""
        if asked.why_not is not None:
            self._tell("skipped", asked, why=asked.why_not)
            return None
        if monotonic() < self._away_until:
            return None
        try:
            answer, fresh = await self._look(asked)
            if answer is not None:
                return (await self._hit(asked, answer, "hit" if fresh else "stale", "exact")).message
            near = await self._near(asked)
            return None if near is None else (await self._hit(asked, near[0], "hit", "semantic", score=near[1])).message
        except Exception as error:  # as in `begin`
            self._away(asked, error)
            return None

    async def keep(self, asked: Asked, message: AIMessage) -> None:
        """Keep an answer if it is worth it. Never raises for the cache's own trouble."""
        if asked.why_not is not None or monotonic() < self._away_until:
            return
        question = asked.question
        why = why_not_kept(message, question.provider)
        if why is None and not calls_fit(message, checks_of(question.params.get("tools") or ())):
            why = "a tool call of it does not fit the schema"
        if why is not None:
            self._tell("not_kept", asked, why=why)
            return
        usage = cast("Mapping[str, Any]", message.usage_metadata or {})
        price = self.prices.cost(question.model, usage, provider=question.provider or None) if usage else None
        answer = Answer(message, question.model, question.provider, None if price is None else price.nano_usd)
        try:
            await self._keep(asked, answer)
        except TypeError as error:
            self._tell("not_kept", asked, why=f"it is no JSON: {error}")
        except Exception as error:  # as in `begin`
            self._away(asked, error)

    def refresh(self, asked: Asked, compute: Callable[[], Awaitable[AIMessage]]) -> None:
        """Ask anew in the background, if nobody else does; other guards are asked as for any call."""
        if len(self._refreshing) < _REFRESHES:
            task = asyncio.create_task(self._refresh(asked, compute))
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    async def aclose(self) -> None:
        """Wait for the calls in the background."""
        while self._refreshing:
            await asyncio.wait(list(self._refreshing))

    async def _begin(self, asked: Asked, blocking: bool) -> Found | Turn:
        answer, fresh = await self._look(asked)
        if answer is not None and not fresh and not blocking:
            return await self._hit(asked, answer, "stale", "exact")
        if answer is not None and not fresh:
            turn = await self._turn_at_once(asked)
            return turn or await self._hit(asked, answer, "stale", "exact")
        if answer is not None:
            return await self._hit(asked, answer, "hit", "exact")
        if (near := await self._near(asked)) is not None:
            return await self._hit(asked, near[0], "hit", "semantic", score=near[1])
        if not self.rules.single_flight:
            self._tell("miss", asked)
            return self._alone(asked)
        patience = replace(self.rules.patience, lock_s=_BLOCKING_LOCK_S) if blocking else self.rules.patience
        found = await take_turn(
            asked.ports.cache,
            asked.key,
            read=lambda: self._fresh(asked),
            patience=patience,
            flights=None if blocking else self._flights,
        )
        if isinstance(found, Turn):
            self._tell("miss", asked)
            return found
        return await self._hit(asked, found, "waited", "exact")

    async def _look(self, asked: Asked) -> tuple[Answer | None, bool]:
        cache = asked.ports.cache
        async with asyncio.timeout(self.rules.store_s):
            if not self.rules.stale_s:
                data = await cache.get(asked.key)
                return (None, False) if data is None else (decode(data), True)
            data, mark = await asyncio.gather(cache.get(asked.key), cache.get(_fresh_mark(asked)))
        return (None, False) if data is None else (decode(data), mark is not None)

    async def _fresh(self, asked: Asked) -> Answer | None:
        answer, fresh = await self._look(asked)
        return answer if fresh else None

    async def _near(self, asked: Asked) -> tuple[Answer, float] | None:
        if self.semantic is None:
            return None
        try:
            async with asyncio.timeout(self.semantic.within_s):
                now = await asked.ports.ledger.now()
                found = await self.semantic.find(
                    asked.question, asked.site, asked.store, scope=self.rules.scope, now=now
                )
        except Exception as error:  # the exact cache goes on without it
            log.warning("the store of a semantic cache does not answer", exc_info=error)
            return None
        answer = None if found is None else decode(found.data)
        return None if found is None or answer is None else (answer, found.score)

    async def _keep_near(self, asked: Asked, data: bytes, ttl_s: float) -> None:
        if self.semantic is None:
            return
        try:
            async with asyncio.timeout(self.semantic.within_s):
                until = await asked.ports.ledger.now() + timedelta(seconds=ttl_s)
                await self.semantic.keep(
                    asked.question, asked.site, asked.store, data, scope=self.rules.scope, until=until, ttl_s=ttl_s
                )
        except Exception as error:  # as in `_near`
            log.warning("the store of a semantic cache does not answer", exc_info=error)

    async def _keep(self, asked: Asked, answer: Answer) -> None:
        data, rules, cache = encode(answer), self.rules, asked.ports.cache
        if len(data) > rules.max_bytes:
            self._tell("not_kept", asked, why="it is too large")
            return
        ttl_s = ttl_of(rules)
        async with asyncio.timeout(rules.store_s):
            await cache.put(asked.key, data, ttl_s=ttl_s + rules.stale_s)
            if rules.stale_s:
                await cache.put(_fresh_mark(asked), b"1", ttl_s=ttl_s)
        await self._keep_near(asked, data, ttl_s)
        self._tell("kept", asked)

    async def _refresh(self, asked: Asked, compute: Callable[[], Awaitable[AIMessage]]) -> None:
        try:
            turn = await self._turn_at_once(asked)
            if turn is not None:
                async with turn:
                    await self.keep(asked, await compute())
        except Exception as error:  # nobody waits for it; the stale answer has been given, and the next caller tries
            log.info("a stale answer was not renewed: %s", error)

    async def _turn_at_once(self, asked: Asked) -> Turn | None:
        holder, patience = uuid4().hex, self.rules.patience
        async with asyncio.timeout(patience.store_s):
            leads = await asked.ports.cache.lock(asked.key, holder=holder, ttl_s=patience.lock_s)
        return Turn(asked.ports.cache, asked.key, leads=True, patience=patience, holder=holder) if leads else None

    async def _hit(
        self, asked: Asked, answer: Answer, happened: Happened, layer: Layer, *, score: float | None = None
    ) -> Found:
        saved = {"saved_tokens": answer.tokens, "saved_nano_usd": answer.cost_nano_usd}
        mark = {"layer": layer, **saved, **({} if score is None else {"score": round(score, 4)})}
        if happened == "stale":
            mark["stale"] = True
        await record_hit(asked.ports, asked.site, answer.model, mark, within_s=self.rules.store_s)
        self._tell(happened, asked, layer=layer, tokens=answer.tokens, nano_usd=answer.cost_nano_usd or 0)
        return Found(given_again(answer, mark), stale=happened == "stale")

    def _why_not(self, question: Question, site: CallSite) -> str | None:
        if self.rules.scope == "user" and not site.user:
            return "nobody knows whose call it is"
        if (question.params.get("n") or 1) != 1:
            return "it asks for several answers"
        return why_not_the_temperature(question.params.get("temperature"), self.rules)

    def _alone(self, asked: Asked) -> Turn:
        return Turn(asked.ports.cache, asked.key, leads=False, patience=self.rules.patience)

    def _away(self, asked: Asked, error: Exception) -> None:
        self._away_until = monotonic() + _AWAY_S
        log.warning("a cache does not answer; calls are made without it", exc_info=error)
        self._tell("unavailable", asked, why=type(error).__name__)

    def _tell(
        self,
        happened: Happened,
        asked: Asked,
        *,
        layer: Layer = "exact",
        tokens: int = 0,
        nano_usd: int = 0,
        why: str = "",
    ) -> None:
        if self._on_event is not None:
            self._on_event(CacheEvent(happened, layer, asked.question.model, asked.site, tokens, nano_usd, why))


def _fresh_mark(asked: Asked) -> str:
    return f"{asked.key}:fresh"


def _store_of(config: RunnableConfig | None) -> Any:
    """The store of the graph that makes the call."""
    runtime = cast("Mapping[str, Any]", (config or {}).get("configurable") or {}).get("__pregel_runtime")
    return getattr(runtime, "store", None)
