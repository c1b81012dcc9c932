"""A chat model that says four words, fails or waits, and counts how often a provider would have been paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

USAGE: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


class ScriptedModel(BaseChatModel):
    """Says four words; `calls` counts how often somebody was charged."""

    model: str = "scripted"
    fails: bool = False
    waits: bool = False
    silent: bool = False
    """Reports no usage."""
    pause_s: float = 0.0
    calls: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.calls.append("whole")
        if self.fails:
            raise ValueError("no")
        return ChatResult(generations=[ChatGeneration(message=AIMessage("a b c d", usage_metadata=self._usage()))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self.calls.append("streamed")
        for number, word in enumerate(("a ", "b ", "c ", "d")):
            usage = self._usage() if number == 3 else None
            yield ChatGenerationChunk(message=AIMessageChunk(content=word, usage_metadata=usage))
            if self.fails and number == 1:
                raise ValueError("no")

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk
            if self.waits:
                await asyncio.sleep(60)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(self.pause_s)
        return self._generate(messages)

    def _usage(self) -> Any:
        return None if self.silent else USAGE


class AgentModel(ScriptedModel):
    """Calls the tool `look` (so many times at once) until it has been answered `rounds` times, then says four words."""

    rounds: int = 1
    at_once: int = 1

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": 4}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[tool.name for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        said = super()._generate(messages).generations[0].message
        answered = sum(isinstance(message, ToolMessage) for message in messages)
        if answered < self.rounds * self.at_once and kwargs.get("tools"):
            calls: list[dict[str, Any]] = [
                {"name": "look", "args": {}, "id": f"call-{answered + n}"} for n in range(self.at_once)
            ]
            said = AIMessage("", tool_calls=calls, usage_metadata=self._usage())
        return ChatResult(generations=[ChatGeneration(message=said)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._generate(messages, **kwargs).generations[0].message
        if not isinstance(message, AIMessage) or not message.tool_calls:
            self.calls.pop()
            yield from super()._stream(messages)
            return
        chunks: Any = [
            {"name": c["name"], "args": "{}", "id": c["id"], "index": n} for n, c in enumerate(message.tool_calls)
        ]
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", tool_call_chunks=chunks, usage_metadata=self._usage())
        )

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, **kwargs):
            yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(self.pause_s)
        return self._generate(messages, **kwargs)
