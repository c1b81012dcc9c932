"""Budgets as middleware for `create_agent`.

    budget = Budget(Limit(5, scope="user", window="day", on_limit="end"), Limit(20, unit="tool_calls", on_limit="end"))
    agent = create_agent(model, tools, middleware=[BudgetMiddleware(budget, cheaper=small_model)])

    raise      BudgetExceeded comes out of the agent
    end        the agent says why it stops, and the run is a success
    interrupt  a human is asked; Command(resume={"grant": 5}) goes on, Command(resume={"refuse": True}) ends the run
    degrade    the call is made of `cheaper`, as far as the limit allows that; then it raises

It counts the agent's calls of its model and tools, those of middleware inside of it (retries, fallbacks), and what
tools call. What other middleware calls outside of it (summaries) is seen by `guarded(agent, [budget])`. Where a
server's policy or `guarded` watches the same calls, they are asked first; a call is counted once on each account.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NotRequired, cast
from uuid import uuid4

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
    hook_config,
)
from langchain.agents.middleware.types import PrivateStateAttr
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from waystation_guards.budget.budget import Budget
from waystation_guards.budget.degrading import CheaperModel
from waystation_guards.errors import BudgetDegrades, BudgetExceeded
from waystation_guards.guarded.endings import ending_message
from waystation_guards.watching.config import watching_here, watching_in

Answer = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]
ToolAnswer = ToolMessage | Command[Any]

_ENDED = "waystation_budget"
"""In a tool message's `additional_kwargs`: what the agent is to say when it ends for it."""


class BudgetState(AgentState[Any]):
    """`budget_run` stands for the run where the program gives it no id; it is the same when the run is resumed."""

    budget_run: NotRequired[Annotated[str, PrivateStateAttr]]


class BudgetMiddleware(AgentMiddleware[BudgetState, Any, Any]):
    """Keeps an agent within a budget, and does what the limits' `on_limit` says where it would leave it."""

    state_schema = BudgetState

    def __init__(self, budget: Budget, *, cheaper: BaseChatModel | str | None = None) -> None:
        """`cheaper`: the model for limits that degrade, also as `provider:name`.

        Raises:
            ValueError: a limit degrades and there is no cheaper model.
        """
        super().__init__()
        if cheaper is None and any(limit.on_limit == "degrade" for limit in budget.limits):
            raise ValueError("a limit of the budget degrades: `cheaper`, the model to degrade to, is missing")
        self.budget = budget
        model = init_chat_model(cheaper) if isinstance(cheaper, str) else cheaper
        self._cheaper = None if model is None else CheaperModel(inner=model)

    @property
    def name(self) -> str:
        """An agent may have several budgets."""
        return f"BudgetMiddleware[{self.budget.name}]"

    def before_agent(self, state: BudgetState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Name the run."""
        return {"budget_run": uuid4().hex}

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: BudgetState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """End the run where a tool call was refused and the limit says so."""
        for message in reversed(state["messages"]):
            if not isinstance(message, ToolMessage):
                return None
            if said := message.additional_kwargs.get(_ENDED):
                return {"messages": [AIMessage(said)], "jump_to": "end"}
        return None

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Answer]) -> Answer:
        """One attempt of the agent to call its model. Raises as `Budget.before_model`, where the limit says so."""
        with watching_here([self.budget], run=_run(request.state)) as watcher:
            try:
                try:
                    return handler(request)
                except BudgetDegrades:
                    return handler(self._degraded(request))
            except BudgetExceeded as error:
                return _ended(error)
            finally:
                watcher.close_blocking()

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Answer]]
    ) -> Answer:
        """As `wrap_model_call`."""
        with watching_here([self.budget], run=_run(request.state)) as watcher:
            try:
                try:
                    return await handler(request)
                except BudgetDegrades:
                    return await handler(self._degraded(request))
            except BudgetExceeded as error:
                return _ended(error)
            finally:
                await watcher.close()

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolAnswer]) -> ToolAnswer:
        """One tool call, and what the tool calls. Raises as `Budget.before_tool`, where the limit says so."""
        with watching_in(cast("Any", request).runtime.config, [self.budget], run=_run(request.state)) as watcher:
            try:
                return handler(request)
            except BudgetExceeded as error:
                return _refused(request, error)
            finally:
                watcher.close_blocking()

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolAnswer]]
    ) -> ToolAnswer:
        """As `wrap_tool_call`."""
        with watching_in(cast("Any", request).runtime.config, [self.budget], run=_run(request.state)) as watcher:
            try:
                return await handler(request)
            except BudgetExceeded as error:
                return _refused(request, error)
            finally:
                await watcher.close()

    def _degraded(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        if self._cheaper is None:
            raise ValueError("a budget around this one degrades: `cheaper`, the model to degrade to, is missing")
        return request.override(model=self._cheaper)


def _run(state: Any) -> str:
    return str(cast("dict[str, Any]", state).get("budget_run") or "") if isinstance(state, dict) else ""


def _ended(error: BudgetExceeded) -> AIMessage:
    """The agent's last message. It calls no tool, so the agent is at its end."""
    if not error.ends_run:
        raise error
    return ending_message(error)


def _refused(request: ToolCallRequest, error: BudgetExceeded) -> ToolMessage:
    """The answer to a tool call that was not made. The others of its step are: what they did should be known."""
    if not error.ends_run:
        raise error
    return ToolMessage(
        f"not made: {error.message}",
        tool_call_id=request.tool_call["id"] or "",
        name=request.tool_call["name"],
        status="error",
        additional_kwargs={_ENDED: ending_message(error).text},
    )
