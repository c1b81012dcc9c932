"""Hints between the API and the workers: "there is work", "that run is to stop". Losing one costs a poll interval.

In one process a hint is a function call on the graph loop; between processes it is a NOTIFY that the statement which
made
the change sends in its own transaction. The worker registers itself here when it lives in the same process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from waystation_db.rows import CancelAction, ClaimedRun, RunKey


class LocalWorker(Protocol):
    """The worker of this process, as the use cases see it. All methods may be called from any thread."""

    @property
    def worker_id(self) -> str: ...

    def reserve(self) -> bool:
        """Take a free slot for a run that is about to be created as claimed; False when none is free."""
        ...

    def release(self) -> None:
        """Give a reserved slot back; the run was not created as claimed after all."""
        ...

    def start(self, run: ClaimedRun) -> None:
        """Execute a run that was created as claimed on a reserved slot."""
        ...

    def work_available(self) -> None:
        """A pending run exists: claim it if a slot is free."""
        ...

    def stop_run(self, key: RunKey, action: CancelAction, reason: str | None) -> None:
        """A run is wished to stop; ignored when it is not executing here."""
        ...


@dataclass(slots=True)
class Wakeups:
    """Where use cases send hints. `local` is None in a process without worker."""

    local: LocalWorker | None = field(default=None)

    def work_available(self) -> None:
        if self.local is not None:
            self.local.work_available()

    def stop_run(self, key: RunKey, action: CancelAction, reason: str | None) -> None:
        if self.local is not None:
            self.local.stop_run(key, action, reason)
