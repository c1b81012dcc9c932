"""Rows as the rest of the program sees them: frozen dataclasses, ids as strings, times as aware datetimes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
FinalStatus = Literal["success", "error", "timeout", "interrupted"]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
RestingStatus = Literal["idle", "interrupted", "error"]
CancelAction = Literal["interrupt", "rollback"]
MultitaskStrategy = Literal["reject", "enqueue", "interrupt", "rollback"]

FINAL_STATUSES: frozenset[str] = frozenset({"success", "error", "timeout", "interrupted"})


@dataclass(frozen=True, slots=True)
class RunKey:
    """What names a run in every table: tenant, thread and run. All queries on the hot path carry all three."""

    tenant_id: str
    thread_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run as the worker that claimed it gets it. `attempt` fences every write; `epoch_ms` begins its event ids."""

    key: RunKey
    assistant_id: str
    graph_id: str
    attempt: int
    crashes: int
    epoch_ms: int
    kwargs: dict[str, Any]
    metadata: dict[str, Any]
    assistant_config: dict[str, Any]
    assistant_context: dict[str, Any]
    resumable: bool
    temporary: bool
    cancel_action: CancelAction | None
    cancel_reason: str | None
    begins_thread: bool = False
    """The thread had no state when the run was claimed: there is nothing to load."""
    waited_s: float | None = None
    """From when the run was due to its first claim; None at later ones."""
    event_base: int = 0
    """The events of the run are numbered from here, over all of its attempts."""


@dataclass(frozen=True, slots=True)
class CancelWish:
    """A durable wish to stop a running run, as the lease renewal returns it."""

    key: RunKey
    attempt: int
    action: CancelAction
    reason: str | None


@dataclass(frozen=True, slots=True)
class RunState:
    """What a reader of a run's events needs to know of the run: is it final, and why."""

    key: RunKey
    status: RunStatus
    attempt: int
    epoch_ms: int
    resumable: bool
    error: dict[str, Any] | None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES
