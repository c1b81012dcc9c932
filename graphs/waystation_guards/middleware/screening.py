"""Screening for prompt injection as middleware for `create_agent`: the form that can mark what is untrusted.

    screening = Screening(ScreenSettings(on_input="block", on_tool="mark"))
    agent = create_agent(model, tools, middleware=[ScreeningMiddleware(screening)])

What is marked is marked in what the model reads; the state keeps the messages as they came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import SystemMessage, ToolMessage

from waystation_guards.blocking import wait_for
from waystation_guards.calls import current_config
from waystation_guards.ports import ports_of
from waystation_guards.screening.guard import screened
from waystation_guards.screening.screening import MARK_NOTE, Screening, marked_message


class ScreeningMiddleware(AgentMiddleware[Any, Any, Any]):
    """Looks at what users and tools say before the agent's model reads it."""

    def __init__(self, screening: Screening, *, marks_all_tools: bool = False) -> None:
        """`marks_all_tools`: every tool's result stands between tags that say it is data, not only those in which
        something was found: what no rule knows is then data, too."""
        super().__init__()
        self.screening = screening
        self.marks_all_tools = marks_all_tools

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Raises ContentBlocked or GraphInterrupt, as the settings say."""
        return handler(wait_for(self._screened(request), ports_of(current_config()).loop))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(await self._screened(request))

    async def _screened(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        messages: list[Any] = await screened(self.screening, request.messages)
        is_changed = any(one is not other for one, other in zip(messages, request.messages, strict=True))
        if self.marks_all_tools:
            for number, (message, before) in enumerate(zip(messages, request.messages, strict=True)):
                if isinstance(before, ToolMessage) and message is before:
                    messages[number] = marked_message(before, source=str(before.name or "tool"))
                    is_changed = True
        if not is_changed:
            return request
        before = "" if request.system_message is None else f"{request.system_message.text}\n\n"
        return request.override(messages=messages, system_message=SystemMessage(before + MARK_NOTE))
