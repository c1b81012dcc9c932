"""Degradation levels as middleware for `create_agent`.

    DegradationMiddleware(degradation, {
        "reduced": Offer(model="openai:gpt-5-nano", tools=("search",), tool_calls=1),
        "minimal": Offer(answers=Faq({...}, otherwise="Please call us.")),
    })

The level stands in the agent's state (`level`), in the answer's `response_metadata["level"]`, and in the graph's stream
when it changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NotRequired, cast

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from waystation_guards.blocking import at_home, wait_for
from waystation_guards.calls import CallSite, current_config, site_of
from waystation_guards.levels.answers import Answers, RememberedAnswers
from waystation_guards.levels.levels import LEVELS, Degradation, Level, LevelStanding, at_level, in_maintenance
from waystation_guards.ports import Ports, ports_of

_NO_ANSWER: Final = "I cannot answer this at the moment. Please try again later."
_TOO_MANY: Final = (
    "Not done: the service is busy and does {most} of these at a time. Ask for the others one after another."
)
_NOT_NOW: Final = "Not done: {name} is not available while the service is busy."


@dataclass(frozen=True, slots=True)
class Offer:
    """What an agent offers at a level. What is None is as at full.

    `model`: a cheaper one, or its name. `tools`: the names of those that are left. `tool_calls`: how many of one
    message are done (1 is no fan-out). `max_tokens`: of an answer. `answers`: instead of any model, with `otherwise`
    where they have none.
    """

    model: BaseChatModel | str | None = None
    tools: Sequence[str] | None = None
    tool_calls: int | None = None
    max_tokens: int | None = None
    answers: Answers | None = None
    otherwise: str = _NO_ANSWER


DEFAULT_OFFERS: Final[Mapping[Level, Offer]] = {"reduced": Offer(tool_calls=1)}
"""What levels change where nothing is said: at `reduced` there is no fan-out, at `minimal` remembered answers only."""


class LevelAgentState(AgentState[Any]):
    """The agent's state with the level that its last model call was made at."""

    level: NotRequired[Level]


