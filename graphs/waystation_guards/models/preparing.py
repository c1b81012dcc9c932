"""A chat model that changes what another one is told, and notes afterwards what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig

from waystation_guards.blocking import wait_for
from waystation_guards.calls import CallSite, site_of
from waystation_guards.models.passing import PassingModel, part, whole
from waystation_guards.ports import Ports, ports_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the model inside is told. `mark`: what the answer's `response_metadata` says of it; `note` is for later."""

    messages: Sequence[BaseMessage]
    kwargs: Mapping[str, Any]
    mark: Mapping[str, Any] = field(default_factory=dict[str, Any])
    note: Any = None


@dataclass(frozen=True, slots=True)
class Told:
    """A call before it is prepared. `below`: the config for calls that the preparing itself makes."""

    messages: list[BaseMessage]
    kwargs: dict[str, Any]
    site: CallSite
    ports: Ports
    below: RunnableConfig


class PreparingModel(PassingModel):
    """Subclasses say what is told instead (`prepared`) and what is learned from the answer (`learned`)."""

    async def prepared(self, told: Told) -> Prepared:
        """What to tell the model inside."""
        return Prepared(told.messages, told.kwargs)

    async def learned(self, told: Told, prepared: Prepared, message: AIMessage) -> None:
        """The call is over, and this is the answer."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        told = self._told(messages, kwargs, self.below(run_manager))
        ready = await self.prepared(told)
        message = await self.inner.ainvoke([*ready.messages], told.below, stop=stop, **ready.kwargs)
        await self.learned(told, ready, message)
        return whole(_marked(message, ready.mark))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        told, heard = self._told(messages, kwargs, self.below(run_manager)), Heard()
        ready = await self.prepared(told)
        chunks = self.inner.astream([*ready.messages], told.below, stop=stop, **ready.kwargs)
        async with aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                said = chunk if heard.message is not None else _marked(chunk, ready.mark)
                heard.add(said)
                yield part(said)
        if heard.message is not None:
            await self.learned(told, ready, heard.message)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        told = self._told(messages, kwargs, self.below(run_manager))
        ready = wait_for(self.prepared(told), told.ports.loop)
        message = self.inner.invoke([*ready.messages], told.below, stop=stop, **ready.kwargs)
        wait_for(self.learned(told, ready, message), told.ports.loop)
        return whole(_marked(message, ready.mark))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        told, heard = self._told(messages, kwargs, self.below(run_manager)), Heard()
        ready = wait_for(self.prepared(told), told.ports.loop)
        for chunk in self.inner.stream([*ready.messages], told.below, stop=stop, **ready.kwargs):
            said = chunk if heard.message is not None else _marked(chunk, ready.mark)
            heard.add(said)
            yield part(said)
        if heard.message is not None:
            wait_for(self.learned(told, ready, heard.message), told.ports.loop)

    def _told(self, messages: list[BaseMessage], kwargs: dict[str, Any], below: RunnableConfig) -> Told:
        config = self.where()
        return Told(messages, kwargs, site_of(config), ports_of(config), below)


class Heard:
    """What a stream has said so far, as one message."""

    def __init__(self) -> None:
        self.message: AIMessage | None = None

    def add(self, chunk: BaseMessage) -> None:
        """The next piece, or all of it from a model that does not stream."""
        if isinstance(self.message, AIMessageChunk) and isinstance(chunk, AIMessageChunk):
            self.message = self.message + chunk
        elif isinstance(chunk, AIMessage):
            self.message = chunk


def _marked(message: Any, mark: Mapping[str, Any]) -> Any:
    if not mark:
        return message
    return message.model_copy(update={"response_metadata": {**message.response_metadata, **mark}})
