"""A chat model that is several: the smallest that will do answers. The form of `RoutingRules` for any node or agent.

    model = RoutedModel(inner=ChatOpenAI(model="gpt-4o-mini"), larger=[ChatOpenAI(model="gpt-4o")])

`response_metadata["waystation_routing"]` says which one it was and why; the ledger has an entry of what that saved
against the largest one, below zero where two were asked for one answer. Streams show nothing of an answer that may be
thrown away: the small model's is held back until it cannot be the marker any more, and where it calls tools until its
end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.tools import BaseTool
from pydantic import Field

from waystation_guards.blocking import wait_for
from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.savings import cost_of, name_of, record_saving
from waystation_guards.calls import site_of
from waystation_guards.caps.broken_calls import Check, checks_of
from waystation_guards.context.routing import (
    RoutingRules,
    asked_for_confidence,
    may_become_marker,
    why_again,
    why_larger,
)
from waystation_guards.models.passing import PassingModel, part, whole
from waystation_guards.models.preparing import Heard
from waystation_guards.ports import ports_of

MARK: Final = "waystation_routing"


@dataclass(slots=True)
class _Way:
    """A call on its way up: which models were asked, and why."""

    messages: Sequence[BaseMessage]
    kwargs: Mapping[str, Any]
    rung: int
    why: str | None
    tried: list[tuple[int, Any]] = field(default_factory=list[tuple[int, Any]])


class RoutedModel(PassingModel):
    """Asks the smallest model first. `larger` are in order of size; `inner` is the smallest."""

    kind: str = "routed"
    larger: list[BaseChatModel] = Field(min_length=1)
    rules: RoutingRules = RoutingRules()
    prices: Prices = Prices()
    bound: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    checks: dict[str, Check] = Field(default_factory=dict[str, Check])
    must_call: bool = False

    @property
    def models(self) -> list[BaseChatModel]:
        """All of them, the smallest first."""
        return [self.inner, *self.larger]

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"kind": self.kind, "models": [name_of(model)[0] for model in self.models], "bound": self.bound}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Each model gets the tools in its own provider's form."""
        given = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        made = [_bound(model, tools, given) for model in self.models]
        update = {
            "inner": made[0][0],
            "larger": [model for model, _ in made[1:]],
            "bound": [known for _, known in made],
            "checks": checks_of(tools),
            "must_call": tool_choice not in (None, "auto", "none", False),
        }
        return self.model_copy(update=update)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """By a tool call, which every model can and which can be checked before a larger one is asked."""
        kwargs.pop("method", None)
        kwargs.pop("strict", None)
        return BaseChatModel.with_structured_output(self, schema, include_raw=include_raw, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        way, below = self._begin(messages, kwargs), self.below(run_manager)
        while True:
            model, told, given = self._next(way)
            message = await model.ainvoke(told, below, stop=stop, **given)
            if self.is_over(way, message):
                await self._record(way)
                return whole(self.marked(way, message))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        way, below = self._begin(messages, kwargs), self.below(run_manager)
        while True:
            model, told, given = self._next(way)
            message = model.invoke(told, below, stop=stop, **given)
            if self.is_over(way, message):
                wait_for(self._record(way), ports_of(self.where()).loop)
                return whole(self.marked(way, message))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        way, below = self._begin(messages, kwargs), self.below(run_manager)
        while True:
            model, told, given = self._next(way)
            held = _Held(self, way)
            chunks = model.astream(told, below, stop=stop, **given)
            async with aclosing(cast("Any", chunks)):
                async for chunk in chunks:
                    for shown in held.hear(chunk):
                        yield part(shown)
            rest = held.end()
            if rest is not None:
                for shown in rest:
                    yield part(shown)
                await self._record(way)
                return

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        way, below = self._begin(messages, kwargs), self.below(run_manager)
        while True:
            model, told, given = self._next(way)
            held = _Held(self, way)
            for chunk in model.stream(told, below, stop=stop, **given):
                yield from (part(shown) for shown in held.hear(chunk))
            rest = held.end()
            if rest is not None:
                yield from (part(shown) for shown in rest)
                wait_for(self._record(way), ports_of(self.where()).loop)
                return

    def is_last(self, way: _Way) -> bool:
        """Whether there is no larger model to ask."""
        return way.rung == len(self.larger)

    def _begin(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> _Way:
        why = why_larger(messages, {**self._bound_to(0), **kwargs}, self.rules)
        return _Way(messages, kwargs, 0 if why is None else len(self.larger), why)

    def _next(self, way: _Way) -> tuple[BaseChatModel, list[BaseMessage], dict[str, Any]]:
        asks = self.rules.ask_confidence and not self.is_last(way)
        told = asked_for_confidence(way.messages) if asks else [*way.messages]
        return self.models[way.rung], told, {**self._bound_to(way.rung), **way.kwargs}

    def is_over(self, way: _Way, message: AIMessage, *, shown: bool = False) -> bool:
        """Whether this is the answer; if not, the way leads to the next model."""
        way.tried.append((way.rung, message.usage_metadata))
        if self.is_last(way) or shown:
            return True
        why = why_again(message, self.rules, must_call=self.must_call, checks=self.checks)
        if why is None:
            return True
        way.why, way.rung = why, way.rung + 1
        return False

    def marked(self, way: _Way, message: Any) -> Any:
        """The answer, or its first piece, with what says whose it is."""
        rungs = dict.fromkeys([*(rung for rung, _ in way.tried), way.rung])
        names = [name_of(self.models[rung], way.kwargs)[0] for rung in rungs]
        mark = {"model": names[-1], "tried": names, **({"why": way.why} if way.why else {})}
        return message.model_copy(update={"response_metadata": {**message.response_metadata, MARK: mark}})

    async def _record(self, way: _Way) -> None:
        costs = [self._cost(rung, way, usage) for rung, usage in way.tried]
        largest = self._cost(len(self.larger), way, way.tried[-1][1])
        known = [cost for cost in costs if cost is not None]
        saved = largest - sum(known) if largest is not None and len(known) == len(costs) else None
        config = self.where()
        names = [name_of(self.models[rung], way.kwargs)[0] for rung, _ in way.tried]
        detail = {"what": "routing", "tried": names, "saved_tokens": 0, "saved_nano_usd": saved}
        why = {"why": way.why} if way.why else {}
        await record_saving(ports_of(config), site_of(config), names[-1], {**detail, **why})

    def _cost(self, rung: int, way: _Way, usage: Any) -> int | None:
        name, provider = name_of(self.models[rung], way.kwargs)
        return cost_of(self.prices, name, provider, usage)

    def _bound_to(self, rung: int) -> dict[str, Any]:
        return self.bound[rung] if self.bound else {}

    def shows_at_once(self, way: _Way) -> bool:
        """Whether nothing can be found wrong with an answer any more."""
        return self.is_last(way) or not (self.rules.ask_confidence or self.rules.check_tools)


class _Held:
    """What a stream has said and nobody has seen yet."""

    def __init__(self, model: RoutedModel, way: _Way) -> None:
        self._model, self._way = model, way
        self._heard, self._held, self._shows = Heard(), list[BaseMessage](), False

    def hear(self, chunk: BaseMessage) -> list[BaseMessage]:
        """What can be shown now that this piece has come."""
        self._heard.add(chunk)
        if self._shows:
            return [chunk]
        self._held.append(chunk)
        return self._show() if self._may_show() else []

    def end(self) -> list[BaseMessage] | None:
        """The rest of the answer; None if a larger model has to give it."""
        message = self._heard.message or AIMessage("")
        if not self._model.is_over(self._way, message, shown=self._shows):
            return None
        return [] if self._shows else self._show()

    def _may_show(self) -> bool:
        if self._model.shows_at_once(self._way):
            return True
        message = self._heard.message
        if message is None or self._model.must_call or _calls(message):
            return False
        text = str(message.text)
        return bool(text.strip()) and not (self._model.rules.ask_confidence and may_become_marker(text))

    def _show(self) -> list[BaseMessage]:
        self._shows = True
        held, self._held = self._held, []
        return [self._model.marked(self._way, held[0]), *held[1:]] if held else []


def _calls(message: AIMessage) -> bool:
    return bool(message.tool_calls or (isinstance(message, AIMessageChunk) and message.tool_call_chunks))


def _bound(model: BaseChatModel, tools: Sequence[Any], given: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
    made: Any = model.bind_tools(tools, **given)
    if isinstance(made, RunnableBinding):
        return cast("BaseChatModel", cast("Any", made).bound), dict(cast("Any", made).kwargs)
    return cast("BaseChatModel", made), {}
