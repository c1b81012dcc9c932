"""Watches every model and tool call below a config, whoever makes it, and lets guards refuse it beforehand.

    config = watched(config, [budget, limiter])            in a node, for a whole graph, or by a server for a graph that
    await graph.ainvoke(input, config)                     nobody edited

    model call ─▶ before_model of each guard, in order ─▶ the provider ─▶ after_model of each, in reverse
                   └─ a refusal raises out of the call; guards that had agreed are told `not made`

LangChain tells callbacks of every call, also of those inside tools, subgraphs, retries and fallbacks. It does not tell
of calls whose task is cancelled: `Watcher.close` ends those, with what had been streamed until then.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, Protocol, cast
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.callbacks.manager import handle_event
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from waystation_guards.blocking import wait_for
from waystation_guards.calls import WRAPPER, CallSite, current_config, site_of
from waystation_guards.ports import Ports, ports_of

Made = Literal["made", "failed", "cancelled", "not made"]


@dataclass(slots=True, eq=False)
class ModelCall:
    """A call of a chat model, before, while and after it is made. `id` is the id of LangChain's run."""

    id: str
    site: CallSite
    ports: Ports
    model: str
    provider: str
    messages: Sequence[BaseMessage]
    params: Mapping[str, Any]
    began: float = field(default_factory=monotonic)
    streamed_chunks: int = 0
    streamed_chars: int = 0
    answered_chars: int = 0
    usage: Mapping[str, Any] | None = None
    """What the provider says it was; None where it says nothing."""
    response: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The `response_metadata` of the answer: the provider's headers too, where the model was told to include them."""
    error: BaseException | None = None
    held: dict[int, Any] = field(default_factory=dict[int, Any])
    """What guards keep about the call, by their own id()."""

    @property
    def max_tokens(self) -> int | None:
        """The most the model may answer with, if the program said so."""
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "ls_max_tokens"):
            if isinstance(value := self.params.get(name), int) and value > 0:
                return value
        return None


@dataclass(slots=True, eq=False)
class ToolCall:
    """A call of a tool."""

    id: str
    site: CallSite
    ports: Ports
    name: str
    arguments: Mapping[str, Any]
    began: float = field(default_factory=monotonic)
    error: BaseException | None = None
    held: dict[int, Any] = field(default_factory=dict[int, Any])


class Guard(Protocol):
    """What watches calls. Each method may be called for many calls at the same time."""

    async def before_model(self, call: ModelCall) -> None:
        """Raise a GuardError to keep the call from being made."""
        ...

    async def after_model(self, call: ModelCall, made: Made) -> None: ...

    async def before_tool(self, call: ToolCall) -> None:
        """Raise a GuardError to keep the call from being made."""
        ...

    async def after_tool(self, call: ToolCall, made: Made) -> None: ...


