"""A chat model that passes calls on to another one, and looks to everybody like that one.

Base of the models that guards are made of: `bind_tools`, `with_structured_output`, streams and batches work as they do
on the model inside, whose calls are told to callbacks. Of its own calls watchers take no notice (`calls.WRAPPER`), and
what the model inside streams is not shown a second time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableParallel,
    RunnableSequence,
)
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.tools import BaseTool
from langgraph.constants import TAG_NOSTREAM
from pydantic import PrivateAttr

from waystation_guards.calls import WRAPPER, current_config

RunManager = AsyncCallbackManagerForLLMRun | CallbackManagerForLLMRun


class PassingModel(BaseChatModel):
    """Passes calls on to `inner`. Subclasses change what goes in, what comes out, or whether a call is made at all."""

    inner: BaseChatModel
    kind: str = "passing"
    _config: RunnableConfig | None = PrivateAttr(default=None)
    """The config of the call: LangChain does not hand it to `_astream` and its like."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.profile = self.profile or self.inner.profile
        self.disable_streaming = self.inner.disable_streaming
        self.cache, self.output_version = False, None  # the inner one's are asked

    @property
    def _llm_type(self) -> str:
        return f"{WRAPPER}{self.kind}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**cast("Any", self.inner)._identifying_params, "kind": self.kind}

    @cached_property
    def _serialized(self) -> dict[str, Any]:
        """What tracers are told. LangChain's own is the text of the whole model, made anew for each copy of it."""
        return {"lc": 1, "type": "not_implemented", "id": [type(self).__module__, type(self).__name__]}

    @property
    def model_name(self) -> str:
        """The name of the model that is called; empty where it has none."""
        names = (getattr(self.inner, name, None) for name in ("model_name", "model", "model_id"))
        return next((name for name in names if isinstance(name, str) and name), "")

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return cast("Any", self.inner)._get_ls_params(stop=stop, **kwargs)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        return self.inner.get_num_tokens_from_messages(messages, tools)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        given = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        return self._around(self.inner.bind_tools(tools, **given))

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        return self._around(self.inner.with_structured_output(schema, include_raw=include_raw, **kwargs))

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        return super(PassingModel, self._under(config)).invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        return await super(PassingModel, self._under(config)).ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        yield from super(PassingModel, self._under(config)).stream(input, config, stop=stop, **kwargs)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        chunks = super(PassingModel, self._under(config)).astream(input, config, stop=stop, **kwargs)
        async with aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                yield chunk

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        under = self if self._config else self._under(_config(callbacks, kwargs))
        return super(PassingModel, under).generate(messages, stop, callbacks, **kwargs)

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        under = self if self._config else self._under(_config(callbacks, kwargs))
        return await super(PassingModel, under).agenerate(messages, stop, callbacks, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return whole(self.inner.invoke(messages, self.below(run_manager), stop=stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return whole(await self.inner.ainvoke(messages, self.below(run_manager), stop=stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.inner.stream(messages, self.below(run_manager), stop=stop, **kwargs):
            yield part(chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = self.inner.astream(messages, self.below(run_manager), stop=stop, **kwargs)
        async with aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                yield part(chunk)

    def below(self, run_manager: RunManager | None) -> RunnableConfig:
        """The config for a call of a model inside: the same callbacks, but not shown as a stream of its own."""
        config: RunnableConfig = {}
        if self._config is not None:
            config = self._config
        elif run_manager is not None:
            config = {"callbacks": _child(run_manager)}
        known = {name: value for name, value in config.items() if name not in ("run_id", "run_name") and value}
        below = cast("RunnableConfig", {**known, "tags": [*(config.get("tags") or ()), TAG_NOSTREAM]})
        if self.callbacks is None:
            return below
        # Guards of this model itself: it is the call inside that they have to see.
        return merge_configs(ensure_config(below), {"callbacks": self.callbacks})

    def where(self) -> RunnableConfig | None:
        """The config that says whose call it is."""
        return current_config() or self._config

    def _under(self, config: RunnableConfig | None) -> PassingModel:
        one = self.model_copy()
        one._config = config
        return one

    def _around(self, runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """The same steps with this model in place of the one inside."""
        if isinstance(runnable, BaseChatModel):
            return self if runnable is self.inner else self.model_copy(update={"inner": runnable})
        if isinstance(runnable, RunnableBinding):
            return runnable.model_copy(update={"bound": self._around(runnable.bound)})
        if isinstance(runnable, RunnableSequence):
            return RunnableSequence(*(self._around(step) for step in runnable.steps))
        if isinstance(runnable, RunnableParallel):
            return RunnableParallel({name: self._around(step) for name, step in runnable.steps__.items()})
        return runnable


def _config(callbacks: Any, told: dict[str, Any]) -> RunnableConfig:
    return {"callbacks": callbacks, "tags": told.get("tags") or [], "metadata": told.get("metadata") or {}}


def _child(run_manager: RunManager) -> BaseCallbackManager:
    """Callbacks for calls below a call of a model; LangChain gives only chains such."""
    kind = AsyncCallbackManager if isinstance(run_manager, AsyncCallbackManagerForLLMRun) else CallbackManager
    return kind(
        handlers=list(run_manager.inheritable_handlers),
        inheritable_handlers=list(run_manager.inheritable_handlers),
        parent_run_id=run_manager.run_id,
        inheritable_tags=list(run_manager.inheritable_tags),
        inheritable_metadata=dict(run_manager.inheritable_metadata),
    )


def whole(message: AIMessage) -> ChatResult:
    """An answer as chat models return it."""
    return ChatResult(generations=[ChatGeneration(message=message)])


def part(chunk: BaseMessage) -> ChatGenerationChunk:
    """A piece of a stream as chat models yield it. Models that do not stream give a whole message."""
    if isinstance(chunk, AIMessageChunk):
        return ChatGenerationChunk(message=chunk)
    message = cast("AIMessage", chunk)
    calls = [
        {"name": call["name"], "args": call["args"], "id": call["id"], "type": "tool_call"}
        for call in message.tool_calls
    ]
    known = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    return ChatGenerationChunk(message=AIMessageChunk(**known, tool_calls=cast("Any", calls)))
