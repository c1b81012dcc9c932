"""Chat models that answer by a script: words, errors, waits and silences, a list of them for each call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

Step = str | Exception | AIMessageChunk | asyncio.Event
"""A word, an error to raise, a chunk, or a wait: for the event, which is set by nobody where it is to hang."""


class Status(Exception):
    """An answer with an error's status, as providers' clients raise it."""

    def __init__(self, status: int, *, retry_after_s: float | None = None, code: str = "") -> None:
        super().__init__(f"status {status} {code}")
        self.status_code = status
        self.code = code
        headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        self.response = _Response(status, headers)


class _Response:
    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.headers = headers


class Scripted(BaseChatModel):
    """Plays the next script for each call, and the last one for ever. `asked` keeps what it was asked."""

    model: str = "scripted"
    scripts: list[list[Any]] = Field(default_factory=list[list[Any]])
    asked: list[list[BaseMessage]] = Field(default_factory=list[list[BaseMessage]])
    tools: list[Any] = Field(default_factory=list[Any])
    began: list[threading.Event] = Field(default_factory=lambda: [threading.Event()])
    ended: list[str] = Field(default_factory=list[str])
    """How each stream was left: by its end, an error, or a cancellation."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[getattr(one, "name", one) for one in tools], **kwargs)

    def _script(self, messages: list[BaseMessage], told: dict[str, Any]) -> list[Any]:
        self.asked.append(list(messages))
        self.tools.append(told.get("tools"))
        self.began[0].set()
        return self.scripts[min(len(self.asked), len(self.scripts)) - 1]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole(self._play(self._script(messages, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole([chunk async for chunk in self._aplay(self._script(messages, kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._play(self._script(messages, kwargs)):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self._aplay(self._script(messages, kwargs)):
            yield ChatGenerationChunk(message=chunk)

    async def _aplay(self, script: list[Any]) -> AsyncIterator[AIMessageChunk]:
        how = "cancelled"
        try:
            for step in script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield _chunk(step)
            how = "ended"
        except asyncio.CancelledError:
            raise
        except Exception:
            how = "failed"
            raise
        finally:
            self.ended.append(how)

    def _play(self, script: list[Any]) -> Iterator[AIMessageChunk]:
        for step in script:
            if isinstance(step, threading.Event):
                step.wait(90)
            else:
                yield _chunk(step)


async def until(is_so: Callable[[], bool]) -> None:
    """Let others run until it is so; within a minute."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110  # what is waited for is another's attribute
            await asyncio.sleep(0)


def _chunk(step: Any) -> AIMessageChunk:
    if isinstance(step, Exception):
        raise step
    return step if isinstance(step, AIMessageChunk) else AIMessageChunk(content=step)


def _whole(chunks: Any) -> ChatResult:
    full: AIMessageChunk | None = None
    for chunk in chunks:
        full = chunk if full is None else full + chunk
    found = full or AIMessageChunk(content="")
    cut = [one for one in found.tool_call_chunks if not (one["args"] or "").endswith("}")]
    message = AIMessage(
        found.content,
        tool_calls=[] if cut else found.tool_calls,
        invalid_tool_calls=[
            {"type": "invalid_tool_call", "name": one["name"], "args": one["args"], "id": one["id"], "error": None}
            for one in cut
        ],
        usage_metadata=found.usage_metadata,
        response_metadata=found.response_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