class Watcher:
    """The guards of one run (or of one program), and the calls that are open. Any thread may make calls."""

    def __init__(self, guards: Sequence[Guard], *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """`loop`: where the guards' ports live, for calls that threads make; None where they live anywhere."""
        self.guards = tuple(guards)
        self.loop = loop
        self._open: dict[UUID, ModelCall | ToolCall] = {}
        self._lock = threading.Lock()

    @property
    def handlers(self) -> list[BaseCallbackHandler]:
        """The callbacks to put into a config: one for calls on a loop, one for calls in threads."""
        return [_InThreads(self), _OnLoop(self)]

    async def close(self) -> None:
        """End the calls that nobody told the end of: their tasks were cancelled."""
        with self._lock:
            left = list(self._open)
        for run_id in left:
            await self.after(run_id, "cancelled")

    async def before(self, run_id: UUID, call: ModelCall | ToolCall) -> None:
        """Ask the guards, in order. Raises what the first one refuses with."""
        with self._lock:
            if run_id in self._open:
                return
            self._open[run_id] = call
        for number, guard in enumerate(self.guards):
            try:
                await (guard.before_model(call) if isinstance(call, ModelCall) else guard.before_tool(call))
            except BaseException:
                with self._lock:
                    self._open.pop(run_id, None)
                await _after(self.guards[:number], call, "not made")
                raise

    async def after(self, run_id: UUID, made: Made, **outcome: Any) -> None:
        """Tell the guards how a call ended; once."""
        with self._lock:
            call = self._open.pop(run_id, None)
        if call is None:
            return
        for name, value in outcome.items():
            setattr(call, name, value)
        await _after(self.guards, call, made)

    def streamed(self, run_id: UUID, text: str) -> None:
        """Count what came of a call that is open."""
        call = self._open.get(run_id)
        if isinstance(call, ModelCall):
            call.streamed_chunks += 1
            call.streamed_chars += len(text)

    def is_open(self, run_id: UUID) -> bool:
        return run_id in self._open


def watched(config: RunnableConfig | None, guards: Sequence[Guard]) -> RunnableConfig:
    """The config with callbacks that ask these guards before every call below it."""
    return merge_configs(config, {"callbacks": cast("Any", Watcher(guards).handlers)})


async def _after(guards: Sequence[Guard], call: ModelCall | ToolCall, made: Made) -> None:
    failed: BaseException | None = None
    for guard in reversed(guards):
        try:
            await (guard.after_model(call, made) if isinstance(call, ModelCall) else guard.after_tool(call, made))
        except Exception as error:  # one guard's trouble must not keep the others from hearing of the end
            failed = failed or error
    if failed is not None:
        raise failed


def _model_call(messages: Sequence[BaseMessage], run_id: UUID, told: Mapping[str, Any]) -> ModelCall:
    config = current_config()
    metadata = cast("Mapping[str, Any]", told.get("metadata") or {})
    params = {**metadata, **cast("Mapping[str, Any]", told.get("invocation_params") or {})}
    name = params.get("model") or params.get("model_name") or metadata.get("ls_model_name") or params.get("_type") or ""
    return ModelCall(
        id=str(run_id),
        site=site_of(config or {"metadata": dict(metadata)}),
        ports=ports_of(config),
        model=str(name),
        provider=str(metadata.get("ls_provider") or ""),
        messages=messages,
        params=params,
    )


def _is_wrapper(told: Mapping[str, Any]) -> bool:
    """Whether a model only passes the call on to others, whose calls are told of themselves."""
    params = cast("Mapping[str, Any]", told.get("invocation_params") or {})
    return str(params.get("_type", "")).startswith(WRAPPER)


def _tool_call(serialized: Mapping[str, Any] | None, run_id: UUID, told: Mapping[str, Any]) -> ToolCall:
    config = current_config()
    return ToolCall(
        id=str(run_id),
        site=site_of(config or {"metadata": dict(told.get("metadata") or {})}),
        ports=ports_of(config),
        name=str((serialized or {}).get("name") or told.get("name") or ""),
        arguments=cast("Mapping[str, Any]", told.get("inputs") or {}),
    )


def usage_of(response: LLMResult) -> Mapping[str, Any] | None:
    """The usage metadata of an answer; None where there is none, or where all of it is zero."""
    for generation in (one for some in response.generations for one in some):
        message = generation.message if isinstance(generation, ChatGeneration) else None
        if (
            isinstance(message, AIMessage)
            and message.usage_metadata
            and any(message.usage_metadata.get(name) for name in ("input_tokens", "output_tokens"))
        ):
            return cast("Mapping[str, Any]", message.usage_metadata)
    return None


def is_cache_hit(response: LLMResult) -> bool:
    """Whether one of LangChain's caches answered: it then says that the call cost nothing. Nobody was called."""
    generations = [one for some in response.generations for one in some]
    return bool(generations) and all(
        isinstance(one, ChatGeneration)
        and isinstance(one.message, AIMessage)
        and cast("Mapping[str, Any]", one.message.usage_metadata or {}).get("total_cost") == 0
        for one in generations
    )


def _made(response: LLMResult) -> Made:
    return "not made" if is_cache_hit(response) else "made"


def _answer(response: LLMResult) -> dict[str, Any]:
    told = {"response": _metadata_of(response)}
    usage = usage_of(response)
    if usage is not None:
        return {**told, "usage": usage}
    return {**told, "answered_chars": sum(len(one.text) for some in response.generations for one in some)}


def _metadata_of(response: LLMResult) -> Mapping[str, Any]:
    messages = (one.message for some in response.generations for one in some if isinstance(one, ChatGeneration))
    return next((message.response_metadata for message in messages), {})


class _OnLoop(AsyncCallbackHandler):
    """Calls that are awaited."""

    raise_error = True
    run_inline = True

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
    ) -> None:
        if _is_wrapper(told):
            return
        if not self._watcher.is_open(run_id):  # a call in a thread has been asked about by the other handler
            await self._watcher.before(run_id, _model_call(messages[0], run_id, told))

    async def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        self._watcher.streamed(run_id, str(token))

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        await self._watcher.after(run_id, _made(response), **_answer(response))

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        made: Made = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
        await self._watcher.after(run_id, made, error=error)

    async def on_tool_start(self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **told: Any) -> None:
        if not self._watcher.is_open(run_id):
            await self._watcher.before(run_id, _tool_call(serialized, run_id, told))

    async def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        await self._watcher.after(run_id, "made")

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        await self._watcher.after(run_id, "failed", error=error)


class _InThreads(BaseCallbackHandler):
    """Calls that block. Awaited ones it leaves to the other handler, which LangChain tells after this one."""

    raise_error = True
    run_inline = True

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
    ) -> None:
        if _is_blocking() and not _is_wrapper(told):
            self._do(self._watcher.before(run_id, _model_call(messages[0], run_id, told)))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        if _is_blocking():
            self._watcher.streamed(run_id, str(token))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if _is_blocking():
            self._do(self._watcher.after(run_id, _made(response), **_answer(response)))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        if _is_blocking():
            self._do(self._watcher.after(run_id, "failed", error=error))

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **told: Any) -> None:
        if _is_blocking():
            self._do(self._watcher.before(run_id, _tool_call(serialized, run_id, told)))

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        if _is_blocking():
            self._do(self._watcher.after(run_id, "made"))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        if _is_blocking():
            self._do(self._watcher.after(run_id, "failed", error=error))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait in this thread until it is done elsewhere."""
        wait_for(work, self._watcher.loop)


def _is_blocking() -> bool:
    """Whether LangChain tells of a call that is not awaited. A running loop says nothing: nodes that should await, but
    do not, have one. The errors of async handlers are swallowed in such calls."""
    handler = inspect.currentframe()
    while handler is not None and handler.f_code.co_filename == __file__:
        handler = handler.f_back
    return handler is not None and handler.f_code is handle_event.__code__
