"""What of the runs of a process goes to the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waystation.catalog.keys_audit import AuditKeys

if TYPE_CHECKING:  # loaded where a project keeps an audit log, and where a run is guarded
    from waystation.guarding.audit import AuditWriter
    from waystation_guards.audit import AuditSink
    from waystation_guards.watching import Guard


@dataclass(frozen=True, slots=True)
class RunAudit:
    """The writer of a process, and what the project wants to have in the log."""

    writer: AuditWriter
    keys: AuditKeys

    @property
    def tools(self) -> bool:
        """Whether all tool calls are wanted, also where nothing guards them."""
        return "tools" in self.keys.what

    @property
    def sink(self) -> AuditSink | None:
        """What guards tell; None where the project does not want to hear of them."""
        return self.writer if "guards" in self.keys.what or self.tools else None

    def guards(self) -> tuple[Guard, ...]:
        """The guard that hears of the refusals of those after it."""
        if self.sink is None:
            return ()
        from waystation_guards.audit import ArgumentsForm
        from waystation_guards.audit_guard import AuditGuard

        return (AuditGuard(tools=self.tools, form=ArgumentsForm(kept=self.keys.arguments)),)
