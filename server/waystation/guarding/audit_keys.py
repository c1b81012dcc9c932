"""What of the runs of a process goes to the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from waystation.catalog.keys_audit import AuditKeys

if TYPE_CHECKING:  # loaded where a project keeps an audit log, and where a run is guarded
    from waystation.guarding.audit import AuditWriter
    from waystation_guards.audit.audit import AuditEntry, AuditSink
    from waystation_guards.watching.watcher import Guard


@dataclass(frozen=True, slots=True)
class Formed:
    """Keeps arguments as the project wants it, whoever tells of them: guards of graphs redact them and no more."""

    writer: AuditWriter
    keys: AuditKeys

    async def record(self, *entries: AuditEntry) -> None:
        """As the writer's."""
        await self.writer.record(*(replace(one, arguments=self._kept(one.arguments)) for one in entries))

    def _kept(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.keys.arguments == "none" or all(str(one).startswith("sha256:") for one in arguments.values()):
            return {} if self.keys.arguments == "none" else arguments
        from waystation_guards.audit.audit import ArgumentsForm

        return ArgumentsForm("hashed").of(arguments)


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
        if "guards" not in self.keys.what and not self.tools:
            return None
        return self.writer if self.keys.arguments == "redacted" else Formed(self.writer, self.keys)

    def guards(self) -> tuple[Guard, ...]:
        """The guard that hears of the refusals of those after it."""
        if self.sink is None:
            return ()
        from waystation_guards.audit.audit import ArgumentsForm
        from waystation_guards.audit.guard import AuditGuard

        return (AuditGuard(tools=self.tools, form=ArgumentsForm(kept=self.keys.arguments)),)
