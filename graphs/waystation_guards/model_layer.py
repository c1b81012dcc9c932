"""What callbacks cannot do for graphs that nobody edited: other models behind theirs, cached answers, shorter ones.

    install()                        once in a process, where a policy asks for any of this
    with layered(Layer(...)): …      all chat models that are called in this context, in its tasks and their threads

    model.ainvoke ─▶ a layer here? ─ no ─▶ as ever
                       ├ yes ─▶ failover ─▶ cache ─▶ the model          BudgetDegrades, `reduced` ─▶ a cheaper model
                       └ at the level `minimal` ─▶ what is known, and no model

It stands on the four public calls of `BaseChatModel` (`invoke`, `ainvoke`, `stream`, `astream`) and nothing below them,
so that bound tools, structured output, batches and agents go through it. Models that only pass calls on
(`calls.WRAPPER`) are left alone, and the ones inside them are not.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import wraps
from typing import Any, Final, Literal, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool

from waystation_guards.budget.degrading import CheaperModel
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.calls import WRAPPER
from waystation_guards.errors import BudgetDegrades
from waystation_guards.failover.breakers import OnChange
from waystation_guards.failover.hedging import Latencies
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import FailoverPolicy
from waystation_guards.failover.targets import Target
from waystation_guards.levels.answering import AnsweringModel, Known
from waystation_guards.levels.levels import Level

log = logging.getLogger(__name__)

T = TypeVar("T")
AnyRunnable = Runnable[Any, Any]

_LAYER: ContextVar[Layer | Literal["inside"] | None] = ContextVar("waystation_guards_layer", default=None)
"""`inside`: what a layer made makes calls, which go by no layer again."""
_ORIGINAL: dict[str, Callable[..., Any]] = {}
_UNIVERSAL: Final = frozenset(("stop", "max_tokens", "temperature"))
"""Arguments of a call that every provider's model takes in the same form."""


@dataclass(frozen=True, slots=True)
class Failover:
    """Where the calls of some models go when those fail. `models`: by pattern of their names (`gpt-5*`,
    `openai/gpt-5*`), the targets behind them, in order. `on_change`: told when a
    breaker opens or closes."""

    models: Mapping[str, tuple[Target, ...]]
    policy: FailoverPolicy = field(default_factory=FailoverPolicy)
    on_change: OnChange | None = None
    times: Latencies = field(default_factory=Latencies, compare=False)


@dataclass(frozen=True, slots=True)
class Layer:
    """What is done about the calls of chat models. `cheaper`: by pattern of a model's name, the one that is called
    where a budget degrades, or while `reduced` says so. `max_tokens`: the most that one answer may have. `known`: where
    levels are told, and what is answered at `minimal`, where no model is called."""

    cache: ResponseCache | None = None
    failover: Failover | None = None
    cheaper: Mapping[str, BaseChatModel] = field(default_factory=dict[str, BaseChatModel])
    max_tokens: int | None = None
    reduced: Callable[[], bool] = lambda: False
    known: Known | None = None

    async def level(self, config: RunnableConfig | None) -> Level:
        """The level of whoever calls; full where nobody tells any."""
        return "full" if self.known is None else await self.known.level(config)

    def level_in_thread(self, config: RunnableConfig | None) -> Level:
        """As `level`, for calls that block."""
        return "full" if self.known is None else self.known.level_in_thread(config)

    def courses(
        self, model: BaseChatModel, given: Mapping[str, Any], level: Level
    ) -> list[tuple[AnyRunnable, dict[str, Any]]]:
        """What to call, with which arguments: the model, or what is around it; then a cheaper one."""
        kwargs = dict(given)
        if self.max_tokens is not None:
            asked = kwargs.get("max_tokens") or _asked_tokens(model)
            kwargs["max_tokens"] = min(asked, self.max_tokens) if asked else self.max_tokens
        if self.known is not None and level == "minimal":
            return [(AnsweringModel(inner=model, source=self.known, kept=self.cache), kwargs)]
        cheaper = find(self.cheaper, model)
        first = self._around(model, kwargs)
        if cheaper is None:
            return [first]
        second = _fitted(CheaperModel(inner=cheaper), model, kwargs)
        return [second] if self.reduced() else [first, second]

    def _around(self, model: BaseChatModel, kwargs: dict[str, Any]) -> tuple[AnyRunnable, dict[str, Any]]:
        targets = None if self.failover is None else find(self.failover.models, model)
        cached = None if self.cache is None else CachedModel(inner=model, answers=self.cache)
        if not targets or self.failover is None:
            return cached or model, kwargs
        own = Target(cached or model)
        others = [_bound(target, own, kwargs) for target in targets if target.name != own.name]
        able = [target for target in others if target is not None]
        own = replace(own, runnable=own.model.bind(**kwargs)) if kwargs else own
        return FailoverModel(
            [own, *able], self.failover.policy, on_change=self.failover.on_change, times=self.failover.times
        ), {}


def install() -> None:
    """Make chat models ask for a layer when they are called. Doing it again does nothing. A call without a layer costs
    one look at a context variable."""
    if _ORIGINAL:
        return
    for name, made in (("invoke", _invoke), ("ainvoke", _ainvoke), ("stream", _stream), ("astream", _astream)):
        original = getattr(BaseChatModel, name)
        _ORIGINAL[name] = original
        setattr(BaseChatModel, name, wraps(original)(made))


def went_through() -> bool:
    """Whether the call that is made now is a layer's, which has looked at the level before."""
    return _LAYER.get() == "inside"


@contextmanager
def layered(layer: Layer | Literal["inside"] | None) -> Generator[None]:
    """Put a layer over all calls in this context; None takes it away."""
    before = _LAYER.get()
    _LAYER.set(layer)
    try:
        yield
    finally:
        _LAYER.set(before)


