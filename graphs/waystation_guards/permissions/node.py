"""Tool permissions for any `StateGraph`: LangGraph's `ToolNode` that judges the calls it is given.

    builder.add_node("tools", PermittedToolNode(tools, permissions))

Calls that need approval are asked about before any call of the turn is made, all in one interrupt (LangChain's
`HITLRequest`): when the node runs again with the answer, nothing has been done yet that would be done twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, Literal, cast

from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, interrupt
from pydantic import AfterValidator

from waystation_guards.audit.audit import audit
from waystation_guards.blocking import wait_for
from waystation_guards.calls import current_config, site_of
from waystation_guards.errors import NotPermitted
from waystation_guards.permissions.asking import question
from waystation_guards.permissions.permissions import Permissions, entry_of
from waystation_guards.ports import ports_of

Result = ToolMessage | Command[Any]

_decided: ContextVar[Mapping[str, Any] | None] = ContextVar("decided", default=None)
"""What was decided about the calls of the node that runs here, by call id."""


class PermittedToolNode(ToolNode):
    """A `ToolNode` under permissions."""

    def __init__(
        self,
        tools: Sequence[BaseTool | Callable[..., Any]],
        permissions: Permissions,
        *,
        on_refusal: Literal["message", "raise"] = "message",
        messages_key: str = "messages",
        wrap_tool_call: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Result]], Result] | None = None,
        awrap_tool_call: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Awaitable[Result]]], Awaitable[Result]]
        | None = None,
        **options: Any,
    ) -> None:
        """`on_refusal`: a refused call becomes an error message for the model, or raises NotPermitted. All else is
        LangGraph's; wrappers are called for calls that are permitted."""
        cast("Any", super()).__init__(
            tools,
            messages_key=messages_key,
            wrap_tool_call=cast("Any", self._permitted),
            awrap_tool_call=cast("Any", self._apermitted),
            **options,
        )
        self.permissions = permissions
        self._on_refusal = on_refusal
        self._key = messages_key
        self._inner, self._ainner = wrap_tool_call, awrap_tool_call

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        before = _decided.set(self._review(input, config))
        try:
            return super().invoke(input, config, **kwargs)
        finally:
            _decided.reset(before)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        before = _decided.set(self._review(input, config))
        try:
            return await super().ainvoke(input, config, **kwargs)
        finally:
            _decided.reset(before)

    def _review(self, input: Any, config: RunnableConfig | None) -> dict[str, Any]:
        """Ask about the calls that need it. Raises GraphInterrupt before there is an answer."""
        roles = site_of(current_config() or config).roles
        asked = [
            (call, verdict)
            for call in _calls_of(input, self._key)
            if (verdict := self.permissions.judge(call["name"], call["args"], roles=roles)).effect == "approve"
        ]
        if not asked:
            return {}
        parts = [
            question(call["name"], call["args"], reason=verdict.reason, decisions=verdict.decisions)
            for call, verdict in asked
        ]
        allowed = [verdict.decisions for _, verdict in asked]

        def checked(answer: dict[str, Any]) -> dict[str, Any]:
            _check(answer.get("decisions"), allowed)
            return answer

        answer: Any = interrupt(
            {"action_requests": [one["action"] for one in parts], "review_configs": [one["review"] for one in parts]},
            # LangGraph keeps no answer that its schema refuses: the question can be answered again.
            response_schema=cast("Any", Annotated[dict[str, Any], AfterValidator(checked)]),
        )
        decisions: list[Any] = list(answer["decisions"])
        return {str(call["id"]): decision for (call, _), decision in zip(asked, decisions, strict=True)}

    def _permitted(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Result]) -> Result:
        decided = self._decide(request)
        if isinstance(decided, ToolCallRequest):
            return execute(decided) if self._inner is None else self._inner(decided, execute)
        action, text = decided
        wait_for(_tell(request, action, text), ports_of(current_config()).loop)
        return self._answer(request, action, text)

    async def _apermitted(
        self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        decided = self._decide(request)
        if isinstance(decided, ToolCallRequest):
            return await (execute(decided) if self._ainner is None else self._ainner(decided, execute))
        action, text = decided
        await _tell(request, action, text)
        return self._answer(request, action, text)

    def _decide(self, request: ToolCallRequest) -> ToolCallRequest | tuple[str, str]:
        """The call to make; or what became of it instead, and what the model is told."""
        decision: Any = (_decided.get() or {}).get(str(request.tool_call["id"]))
        name, roles = request.tool_call["name"], site_of(current_config()).roles
        match decision["type"] if decision else None:
            case "reject":
                why = decision.get("message")
                return "tool.rejected", f"{name} was rejected{f': {why}' if why else ', and should not be tried again'}"
            case "respond":
                return "tool.answered", str(decision["message"])
            case "edit":
                edited: Any = decision["edited_action"]
                changed: Any = {**request.tool_call, "name": edited["name"], "args": edited["args"]}
                tool = cast(
                    "BaseTool", self.tools_by_name.get(edited["name"])
                )  # LangGraph tells of one that is not there
                request = request.override(tool_call=changed, tool=tool)
            case _:
                pass
        call = request.tool_call
        verdict = self.permissions.judge(call["name"], call["args"], roles=roles)
        if verdict.effect == "deny" or (verdict.effect == "approve" and decision is None):
            return "tool.refused", f"{call['name']} was refused: {verdict.reason}"
        return request

    def _answer(self, request: ToolCallRequest, action: str, text: str) -> ToolMessage:
        if self._on_refusal == "raise" and action != "tool.answered":
            raise NotPermitted(text)
        call = request.tool_call
        status = "success" if action == "tool.answered" else "error"
        return ToolMessage(text, name=call["name"], tool_call_id=call["id"] or "", status=status)


async def _tell(request: ToolCallRequest, action: str, text: str) -> None:
    config, call = current_config(), request.tool_call
    await audit(ports_of(config), entry_of(site_of(config), action, call["name"], call["args"], reason=text))


def _check(decisions: Any, allowed: Sequence[Sequence[str]]) -> None:
    """Raise ValueError where an answer has not one possible decision for each call that was asked about."""
    if not isinstance(decisions, list) or len(cast("list[Any]", decisions)) != len(allowed):
        raise ValueError(f"expected are {len(allowed)} decisions, one for each call that needs approval")
    for number, (one, kinds) in enumerate(zip(cast("list[Any]", decisions), allowed, strict=True)):
        decision = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        if decision.get("type") not in kinds:
            raise ValueError(f"decisions.{number} is {decision.get('type')!r}; expected is one of {', '.join(kinds)}")
        edited = decision.get("edited_action")
        if decision["type"] == "edit" and not (isinstance(edited, dict) and {"name", "args"} <= edited.keys()):
            raise ValueError(f"decisions.{number}.edited_action: expected are a name and args")


def _calls_of(input: Any, key: str) -> list[ToolCall]:
    """The calls that a tool node is given, in each of the forms that LangGraph's takes."""
    if isinstance(input, dict):
        members = cast("dict[str, Any]", input)
        if members.get("__type") == "tool_call_with_context":
            return [members["tool_call"]]
        messages: Any = members.get(key) or []
    elif isinstance(input, list):
        if input and isinstance(input[-1], dict) and cast("Any", input[-1]).get("type") == "tool_call":
            return cast("list[ToolCall]", input)
        messages = cast("Any", input)
    else:
        messages = getattr(input, key, None) or []
    last = next((one for one in reversed(messages) if isinstance(one, AIMessage)), None)
    return [] if last is None else list(last.tool_calls)
