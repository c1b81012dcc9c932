"""Caps as middleware for `create_agent`.

    agent = create_agent(model, tools, middleware=[CapsMiddleware(Caps(model_calls=30, tool_calls_per_turn=5))])

How often an agent calls models and tools is counted by LangChain's own `ModelCallLimitMiddleware` and
`ToolCallLimitMiddleware`, whose counts are in the state and survive a restart: `limits_of(caps)` makes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ModelCallLimitMiddleware,
    ModelRequest,
    ModelResponse,
    ToolCallLimitMiddleware,
    hook_config,
)
from langchain_core.messages import AIMessage, ToolMessage

from waystation_guards.caps.caps import Caps
from waystation_guards.caps.schema import OutputCheck
from waystation_guards.errors import LimitPassed

OnLimit = Literal["raise", "end", "tell"]


class CapsMiddleware(AgentMiddleware[Any, Any, Any]):
    """Sizes of prompts and answers, and tool calls in one answer."""

    def __init__(self, caps: Caps, *, on_limit: OnLimit = "raise") -> None:
        """`on_limit`: `raise` LimitPassed; `end` the run with a message; or `tell` the model, whose surplus tool calls
        are answered with an error (for prompts and answers that are too large it is as `end`)."""
        super().__init__()
        if on_limit not in ("raise", "end", "tell"):
            raise ValueError(f"on_limit is {on_limit!r}; expected is raise, end or tell")
        self.caps = caps
        self.on_limit = on_limit

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Look at the prompt's size."""
        try:
            self.caps.check_input(state["messages"])
        except LimitPassed as error:
            return self._end(error)
        return None

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """As `before_model`."""
        return self.before_model(state, runtime)

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Look at the answer's size and its tool calls."""
        answer = state["messages"][-1]
        if not isinstance(answer, AIMessage):
            return None
        try:
            self.caps.check_output(answer)
        except LimitPassed as error:
            if self.on_limit == "tell" and answer.tool_calls and self.caps.tool_calls_per_turn:
                return self._told(answer, self.caps.tool_calls_per_turn, error)
            return self._end(error, answer)
        return None

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """As `after_model`."""
        return self.after_model(state, runtime)

    def _told(self, answer: AIMessage, most: int, error: LimitPassed) -> dict[str, Any]:
        surplus = answer.tool_calls[most:]
        told = [
            ToolMessage(error.message, name=call["name"], tool_call_id=call["id"] or "", status="error")
            for call in surplus
        ]
        return {"messages": told}

    def _end(self, error: LimitPassed, answer: AIMessage | None = None) -> dict[str, Any]:
        if self.on_limit == "raise":
            raise error
        # An answer with calls that nobody answers would spoil the thread: every call gets its message.
        unanswered = [] if answer is None else answer.tool_calls
        closed = [
            ToolMessage(error.message, name=call["name"], tool_call_id=call["id"] or "", status="error")
            for call in unanswered
        ]
        return {"jump_to": "end", "messages": [*closed, AIMessage(f"I have to stop here: {error.message}.")]}


def limits_of(caps: Caps, *, on_limit: Literal["raise", "end"] = "raise") -> list[AgentMiddleware[Any, Any, Any]]:
    """LangChain's own counters for `model_calls` and `tool_calls` of a run."""
    behaviour: Any = "error" if on_limit == "raise" else "end"
    made: list[Any] = []
    if caps.model_calls is not None:
        made.append(ModelCallLimitMiddleware(run_limit=caps.model_calls, exit_behavior=behaviour))
    if caps.tool_calls is not None:
        tool_behaviour: Any = "error" if on_limit == "raise" else "continue"
        made.append(ToolCallLimitMiddleware(run_limit=caps.tool_calls, exit_behavior=tool_behaviour))
    return made


class OutputCheckMiddleware(AgentMiddleware[Any, Any, Any]):
    """An agent's last answer fits a schema: asked for again with what was wrong, refused, or replaced."""

    def __init__(self, check: OutputCheck) -> None:
        super().__init__()
        self.check = check

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model until its answer fits."""
        asked, complaint = request, ""
        for _ in range(self.check.retries + 1):
            response = handler(asked)
            if (found := self._complaint(response)) is None:
                return response
            asked, complaint = self._again(request, response, found), found
        return ModelResponse([self.check.otherwise(complaint)])

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        asked, complaint = request, ""
        for _ in range(self.check.retries + 1):
            response = await handler(asked)
            if (found := self._complaint(response)) is None:
                return response
            asked, complaint = self._again(request, response, found), found
        return ModelResponse([self.check.otherwise(complaint)])

    def _complaint(self, response: ModelResponse[Any]) -> str | None:
        answer = response.result[-1]
        return self.check.complaint(answer) if isinstance(answer, AIMessage) else None

    def _again(self, request: ModelRequest[Any], response: ModelResponse[Any], complaint: str) -> ModelRequest[Any]:
        answer: Any = response.result[-1]
        messages: Any = self.check.again(request.messages, answer, complaint)
        return request.override(messages=messages)
