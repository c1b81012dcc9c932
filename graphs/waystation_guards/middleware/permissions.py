"""Tool permissions as middleware for `create_agent`; approvals are those of LangChain's `HumanInTheLoopMiddleware`.

agent = create_agent(model, tools, middleware=[PermissionsMiddleware(permissions)], checkpointer=saver)

model call  ─▶ tools that the caller's roles may not call at all are not shown
its answer  ─▶ calls that need approval: one interrupt for all of them (approve, edit, reject)
each call   ─▶ judged as it is about to be made, as somebody edited it too; refused ones are an error for the model
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NotRequired, cast

from langchain.agents.middleware import (
    AgentState,
    HumanInTheLoopMiddleware,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
)
from langchain.agents.middleware.human_in_the_loop import InterruptOnConfig
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langgraph.types import Command

from waystation_guards.audit.audit import audit
from waystation_guards.blocking import wait_for
from waystation_guards.calls import current_config, site_of
from waystation_guards.errors import NotPermitted
from waystation_guards.permissions.permissions import Permissions, Verdict, entry_of
from waystation_guards.ports import ports_of

Result = ToolMessage | Command[Any]

_APPROVED = "permissions_approved"


class PermissionsState(AgentState[Any]):
    """What is kept between the approval and the call: `permissions_approved`, hashes of calls by their id."""

    hitl_edited_tool_calls: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]
    permissions_approved: NotRequired[Annotated[dict[str, str], PrivateStateAttr]]


class _Reviewed(dict[str, InterruptOnConfig]):
    """Stands in the place of LangChain's table of tools: every tool may need a review, the verdict on the call says."""

    def __init__(self, config: Callable[[str], InterruptOnConfig]) -> None:
        super().__init__()
        self._config = config

    def get(self, key: str, default: Any = None, /) -> Any:
        return self._config(key)

    def __getitem__(self, key: str) -> InterruptOnConfig:
        return self._config(key)


