"""The callbacks through which a watcher hears of calls."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import handle_event
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig

from waystation_guards.watching.calls import (
    Made,
    ModelCall,
    ToolCall,
    answer,
    is_cache_hit,
    is_wrapper,
    model_call,
    size_of_chunk,
    size_of_event,
    tool_call,
)


class Listener(Protocol):
    """A watcher, as its callbacks see it."""

    config: RunnableConfig | None
    run: str
    loop: asyncio.AbstractEventLoop | None

    async def ask(self, run_id: UUID, call: ModelCall | ToolCall) -> None: ...

    def ask_in_thread(self, run_id: UUID, call: ModelCall | ToolCall) -> None: ...

    async def tell(self, run_id: UUID, made: Made, **outcome: Any) -> None: ...

    def tell_in_thread(self, run_id: UUID, made: Made, **outcome: Any) -> None: ...

    def streamed(self, run_id: UUID, how: str, chars: int) -> None: ...


class _Either:
    """A callback with two forms: LangChain looks it up each time, and what asks says which it can use."""

    def __init__(self, name: str) -> None:
        self._awaited, self._blocking = f"awaited_{name}", f"blocking_{name}"

    def __get__(self, handler: Any, owner: Any = None) -> Any:
        return getattr(handler, self._blocking if _is_blocking() else self._awaited)


class CallHandler(BaseCallbackHandler):
    """Tells a watcher of calls that are awaited, and of those that block.

    One handler does both: of two, LangChain would leave one unawaited where the other refuses.
    """

    raise_error = True
    run_inline = True

    on_chat_model_start: Any = _Either("model_start")
    on_llm_start: Any = _Either("prompt_start")
    on_llm_new_token: Any = _Either("token")
    on_stream_event: Any = _Either("event")
    on_llm_end: Any = _Either("model_end")
    on_llm_error: Any = _Either("model_error")
    on_tool_start: Any = _Either("tool_start")
    on_tool_end: Any = _Either("tool_end")
    on_tool_error: Any = _Either("tool_error")

    def __init__(self, watcher: Listener) -> None:
        self.watcher = watcher

    async def awaited_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
    ) -> None:
        if not is_wrapper(told):
            await self.watcher.ask(run_id, self._model_call(messages[0], run_id, told))

    def blocking_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
    ) -> None:
        if not is_wrapper(told):
            self.watcher.ask_in_thread(run_id, self._model_call(messages[0], run_id, told))

    async def awaited_prompt_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **told: Any) -> None:
        await self.watcher.ask(run_id, self._model_call([HumanMessage(prompts[0])], run_id, told))

    def blocking_prompt_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **told: Any) -> None:
        self.watcher.ask_in_thread(run_id, self._model_call([HumanMessage(prompts[0])], run_id, told))

    async def awaited_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **_: Any) -> None:
        self.watcher.streamed(run_id, "tokens", size_of_chunk(token, chunk))

    def blocking_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **_: Any) -> None:
        self.watcher.streamed(run_id, "tokens", size_of_chunk(token, chunk))

    async def awaited_event(self, event: Any, *, run_id: UUID, **_: Any) -> None:
        self.watcher.streamed(run_id, "events", size_of_event(event))

    def blocking_event(self, event: Any, *, run_id: UUID, **_: Any) -> None:
        self.watcher.streamed(run_id, "events", size_of_event(event))

    async def awaited_model_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        await self.watcher.tell(run_id, _made(response), **answer(response))

    def blocking_model_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        self.watcher.tell_in_thread(run_id, _made(response), **answer(response))

    async def awaited_model_error(self, error: BaseException, *, run_id: UUID, response: Any = None, **_: Any) -> None:
        await self.watcher.tell(run_id, _failed(error), error=error, **_partial(response))

    def blocking_model_error(self, error: BaseException, *, run_id: UUID, response: Any = None, **_: Any) -> None:
        self.watcher.tell_in_thread(run_id, _failed(error), error=error, **_partial(response))

    async def awaited_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **told: Any) -> None:
        await self.watcher.ask(run_id, self._tool_call(serialized, run_id, told))

    def blocking_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **told: Any) -> None:
        self.watcher.ask_in_thread(run_id, self._tool_call(serialized, run_id, told))

    async def awaited_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        await self.watcher.tell(run_id, "made")

    def blocking_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        self.watcher.tell_in_thread(run_id, "made")

    async def awaited_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        await self.watcher.tell(run_id, _failed(error), error=error)

    def blocking_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self.watcher.tell_in_thread(run_id, _failed(error), error=error)

    def _model_call(self, messages: Sequence[BaseMessage], run_id: UUID, told: Mapping[str, Any]) -> ModelCall:
        return model_call(messages, run_id, told, config=self.watcher.config, run=self.watcher.run)

    def _tool_call(self, serialized: Any, run_id: UUID, told: Mapping[str, Any]) -> ToolCall:
        return tool_call(serialized, run_id, told, config=self.watcher.config, run=self.watcher.run)


def _made(response: LLMResult) -> Made:
    return "not made" if is_cache_hit(response) else "made"


def _failed(error: BaseException) -> Made:
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "failed"


def _partial(response: Any) -> dict[str, Any]:
    """What a broken answer told before it broke."""
    return answer(response) if isinstance(response, LLMResult) else {}


def _is_blocking() -> bool:
    """Whether LangChain tells of a call that is not awaited. A running loop says nothing: nodes that should await, but
    do not, have one. The errors of async handlers are swallowed in such calls."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame is not None and frame.f_code is handle_event.__code__
