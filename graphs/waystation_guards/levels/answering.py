"""The level `minimal` for models that nobody edited: answers that are known, and no call.

    an answer that was kept (`ResponseCache`, also a stale one) ─▶ else `answers`, a FAQ ─▶ else `otherwise`

What is to have a schema, or has to call a tool, no text can answer: where nothing was kept, that is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast, runtime_checkable

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig

from waystation_guards.blocking import at_home, wait_for
from waystation_guards.caching.answers import in_pieces
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.calls import CallSite, current_config, site_of
from waystation_guards.errors import GuardUnavailable, InMinimal
from waystation_guards.levels.answers import Answers
from waystation_guards.levels.levels import Level, LevelStanding
from waystation_guards.models.passing import PassingModel, part, whole
from waystation_guards.ports import Ports, ports_of

LIMITED: Final = "The service is limited at the moment, and I cannot answer this. Please try again later."
"""What is said where nothing is known and nothing else was configured."""

_SHAPES: Final = ("response_format", "ls_structured_output_format", "response_schema", "response_json_schema", "format")
"""Arguments with which providers' models are asked for an answer of a certain shape."""
_FREE_CHOICES: Final = (None, False, "auto", "none")


@runtime_checkable
class Levels(Protocol):
    """What tells the level: `Degradation`."""

    def level(self, ports: Ports, site: CallSite) -> Coroutine[Any, Any, LevelStanding]: ...

    def known(self, site: CallSite) -> LevelStanding: ...


@dataclass(frozen=True, slots=True)
class Known:
    """Where levels are told, and what is answered at `minimal`. `answers`: a `Faq` or the like; None has none."""

    levels: Levels
    answers: Answers | None = None
    otherwise: str = LIMITED

    async def level(self, config: RunnableConfig | None) -> Level:
        """The level of a caller. Never waits longer than a reading takes."""
        config = current_config() or config
        ports = ports_of(config)
        return (await at_home(self.levels.level(ports, site_of(config)), ports.loop)).level

    def level_in_thread(self, config: RunnableConfig | None) -> Level:
        """As `level`, for code that blocks; by the last reading where nobody can be asked."""
        config = current_config() or config
        ports, site = ports_of(config), site_of(config)
        try:
            return wait_for(self.levels.level(ports, site), ports.loop).level
        except GuardUnavailable:
            return self.levels.known(site).level


class AnsweringModel(PassingModel):
    """Looks like the model inside, and never calls it. Raises InMinimal where only a model could answer."""

    kind: str = "minimal"
    source: Known
    kept: ResponseCache | None = None

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return whole(await at_home(self._answer(messages, stop, kwargs), ports_of(self.where()).loop))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        message = await at_home(self._answer(messages, stop, kwargs), ports_of(self.where()).loop)
        for piece in in_pieces(message):
            yield part(piece)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return whole(self._answer_in_thread(messages, stop, kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in in_pieces(self._answer_in_thread(messages, stop, kwargs)):
            yield part(piece)

    def _answer_in_thread(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> AIMessage:
        return wait_for(self._answer(messages, stop, kwargs), ports_of(self.where()).loop)

    async def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> AIMessage:
        config = self.where()
        if self.kept is not None:
            asked = self.kept.asked(self.inner, messages, stop=stop, kwargs=kwargs, config=config)
            if (found := await self.kept.known(asked)) is not None:
                return _marked(found)
        if not is_free(self.inner, kwargs):
            raise InMinimal("the service is limited and calls no model at present; this call needs one")
        text = None
        if self.source.answers is not None:
            text = await self.source.answers(ports_of(config), site_of(config), messages)
        return _marked(AIMessage(self.source.otherwise if text is None else text))


def is_free(model: BaseChatModel, kwargs: Mapping[str, Any]) -> bool:
    """Whether plain words answer a call: no schema is asked for, and no tool has to be called."""
    own = cast("Mapping[str, Any]", getattr(model, "model_kwargs", None) or {})
    given = {**own, **kwargs}
    if any(given.get(name) for name in _SHAPES):
        return False
    choice = given.get("tool_choice")
    kind = cast("Mapping[str, Any]", choice).get("type") if isinstance(choice, Mapping) else choice
    return kind in _FREE_CHOICES


def _marked(message: AIMessage) -> AIMessage:
    return message.model_copy(update={"response_metadata": {**message.response_metadata, "level": "minimal"}})