class PermissionsMiddleware(HumanInTheLoopMiddleware[Any, Any, Any]):
    """Tool permissions of an agent. Put it before middleware that retries tools or handles their errors."""

    state_schema = PermissionsState

    def __init__(
        self,
        permissions: Permissions,
        *,
        on_refusal: Literal["message", "raise"] = "message",
        interrupt_mode: Literal["batched", "per_call"] = "batched",
        hides_tools: bool = True,
    ) -> None:
        """`on_refusal`: a refused call becomes an error message for the model, or raises NotPermitted.
        `interrupt_mode`, as LangChain's: one question for a turn, or one for each call."""
        super().__init__({}, interrupt_mode=interrupt_mode)
        if on_refusal not in ("message", "raise"):
            raise ValueError(f"on_refusal is {on_refusal!r}; expected is message or raise")
        self.permissions = permissions
        self.on_refusal = on_refusal
        self.hides_tools = hides_tools
        self.interrupt_on = _Reviewed(self._review)

    def after_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Ask about the calls that need approval."""
        update = super().after_model(state, runtime)
        return update if update is None else {**update, _APPROVED: self._approved(state, update)}

    async def aafter_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """As `after_model`."""
        return self.after_model(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Show the model the tools that the caller may call."""
        return handler(self._with_permitted_tools(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        return await handler(self._with_permitted_tools(request))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Make the call if it is permitted, as it is after a review."""

        def permitted(asked: ToolCallRequest) -> Result:
            refusal = self._refusal(request, asked)
            if refusal is None:
                return handler(asked)
            wait_for(self._tell(asked, refusal), ports_of(current_config()).loop)
            return self._refused(asked, refusal)

        return super().wrap_tool_call(request, permitted)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """As `wrap_tool_call`."""

        async def permitted(asked: ToolCallRequest) -> Result:
            refusal = self._refusal(request, asked)
            if refusal is None:
                return await handler(asked)
            await self._tell(asked, refusal)
            return self._refused(asked, refusal)

        return await super().awrap_tool_call(request, permitted)

    def _verdict(self, name: str, arguments: dict[str, Any]) -> Verdict:
        return self.permissions.judge(name, arguments, roles=site_of(current_config()).roles)

    def _review(self, tool: str) -> InterruptOnConfig:
        """LangChain's settings for a tool: whether a call is asked about, and how, is its verdict's."""

        def when(request: ToolCallRequest) -> bool:
            call = request.tool_call
            messages: list[Any] = cast("dict[str, Any]", request.state).get("messages") or []
            if any(isinstance(one, ToolMessage) and one.tool_call_id == call["id"] for one in messages):
                return False  # answered already: a structured answer, or another middleware's refusal
            return self._verdict(tool, call["args"]).effect == "approve"

        def description(tool_call: ToolCall, state: Any, runtime: Any) -> str:  # these names are LangChain's
            arguments = tool_call["args"]
            shown = json.dumps(arguments, default=str, ensure_ascii=False)
            return f"{self._verdict(tool, arguments).reason}\n\nTool: {tool}\nArgs: {shown}"

        rules = [rule for rule in self.permissions.rules if rule.effect == "approve" and rule.names(tool)]
        decisions = rules[0].decisions if rules else ("approve", "edit", "reject")
        return InterruptOnConfig(allowed_decisions=list(decisions), description=description, when=when)

    def _approved(self, state: AgentState[Any], update: dict[str, Any]) -> dict[str, str]:
        """The calls that went through the review, so that none can be exchanged between it and its being made."""
        edited: dict[str, Any] = update.get("hitl_edited_tool_calls") or {}
        last = next((one for one in reversed(state["messages"]) if isinstance(one, AIMessage)), None)
        calls = {} if last is None else {str(call["id"]): call for call in last.tool_calls}
        return {
            id_: _hash(edited[id_]["name"], edited[id_]["args"]) if id_ in edited else _hash(call["name"], call["args"])
            for id_, call in calls.items()
        }

    def _refusal(self, original: ToolCallRequest, asked: ToolCallRequest) -> str | None:
        """Why a call is not made; None where it is."""
        call = asked.tool_call
        verdict = self._verdict(call["name"], call["args"])
        if verdict.effect == "deny":
            return verdict.reason
        if verdict.effect == "approve" and self.interrupt_mode == "batched":
            approved: dict[str, str] = cast("dict[str, Any]", original.state).get(_APPROVED) or {}
            if approved.get(str(call["id"])) != _hash(call["name"], call["args"]):
                return f"{verdict.reason}, and nobody approved this call"
        return None

    def _refused(self, request: ToolCallRequest, reason: str) -> ToolMessage:
        call = request.tool_call
        text = f"{call['name']} was refused: {reason}"
        if self.on_refusal == "raise":
            raise NotPermitted(text)
        return ToolMessage(text, name=call["name"], tool_call_id=call["id"] or "", status="error")

    async def _tell(self, request: ToolCallRequest, reason: str) -> None:
        config, call = current_config(), request.tool_call
        entry = entry_of(site_of(config), "tool.refused", call["name"], call["args"], reason=reason)
        await audit(ports_of(config), entry)

    def _with_permitted_tools(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        if not self.hides_tools:
            return request
        roles = site_of(current_config()).roles
        shown = [tool for tool in request.tools if self.permissions.shows(_name_of(tool), roles=roles)]
        if len(shown) == len(request.tools):
            return request
        names = {_name_of(tool) for tool in shown}
        chosen = request.tool_choice
        keeps = chosen is None or (bool(shown) and (not isinstance(chosen, str) or chosen in {*names, "auto", "any"}))
        return request.override(tools=shown, tool_choice=chosen if keeps else None)


def _name_of(tool: Any) -> str:
    """A tool's name: of ours, of a function in OpenAI's form, or of what the provider itself brings."""
    if not isinstance(tool, dict):
        return str(tool.name)
    told = cast("dict[str, Any]", tool)
    return str(told.get("name") or cast("dict[str, Any]", told.get("function") or {}).get("name") or told.get("type"))


def _hash(name: str, arguments: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([name, arguments], sort_keys=True, default=str).encode()).hexdigest()[:32]
