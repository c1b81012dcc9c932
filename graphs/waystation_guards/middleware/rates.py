"""Rate limits as middleware for `create_agent`.

    limiter = RateLimit(ModelRate(requests=500, tokens=200_000))
    agent = create_agent(model, tools, middleware=[RateLimitMiddleware(limiter)])

It sees the agent's own model calls, streamed and aborted ones too. Models that tools or other middleware call are seen
by `guarded(agent, [limiter])`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse

from waystation_guards.guarded.graph import guarded
from waystation_guards.rates.guard import RateLimit


class RateLimitMiddleware(AgentMiddleware[Any, Any, Any]):
    """Makes an agent's model calls wait for their turn. A call that would wait too long raises RateLimited."""

    def __init__(self, limiter: RateLimit) -> None:
        super().__init__()
        self.limiter = limiter

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """One attempt of the agent to call its model. Middleware inside of this one may make several calls of it."""
        return handler(request.override(model=guarded(request.model, [self.limiter])))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(request.override(model=guarded(request.model, [self.limiter])))
