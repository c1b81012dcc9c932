"""Failover as middleware for `create_agent`: the agent's model first, then others.

agent = create_agent("openai:gpt-5-mini", tools, middleware=[FailoverMiddleware("anthropic:claude-haiku-4-5")])
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse

from waystation_guards.failover.breakers import OnChange
from waystation_guards.failover.hedging import Latencies
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import FailoverPolicy
from waystation_guards.failover.targets import Named, Target, target_of


class FailoverMiddleware(AgentMiddleware[Any, Any, Any]):
    """Puts a `FailoverModel` in the place of the agent's model, with the request's own model as its first target.

    Middleware further in, and the budget's callbacks, see each try.
    """

    def __init__(
        self,
        *targets: Named,
        policy: FailoverPolicy | None = None,
        on_change: OnChange | None = None,
        model_first: bool = True,
    ) -> None:
        """`targets`: tried in order after the agent's model, or instead of it (`model_first=False`).

        Raises:
            ValueError: as `FailoverModel`.
        """
        super().__init__()
        self._targets: tuple[Target, ...] = tuple(map(target_of, targets))
        self._policy = policy or FailoverPolicy()
        self._on_change = on_change
        self._model_first = model_first
        self._times = Latencies()
        if not model_first:
            FailoverModel(self._targets, self._policy)  # says what is wrong with the targets

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(request.override(model=self.model(request)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        return await handler(request.override(model=self.model(request)))

    def model(self, request: ModelRequest[Any]) -> FailoverModel:
        """The failover for a request. A target that is the request's own model stands first, and once."""
        if isinstance(request.model, FailoverModel):
            first = request.model.targets if self._model_first else ()
        else:
            first = (Target(request.model),) if self._model_first else ()
        names = {target.name for target in first}
        rest = [target for target in self._targets if target.name not in names]
        return FailoverModel([*first, *rest], self._policy, on_change=self._on_change, times=self._times)
