"""A chat model whose answers are cached: the form of `ResponseCache` for any node, chain or agent.

    model = CachedModel(inner=ChatOpenAI(model="gpt-4o-mini", temperature=0), answers=ResponseCache())

It is used like the model inside: tools, structured output, streams, sync and async. A hit streams in pieces under a
new message id, asks no guard, holds no budget and costs nothing; `response_metadata["waystation_cache"]` says what it
saved.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from waystation_guards.blocking import wait_for
from waystation_guards.caching.answers import in_pieces
from waystation_guards.caching.responses import Asked, Found, ResponseCache
from waystation_guards.caching.single_flight import Turn
from waystation_guards.errors import GuardUnavailable
from waystation_guards.models.passing import PassingModel, part, whole
from waystation_guards.models.preparing import Heard

log = logging.getLogger(__name__)


class CachedModel(PassingModel):
    """Gives an answer that is known, and passes on what is not."""

    kind: str = "cached"
    answers: ResponseCache

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        async def call() -> AIMessage:
            return await self.inner.ainvoke(messages, self.below(run_manager), stop=stop, **kwargs)

        asked = self._asked(messages, stop, kwargs)
        found = await self.answers.begin(asked)
        if isinstance(found, Found):
            if found.stale:
                self.answers.refresh(asked, call)
            return whole(found.message)
        async with found:
            message = await call()
            await self.answers.keep(asked, message)
        return whole(message)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async def call() -> AIMessage:
            return await self.inner.ainvoke(messages, self.below(run_manager), stop=stop, **kwargs)

        asked = self._asked(messages, stop, kwargs)
        found = await self.answers.begin(asked)
        if isinstance(found, Found):
            if found.stale:
                self.answers.refresh(asked, call)
            for piece in in_pieces(found.message):
                yield part(piece)
            return
        async with found:
            heard = Heard()
            chunks = self.inner.astream(messages, self.below(run_manager), stop=stop, **kwargs)
            async with aclosing(cast("Any", chunks)):
                async for chunk in chunks:
                    heard.add(chunk)
                    yield part(chunk)
            if heard.message is not None:
                await self.answers.keep(asked, heard.message)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = self._asked(messages, stop, kwargs)
        found = self._begin(asked)
        if isinstance(found, Found):
            return whole(found.message)
        try:
            message = self.inner.invoke(messages, self.below(run_manager), stop=stop, **kwargs)
            self._keep(asked, message, found)
        finally:
            _end(asked, found)
        return whole(message)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = self._asked(messages, stop, kwargs)
        found = self._begin(asked)
        if isinstance(found, Found):
            yield from (part(piece) for piece in in_pieces(found.message))
            return
        heard = Heard()
        try:
            for chunk in self.inner.stream(messages, self.below(run_manager), stop=stop, **kwargs):
                heard.add(chunk)
                yield part(chunk)
            if heard.message is not None:
                self._keep(asked, heard.message, found)
        finally:
            _end(asked, found)

    def _asked(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> Asked:
        return self.answers.asked(self.inner, messages, stop=stop, kwargs=kwargs, config=self.where())

    def _begin(self, asked: Asked) -> Found | Turn | None:
        """None where the cache cannot be asked: a call without await on the loop that the cache lives on."""
        try:
            return wait_for(self.answers.begin(asked, blocking=True), asked.ports.loop)
        except GuardUnavailable as error:
            log.warning("a cache was not asked: %s", error)
            return None

    def _keep(self, asked: Asked, message: AIMessage, turn: Turn | None) -> None:
        if turn is not None:
            wait_for(self.answers.keep(asked, message), asked.ports.loop)


def _end(asked: Asked, turn: Turn | None) -> None:
    if turn is not None and turn.leads:
        wait_for(turn.end(), asked.ports.loop)