def find(by_pattern: Mapping[str, T], model: BaseChatModel) -> T | None:
    """What is said of a model: by its name, or by its provider and its name."""
    if not by_pattern:
        return None
    told = cast("Any", model)._get_ls_params()
    name, provider = str(told.get("ls_model_name") or ""), str(told.get("ls_provider") or "")
    for pattern, found in by_pattern.items():
        if any(fnmatchcase(one, pattern) for one in (name, f"{provider}/{name}", f"{provider}:{name}")):
            return found
    return None


def _of(model: BaseChatModel) -> Layer | None:
    layer = _LAYER.get()
    if layer is None or layer == "inside" or cast("Any", model)._llm_type.startswith(WRAPPER):
        return None
    return layer


def _invoke(self: Any, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any) -> AIMessage:
    layer = _of(self)
    if layer is None:
        return _ORIGINAL["invoke"](self, input, config, stop=stop, **kwargs)
    level = layer.level_in_thread(config)
    with layered("inside"):
        courses = layer.courses(self, kwargs, level)
        for number, (made, given) in enumerate(courses, 1):
            try:
                return made.invoke(input, config, **_with_stop(given, stop))
            except BudgetDegrades:
                if number == len(courses):
                    raise
    raise AssertionError("the last course returns or raises")


async def _ainvoke(self: Any, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any) -> AIMessage:
    layer = _of(self)
    if layer is None:
        return await _ORIGINAL["ainvoke"](self, input, config, stop=stop, **kwargs)
    level = await layer.level(config)
    with layered("inside"):
        courses = layer.courses(self, kwargs, level)
        for number, (made, given) in enumerate(courses, 1):
            try:
                return await made.ainvoke(input, config, **_with_stop(given, stop))
            except BudgetDegrades:
                if number == len(courses):
                    raise
    raise AssertionError("the last course returns or raises")


def _stream(self: Any, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any) -> Iterator[AIMessageChunk]:
    layer = _of(self)
    if layer is None:
        yield from _ORIGINAL["stream"](self, input, config, stop=stop, **kwargs)
        return
    level = layer.level_in_thread(config)
    with layered("inside"):
        courses = layer.courses(self, kwargs, level)
    for number, (made, given) in enumerate(courses, 1):
        began = False
        try:
            # A generator runs in the context of whoever asks for its next part: between them the layer is there.
            with (
                layered("inside"),
                closing(cast("Any", made.stream(input, config, **_with_stop(given, stop)))) as chunks,
            ):
                chunk = next(chunks, None)
                while chunk is not None:
                    began = True
                    with layered(layer):
                        yield chunk
                    chunk = next(chunks, None)
            return
        except BudgetDegrades:
            if began or number == len(courses):
                raise


async def _astream(
    self: Any, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any
) -> AsyncIterator[AIMessageChunk]:
    layer = _of(self)
    if layer is None:
        async with aclosing(_ORIGINAL["astream"](self, input, config, stop=stop, **kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    level = await layer.level(config)
    with layered("inside"):
        courses = layer.courses(self, kwargs, level)
    for number, (made, given) in enumerate(courses, 1):
        began = False
        try:
            stream: Any = made.astream(input, config, **_with_stop(given, stop))
            with layered("inside"):
                async with aclosing(stream) as chunks:
                    chunk = await anext(chunks, None)
                    while chunk is not None:
                        began = True
                        with layered(layer):
                            yield chunk
                        chunk = await anext(chunks, None)
            return
        except BudgetDegrades:
            if began or number == len(courses):
                raise


def _with_stop(given: dict[str, Any], stop: Any) -> dict[str, Any]:
    return given if stop is None else {**given, "stop": stop}


def _asked_tokens(model: BaseChatModel) -> int | None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(value := getattr(model, name, None), int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _fitted(
    cheaper: BaseChatModel, model: BaseChatModel, kwargs: Mapping[str, Any]
) -> tuple[AnyRunnable, dict[str, Any]]:
    """The cheaper model with what is bound to the call, in its own provider's form."""
    found = _bound(Target(cheaper), Target(model), kwargs)
    return (cheaper, dict(kwargs)) if found is None else (found.runnable, {})


def _bound(target: Target, own: Target, kwargs: Mapping[str, Any]) -> Target | None:
    """A target with the arguments that the call has for the model; None where they mean nothing to its provider."""
    if not kwargs:
        return target
    if target.provider == own.provider:
        return replace(target, runnable=target.model.bind(**kwargs))
    left = {name: value for name, value in kwargs.items() if name not in ("tools", "tool_choice") and value is not None}
    if foreign := sorted(set(left) - _UNIVERSAL):
        log.warning("%s cannot be asked what %s was: %s", target.name, own.name, ", ".join(foreign))
        return None
    if not kwargs.get("tools"):
        return replace(target, runnable=target.model.bind(**left))
    tools = [convert_to_openai_tool(tool) for tool in cast("Sequence[Any]", kwargs["tools"])]
    choice = _choice(kwargs.get("tool_choice"))
    form: dict[str, Any] = {} if choice is None else {"tool_choice": choice}
    bound: Any = target.model.bind_tools(tools, **form)
    return replace(target, runnable=bound.bind(**left) if left else bound)


def _choice(given: Any) -> str | None:
    """Which tool is to be called, as `bind_tools` of every provider takes it."""
    if not isinstance(given, Mapping):
        return {"required": "any"}.get(given, given) if isinstance(given, str) else None
    members = cast("Mapping[str, Any]", given)
    function = cast("Mapping[str, Any]", members.get("function") or members)
    name = function.get("name")
    return str(name) if name else {"any": "any", "auto": "auto"}.get(str(members.get("type")))
