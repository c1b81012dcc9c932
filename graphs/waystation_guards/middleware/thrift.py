"""Shorter contexts and smaller models as middleware for `create_agent`.

    agent = create_agent(large, tools, middleware=[
        ThriftMiddleware(Thrift(max_tokens=8_000), summariser=small),
        RoutingMiddleware(small),
    ])

`ThriftMiddleware` shortens what the model is told and leaves the state as it is; LangChain's `SummarizationMiddleware`
shortens the state itself, and `SavingSummarization` is that one with its savings in the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, SummarizationMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.messages.utils import count_tokens_approximately

from waystation_guards.blocking import wait_for
from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.savings import record_saving, saving_of_tokens
from waystation_guards.calls import current_config, site_of
from waystation_guards.context.routed_model import RoutedModel
from waystation_guards.context.routing import RoutingRules
from waystation_guards.context.thrift import Thrift
from waystation_guards.context.thrifty_model import ThriftyModel
from waystation_guards.ports import ports_of

Handler = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


class ThriftMiddleware(AgentMiddleware[Any, Any, Any]):
    """Tells an agent's model no more than it has to be told (`ThriftyModel`)."""

    def __init__(
        self, thrift: Thrift | None = None, *, summariser: BaseChatModel | None = None, prices: Prices | None = None
    ) -> None:
        super().__init__()
        self.thrift = thrift or Thrift()
        self.summariser = summariser
        self.prices = prices or Prices()

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """The call, to a model that is told less."""
        return handler(self._thrifty(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(self._thrifty(request))

    def _thrifty(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        model = ThriftyModel(inner=request.model, thrift=self.thrift, summariser=self.summariser, prices=self.prices)
        return request.override(model=model)


class RoutingMiddleware(AgentMiddleware[Any, Any, Any]):
    """Asks smaller models first; the agent's own is the largest (`RoutedModel`)."""

    def __init__(
        self,
        small: BaseChatModel,
        *between: BaseChatModel,
        rules: RoutingRules | None = None,
        prices: Prices | None = None,
    ) -> None:
        """`between`: models between the small one and the agent's, in order of size."""
        super().__init__()
        self.small, self.between = small, between
        self.rules = rules or RoutingRules()
        self.prices = prices or Prices()

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """The call, to the smallest model that will do."""
        return handler(self._routed(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(self._routed(request))

    def _routed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        larger = [*self.between, request.model]
        return request.override(
            model=RoutedModel(inner=self.small, larger=larger, rules=self.rules, prices=self.prices)
        )


class SavingSummarization(SummarizationMiddleware[Any, Any]):
    """LangChain's own, which shortens the agent's state, with what that saves per call in the ledger.

    The summary's own call is one that guards see and the ledger bills.
    """

    prices: Prices = Prices()

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Summarise if it is time, and write down what that saves."""
        update = super().before_model(state, runtime)
        if update is not None:
            wait_for(self._record(state, update), ports_of(current_config()).loop)
        return update

    async def abefore_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """As `before_model`."""
        update = await super().abefore_model(state, runtime)
        if update is not None:
            await self._record(state, update)
        return update

    async def _record(self, state: Any, update: dict[str, Any]) -> None:
        config = current_config()
        kept = [one for one in cast("Sequence[BaseMessage]", update["messages"]) if not isinstance(one, RemoveMessage)]
        tokens = count_tokens_approximately(state["messages"]) - count_tokens_approximately(kept)
        name, saved = saving_of_tokens(self.prices, self.model, tokens)
        detail = {"what": "summary", "saved_tokens": tokens, "saved_nano_usd": saved}
        await record_saving(ports_of(config), site_of(config), name, detail)
