"""A chat model that says four words, fails or waits, and counts how often a provider would have been paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
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