class DegradationMiddleware(AgentMiddleware[Any, Any, Any]):
    """Offers what the level allows. Raises InMaintenance at `maintenance`, unless there is an offer for it.

    At `minimal` without an offer, only what `remembered` has is answered. While the level is full, answers are
    remembered for that.
    """

    state_schema = LevelAgentState

    def __init__(
        self,
        degradation: Degradation,
        offers: Mapping[Level, Offer] | None = None,
        *,
        remembered: RememberedAnswers | None = None,
    ) -> None:
        """`remembered`: None remembers nothing.

        Raises:
            ValueError: an offer is for a level that is none, or for `full`.
        """
        super().__init__()
        for level in offers or ():
            if level not in LEVELS[1:]:
                raise ValueError(f"an offer is for {level!r}; expected is one of {', '.join(LEVELS[1:])}")
        self.degradation = degradation
        self.remembered = remembered
        minimal: Answers = remembered or _nothing
        self._offers: Mapping[Level, Offer] = {**DEFAULT_OFFERS, "minimal": Offer(answers=minimal), **(offers or {})}
        self._models: dict[str, BaseChatModel] = {}

    async def abefore_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        config = current_config()
        standing = await self._standing(config)
        return None if state.get("level", "full") == standing.level else {"level": standing.level}

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return wait_for(self.abefore_model(state, runtime), ports_of(current_config()).loop)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        config = current_config()
        ports, site = ports_of(config), site_of(config)
        standing = await self._standing(config)
        offer = self._offer(standing)
        if offer is not None and offer.answers is not None:
            return await self._answered(offer, ports, site, request.messages, standing)
        response = _marked(await handler(request if offer is None else self._reduced(request, offer)), standing)
        await self._remember(ports, site, request.messages, response, standing)
        return response

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        config = current_config()
        ports, site = ports_of(config), site_of(config)
        standing = wait_for(self._standing(config), ports.loop)
        offer = self._offer(standing)
        if offer is not None and offer.answers is not None:
            return wait_for(self._answered(offer, ports, site, request.messages, standing), ports.loop)
        response = _marked(handler(request if offer is None else self._reduced(request, offer)), standing)
        wait_for(self._remember(ports, site, request.messages, response, standing), ports.loop)
        return response

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        refused = self._refused(request, await self._standing(current_config()))
        return await handler(request) if refused is None else refused

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        config = current_config()
        refused = self._refused(request, wait_for(self._standing(config), ports_of(config).loop))
        return handler(request) if refused is None else refused

    async def _standing(self, config: RunnableConfig | None) -> LevelStanding:
        ports = ports_of(config)
        return await at_home(self.degradation.level(ports, site_of(config)), ports.loop)

    def _offer(self, standing: LevelStanding) -> Offer | None:
        if standing.level == "maintenance" and "maintenance" not in self._offers:
            raise in_maintenance(standing)
        return at_level(self._offers, standing.level)

    def _reduced(self, request: ModelRequest[Any], offer: Offer) -> ModelRequest[Any]:
        changed: dict[str, Any] = {}
        if offer.model is not None:
            changed["model"] = self._model(offer.model)
        if offer.tools is not None:
            changed["tools"] = [one for one in request.tools if _name(one) in offer.tools]
            changed["tool_choice"] = request.tool_choice if changed["tools"] else None
        if offer.max_tokens is not None:
            changed["model_settings"] = {**request.model_settings, "max_tokens": offer.max_tokens}
        return request.override(**changed) if changed else request

    def _model(self, given: BaseChatModel | str) -> BaseChatModel:
        if not isinstance(given, str):
            return given
        if given not in self._models:
            from waystation_guards.providers.models import chat_model  # loads a provider's package

            self._models[given] = chat_model(given)
        return self._models[given]

    async def _answered(
        self,
        offer: Offer,
        ports: Ports,
        site: CallSite,
        messages: Sequence[AnyMessage],
        standing: LevelStanding,
    ) -> ModelResponse[Any]:
        assert offer.answers is not None
        text = await offer.answers(ports, site, messages)
        return _marked(ModelResponse(result=[AIMessage(offer.otherwise if text is None else text)]), standing)

    async def _remember(
        self,
        ports: Ports,
        site: CallSite,
        messages: Sequence[AnyMessage],
        response: ModelResponse[Any],
        standing: LevelStanding,
    ) -> None:
        """Keep an answer to a first question: later ones mean what was said before."""
        answer = response.result[-1] if response.result else None
        asked = [one for one in messages if isinstance(one, HumanMessage)]
        if self.remembered is None or standing.level != "full" or len(asked) != 1:
            return
        if isinstance(answer, AIMessage) and answer.text and not answer.tool_calls:
            await self.remembered.remember(ports, site, messages, str(answer.text))

    def _refused(self, request: ToolCallRequest, standing: LevelStanding) -> ToolMessage | None:
        offer = self._offer(standing)
        if offer is None:
            return None
        name, call = request.tool_call["name"], request.tool_call["id"]
        if offer.tools is not None and name not in offer.tools:
            return ToolMessage(_NOT_NOW.format(name=name), tool_call_id=str(call), name=name, status="error")
        if offer.tool_calls is not None and call not in _first_calls(request.state, offer.tool_calls):
            said = _TOO_MANY.format(most=offer.tool_calls)
            return ToolMessage(said, tool_call_id=str(call), name=name, status="error")
        return None


async def _nothing(ports: Ports, site: CallSite, messages: Sequence[BaseMessage]) -> str | None:
    return None


def _first_calls(state: Any, most: int) -> list[Any]:
    """The ids of the calls of the last message that are done."""
    messages: list[BaseMessage] = cast("Any", state)["messages"] if isinstance(state, Mapping) else []
    last = next((one for one in reversed(messages) if isinstance(one, AIMessage)), None)
    return [call["id"] for call in last.tool_calls[:most]] if last is not None else []


def _marked(response: ModelResponse[Any], standing: LevelStanding) -> ModelResponse[Any]:
    """The response with the level in its answers' metadata, where it is not full."""
    if standing.level == "full":
        return response
    told = {"level": standing.level}
    result: list[BaseMessage] = [
        one.model_copy(update={"response_metadata": {**one.response_metadata, **told}})
        if isinstance(one, AIMessage)
        else one
        for one in response.result
    ]
    return ModelResponse(result=result, structured_response=response.structured_response)


def _name(tool: Any) -> str:
    if not isinstance(tool, Mapping):
        return str(getattr(tool, "name", ""))
    given = cast("Mapping[str, Any]", tool)  # in a provider's own form
    return str((given.get("function") or given).get("name") or "")
