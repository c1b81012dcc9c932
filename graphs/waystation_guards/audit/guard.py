"""Writes refusals of guards, and if wanted all tool calls, to the audit log.

watched(config, [AuditGuard(), permissions, budget])        first, so that it hears of the others' refusals
"""

from __future__ import annotations

from waystation_guards.audit.audit import REDACTED, ArgumentsForm, AuditEntry, Outcome, audit
from waystation_guards.errors import GuardError
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall


class AuditGuard:
    """A guard (`watching.Guard`) that refuses nothing and tells the ports' audit log what others did."""

    def __init__(self, *, tools: bool = False, form: ArgumentsForm = REDACTED) -> None:
        """`tools`: every tool call, not only those that were refused. `form`: how arguments are kept."""
        self._tools = tools
        self._form = form

    async def before_model(self, call: ModelCall) -> None: ...

    async def after_model(self, call: ModelCall, made: Made) -> None:
        """Write that a model call was refused."""
        if made == "not made" and isinstance(call.error, GuardError):
            detail = {"code": call.error.code, "reason": call.error.message}
            entry = AuditEntry.at(call.site, "model.refused", outcome="refused", resource=call.model, detail=detail)
            await audit(call.ports, entry)

    async def before_tool(self, call: ToolCall) -> None: ...

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        """Write that a tool call was refused; or what became of it."""
        detail: dict[str, str] = {}
        if made == "not made":
            if not isinstance(call.error, GuardError):
                return  # it waits for an answer: nothing was decided
            detail = {"code": call.error.code, "reason": call.error.message}
            action, outcome = "tool.refused", "refused"
        elif self._tools:
            action, outcome = "tool.called", _OUTCOMES[made]
        else:
            return
        entry = AuditEntry.at(
            call.site, action, outcome=outcome, tool=call.name, arguments=call.arguments, detail=detail, form=self._form
        )
        await audit(call.ports, entry)


_OUTCOMES: dict[Made, Outcome] = {"made": "done", "failed": "failed", "cancelled": "failed", "not made": "refused"}
