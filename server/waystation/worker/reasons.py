"""Why an execution stops before its graph is done: a value, set before the task is cancelled."""

from __future__ import annotations

from dataclasses import dataclass

from waystation_db.kills import REASON
from waystation_db.rows import CancelAction


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody wished it: the client, a newer run on the thread, an operator."""

    action: CancelAction
    reason: str | None

    @property
    def is_kill(self) -> bool:
        """It was the kill switch."""
        return self.reason is not None and self.reason.startswith(REASON)


@dataclass(frozen=True, slots=True)
class TimedOut:
    """It ran longer than a run may."""

    limit_s: float


@dataclass(frozen=True, slots=True)
class Draining:
    """The process shuts down; the run goes back to the queue and no crash is counted."""


@dataclass(frozen=True, slots=True)
class FencedOff:
    """The lease was lost or the run deleted: whatever this attempt still does, nothing of it counts."""


StopReason = Cancelled | TimedOut | Draining | FencedOff
