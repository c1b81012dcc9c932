"""The event log's words and its interface.

One writer per run, the attempt that holds the lease, numbers its events. Readers only ever read `after` an id: streaming,
joining, waiting and reconnecting are the same call with another starting point. The log comes first and the notification
second, so no reader can miss the first event.

An id is `<epoch_ms>-<counter>`: the epoch is the claim's (`ClaimedRun.epoch_ms`, growing from claim to claim on the
database's clock), the counter begins at 0 in each attempt. Ids therefore grow over attempts, and a writer whose attempt is
over has ids below those of its successor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from waystation_db.rows import FinalStatus, RunKey


class EventId(NamedTuple):
    """Position of an event in a run's log; ordered."""

    epoch_ms: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch_ms}-{self.counter}"


BEGINNING = EventId(0, -1)
"""Before every event: reading after it gives the whole log."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it goes on the wire. `name` has the namespace suffix (`values|child:…`); `data` is one line of JSON.

    `mode` is the stream mode that made it (`metadata`, `error` for those two), for readers that asked for some modes only.
    """

    id: EventId
    name: str
    data: bytes
    mode: str


@dataclass(frozen=True, slots=True)
class End:
    """The end of a run's log: appended after the outcome was committed, or found by a reader in the run's row.

    `values` is the JSON of the run's output where the log still has it (None: read the thread's row); it includes
    `__interrupt__` if the run stopped at one. `error` is `{"error": class name, "message": text}` for a failed run.
    """

    status: FinalStatus | None
    values: bytes | None = None
    error: dict[str, Any] | None = None


class EventLog(Protocol):
    """Where the events of runs are kept between the worker that makes them and the API processes that send them."""

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        """Append in order; the events become visible to readers, all or none.

        A resumable run's events are committed before anyone sees them.

        Raises:
            waystation_db.errors.Fenced: a later attempt owns the log.
        """
        ...

    async def end(self, key: RunKey, attempt: int, end: End, *, resumable: bool) -> None:
        """Mark the end. Called once, after the run's final status was committed. Never raises for a lost log."""
        ...

    def read(self, key: RunKey, *, after: EventId | None, resumable: bool) -> AsyncIterator[Sequence[Event] | End]:
        """Events after `after`, in batches, as they come; the last item is an `End`.

        `after=None` means from now on. Reading an ended run gives what is still kept and then its `End`. A reader that
        falls behind a bounded buffer gets `SlowReader`; the run goes on.
        """
        ...

    async def forget(self, key: RunKey) -> None:
        """Drop what is kept of a run (it was deleted or rolled back)."""
        ...

    async def close(self) -> None: ...
