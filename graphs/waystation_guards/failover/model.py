"""A chat model over several targets: the next answers where one fails, and a caller sees one answer.

    model = FailoverModel(["openai:gpt-5-mini", Target(azure, region="westeurope"), "anthropic:claude-haiku-4-5"])
    agent = create_agent(model, tools)          or in any node: model.bind_tools(…), model.astream(…), model.invoke(…)

    FailoverModel's run      what callers see: one message (LangGraph's streams, `astream_events`, tracers)
    └── one run per try      what each target was asked: budgets, limits and tracers see these

Its answer's `response_metadata["failover"]` says which target answered, after how many tries, what failed before, and
whether the answer was hedged, continued or restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from pydantic import PrivateAttr, SkipValidation

from waystation_guards.calls import WRAPPER, current_config
from waystation_guards.deadlines import deadline_of
from waystation_guards.failover.answer import Retracted, pieces, whole
from waystation_guards.failover.blocking import blocking_result, stepped
from waystation_guards.failover.breakers import Breakers, OnChange
from waystation_guards.failover.course import Course
from waystation_guards.failover.hedging import Latencies
from waystation_guards.failover.policy import FailoverPolicy
from waystation_guards.failover.stream import first_chunk
from waystation_guards.failover.targets import Named, Target, target_of
from waystation_guards.failover.tries import Question, manager_of
from waystation_guards.ports import ports_of


class FailoverModel(BaseChatModel):
    """Answers with the first of its targets that can. Raises what `failover_answer.pieces` raises."""

    targets: Annotated[tuple[Target, ...], SkipValidation]
    policy: Annotated[FailoverPolicy, SkipValidation]
    on_change: Annotated[OnChange | None, SkipValidation] = None
    _times: Latencies = PrivateAttr(default_factory=Latencies)
    _course: Course | None = PrivateAttr(default=None)
    _configurable: Mapping[str, Any] | None = PrivateAttr(default=None)

    def __init__(
        self,
        targets: Sequence[Named],
        policy: FailoverPolicy | None = None,
        *,
        on_change: OnChange | None = None,
        times: Latencies | None = None,
        **kwargs: Any,
    ) -> None:
        """`targets`: in order; chat models, `Target`s or providers' names (`openai:gpt-5-mini`). `on_change`: told when
        a target's breaker opens or closes. `times`: shared with other failovers over the same targets, for hedges.
        Further arguments are `BaseChatModel`'s.

        Raises:
            ValueError: there is no target, two have the same name, or a name is no model's.
        """
        found = tuple(map(target_of, targets))
        if not found:
            raise ValueError("a failover needs at least one target")
        names = [target.name for target in found]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two targets of a failover are called {double!r}; give one a region, deployment or name")
        members: Any = {"targets": found, "policy": policy or FailoverPolicy(), "on_change": on_change}
        super().__init__(**kwargs, **members)
        self._times = times or Latencies()

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], *, on_change: OnChange | None = None) -> FailoverModel:
        """A failover from JSON values: `targets`, a list (`target_of`), and the members of `FailoverPolicy`.

        Raises:
            ValueError: a key or value that is none; the message names it.
        """
        targets: Any = given.get("targets")
        if not isinstance(targets, list) or not targets:
            raise ValueError(f"failover.targets is {targets!r}; expected is a list of models")
        policy = FailoverPolicy.from_mapping({name: value for name, value in given.items() if name != "targets"})
        return cls(cast("list[Named]", targets), policy, on_change=on_change)

    def __repr__(self) -> str:
        """Short: LangChain puts it into what it tells callbacks of each call."""
        return f"FailoverModel({', '.join(target.name for target in self.targets)})"

    @property
    def _llm_type(self) -> str:
        return f"{WRAPPER}failover"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"targets": [target.name for target in self.targets]}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "waystation", "ls_model_type": "chat", **({"ls_stop": stop} if stop else {})}

    def _resolve_model_profile(self) -> Any:
        """What all targets can: the smallest window; structured output in a provider's own form where there is one."""
        profiles = [target.model.profile for target in self.targets]
        if not all(profiles):
            return None
        known: list[dict[str, Any]] = [dict(profile or {}) for profile in profiles]
        shared = {name: value for name, value in known[0].items() if all(one.get(name) == value for one in known)}
        for name in ("max_input_tokens", "max_output_tokens"):
            if all(isinstance(one.get(name), int) for one in known):
                shared[name] = min(one[name] for one in known)
        if len({target.provider for target in self.targets}) > 1:
            shared.pop("structured_output", None)
        return shared

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The failover with tools bound to each target, in its provider's form."""
        given = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        return self.model_copy(update={"targets": tuple(one.with_tools(tools, **given) for one in self.targets)})

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        return await super(FailoverModel, self._within(config)).ainvoke(input, config, stop=stop, **kwargs)

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        return super(FailoverModel, self._within(config)).invoke(input, config, stop=stop, **kwargs)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        given, course = ensure_config(config), None
        while True:
            one, course, given = self._on(course, given, given.get("run_id"))
            first = True
            try:
                async with aclosing(
                    cast("Any", super(FailoverModel, one).astream(input, given, stop=stop, **kwargs))
                ) as stream:
                    async for chunk in stream:
                        yield first_chunk(chunk) if first else chunk
                        first = False
                return
            except Retracted as broken:
                course = broken.course

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        given, course = ensure_config(config), None
        while True:
            one, course, given = self._on(course, given, given.get("run_id"))
            first = True
            try:
                for chunk in super(FailoverModel, one).stream(input, given, stop=stop, **kwargs):
                    yield first_chunk(chunk) if first else chunk
                    first = False
                return
            except Retracted as broken:
                course = broken.course

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        if len(messages) != 1:
            run: dict[str, Any] = {**kwargs, "run_id": None}
            return _together(await asyncio.gather(*(self.agenerate([one], stop, callbacks, **run) for one in messages)))
        course, run_id = None, kwargs.pop("run_id", None)
        while True:
            one, course, config = self._on(course, self._config_of(callbacks, kwargs), run_id)
            try:
                known: dict[str, Any] = {**kwargs, "run_id": config.get("run_id")}
                return await super(FailoverModel, one).agenerate(messages, stop, callbacks, **known)
            except Retracted as broken:
                course = broken.course

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        if len(messages) != 1:
            run: dict[str, Any] = {**kwargs, "run_id": None}
            return _together([self.generate([one], stop, callbacks, **run) for one in messages])
        course, run_id = None, kwargs.pop("run_id", None)
        while True:
            one, course, config = self._on(course, self._config_of(callbacks, kwargs), run_id)
            try:
                known: dict[str, Any] = {**kwargs, "run_id": config.get("run_id")}
                return super(FailoverModel, one).generate(messages, stop, callbacks, **known)
            except Retracted as broken:
                course = broken.course

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        question = Question(messages, stop, kwargs, streamed=False, awaited=True)
        return _result(await whole(self._its_course(), question, self._times))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        course, question = self._its_course(), Question(messages, stop, kwargs, streamed=False, awaited=False)
        return _result(blocking_result(whole(course, question, self._times), course.ports.loop))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        question = Question(messages, stop, kwargs, streamed=True, awaited=True)
        async with aclosing(cast("Any", pieces(self._its_course(), question, self._times))) as chunks:
            async for chunk in chunks:
                yield ChatGenerationChunk(message=chunk)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        course, question = self._its_course(), Question(messages, stop, kwargs, streamed=True, awaited=False)
        for chunk in stepped(pieces(course, question, self._times), course.ports.loop):
            yield ChatGenerationChunk(message=chunk)

    def _within(self, config: RunnableConfig | None) -> FailoverModel:
        """This model for one call: LangChain does not hand on the config's `configurable`."""
        one = self.model_copy()
        one._configurable = (config or {}).get("configurable")
        return one

    def _on(
        self, course: Course | None, config: RunnableConfig, run_id: UUID | None
    ) -> tuple[FailoverModel, Course, RunnableConfig]:
        """This model for one run of a call: its course, and its config with the run's id."""
        one = self.model_copy()
        if course is None:
            run_id = run_id or uuid4()
            course = self._begin(config, run_id)
        else:  # a message that was taken back is followed by another, which is another run
            run_id = course.manager.parent_run_id = uuid4()
        one._course = course
        return one, course, cast("RunnableConfig", {**config, "run_id": run_id})

    def _begin(self, config: RunnableConfig, run_id: UUID | None) -> Course:
        around = (current_config() or {}).get("configurable") or {}
        configurable = {**around, **(config.get("configurable") or {})}
        here = cast("RunnableConfig", {"configurable": configurable})
        return Course(
            targets=self.targets,
            policy=self.policy,
            breakers=Breakers(self.policy.breaker, self.on_change, self.policy.across_tenants),
            ports=ports_of(here),
            manager=manager_of(config, self.callbacks, run_id),
            deadline=deadline_of(here, at_most_s=self.policy.deadline_s),
        )

    def _its_course(self) -> Course:
        return self._course or self._begin(ensure_config(), None)

    def _config_of(self, callbacks: Any, given: Mapping[str, Any]) -> RunnableConfig:
        """What `generate` is told, as a config."""
        known = {"callbacks": callbacks, "tags": given.get("tags"), "metadata": given.get("metadata")}
        return cast("RunnableConfig", {**known, "configurable": self._configurable or {}})


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _together(results: Sequence[LLMResult]) -> LLMResult:
    return LLMResult(
        generations=[one for result in results for one in result.generations],
        run=[one for result in results for one in result.run or ()],
    )
