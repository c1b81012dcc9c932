"""Caches as middleware for `create_agent`.

    agent = create_agent(model, tools, middleware=[
        PromptCachingMiddleware(),                                     the provider's own cache, where it pays
        CacheMiddleware(ResponseCache()),                              whole answers
        ToolCacheMiddleware({"search": ToolRule(ttl_s=600)}),          results of tools, tool by tool
    ])

Put `CacheMiddleware` behind middleware that changes the prompt: what is cached is what the model is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from waystation_guards.budget.pricing import Prices
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.prompts import PromptCaching, PromptCachingModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import OnCacheEvent
from waystation_guards.caching.tools import ToolCache, ToolRule, ToolUse
from waystation_guards.calls import current_config

Handler = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
ToolResult = ToolMessage | Command[Any]


class CacheMiddleware(AgentMiddleware[Any, Any, Any]):
    """Gives an agent the answers that are known (`CachedModel`)."""

    def __init__(self, answers: ResponseCache | None = None) -> None:
        super().__init__()
        self.answers = answers or ResponseCache()

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """The call, to a model that looks into the cache first."""
        return handler(self._cached(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(self._cached(request))

    def _cached(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        return request.override(model=CachedModel(inner=request.model, answers=self.answers))


class PromptCachingMiddleware(AgentMiddleware[Any, Any, Any]):
    """Marks an agent's prompts for the provider's cache where that pays (`PromptCachingModel`).

    LangChain's `AnthropicPromptCachingMiddleware` marks every prompt of Anthropic's models; this one those that are
    long enough and are seen again, gives OpenAI's a `prompt_cache_key`, and writes into the ledger what it saved.
    """

    def __init__(self, settings: PromptCaching | None = None, *, prices: Prices | None = None) -> None:
        super().__init__()
        self.settings = settings or PromptCaching()
        self.prices = prices or Prices()

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """The call, to a model that marks its prompt."""
        return handler(self._marking(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(self._marking(request))

    def _marking(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        model = PromptCachingModel(inner=request.model, settings=self.settings, prices=self.prices)
        return request.override(model=model)


class ToolCacheMiddleware(AgentMiddleware[Any, Any, Any]):
    """Gives an agent the results of tools that are known. Tools that are not named are called each time."""

    def __init__(self, rules: Mapping[str, ToolRule], *, on_event: OnCacheEvent | None = None) -> None:
        super().__init__()
        self.results = ToolCache(dict(rules), on_event)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        """The kept result, or the tool's."""
        use = self._use(request)
        return handler(request) if use is None else self.results.run(use, _id(request), lambda: handler(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """As `wrap_tool_call`."""
        use = self._use(request)
        if use is None:
            return await handler(request)
        return await self.results.arun(use, _id(request), lambda: handler(request))

    def _use(self, request: ToolCallRequest) -> ToolUse | None:
        # What LangGraph injects into a tool is not in the model's own call.
        return self.results.use_of(request.tool_call["name"], request.tool_call["args"], current_config())


def _id(request: ToolCallRequest) -> str:
    return str(request.tool_call["id"])
