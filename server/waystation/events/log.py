"""The event log's words and its interface.

One writer per run, the attempt that holds the lease, numbers its events. Readers only ever read `after` an id:
streaming, joining, waiting and reconnecting are the same call with another starting point. The log comes first and
the notification second, so no reader can miss the first event.

An id is `<epoch_ms>-<counter>`: the epoch is the claim's (`ClaimedRun.epoch_ms`, growing from claim to claim on the
database's clock), the counter begins at 0 in each attempt and grows by one from event to event. Ids therefore grow
over attempts, a writer whose attempt is over has ids below those of its successor, and a reader sees a gap as a gap.

A log object belongs to the loop it is used on. In one process the graph loop appends and the API's loop reads, each
through an object of its own; what they share (`MemoryStore`) is safe between threads.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from waystation_db.errors import Fenced
from waystation_db.rows import FinalStatus, RunKey

_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,9})\Z")


class EventId(NamedTuple):
    """Position of an event in a run's log; ordered."""

    epoch_ms: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch_ms}-{self.counter}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises ValueError for anything else, ids beyond Postgres's integers included."""
        match = _ID.match(text)
        if match is None:
            raise ValueError("an event id looks like 1795246500525-0")
        return cls(int(match[1]), int(match[2]))


BEGINNING = EventId(0, -1)
"""Before every event: reading after it gives the whole log."""

ONLY_END = EventId(2**62, 0)
"""Behind every event: reading after it gives the `End` alone, for those who wait for a run and follow no events."""


class Event(NamedTuple):
    """One event as it goes on the wire. `name` has the namespace suffix (`values|child:…`); `data` is one line of
    JSON.

    `mode` is the stream mode that made it (`metadata`, `error` for those two), for readers that asked for some modes
    only.
    """

    id: EventId
    name: str
    data: bytes
    mode: str


@dataclass(frozen=True, slots=True)
class End:
    """The end of a run's log: appended after the outcome was committed, or found by a reader in the run's row.

    `status=None`: the run is gone (deleted, rolled back). `values` is the JSON of the run's output where the log
    still has it (None: read the thread's row); it includes `__interrupt__` if the run stopped at one. `error` is
    `{"error": class name, "message": text}` for a failed run.
    """

    status: FinalStatus | None
    values: bytes | None = None
    error: dict[str, Any] | None = None


class ThreadWatch(Protocol):
    """One follower of a thread: it looks for itself, and sleeps in between.

    `idle_at` is where it stands while it sleeps: (last settled number, changes of the state by hand), else None. What
    it misses because a hint was lost, a poll finds by that.
    """

    idle_at: tuple[int, int] | None

    def clear(self) -> None:
        """Called before looking: what happens from here on ends the next `wait`."""
        ...

    async def wait(self) -> None:
        """Until something may be new."""
        ...

    @property
    def closed(self) -> bool:
        """The log was closed: nothing will come."""
        ...


class EventLog(Protocol):
    """Where the events of runs are kept between the worker that makes them and the API processes that send them."""

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, resumable: bool) -> None:
        """Append in order; the events become visible to readers, all or none.

        A resumable run's events are committed before anyone sees them. Appends that wait at the same moment go
        together. Cancelling the call does not take the events back: they may be on their way.

        Raises:
            waystation_db.errors.Fenced: a later attempt owns the log, or the run is over.
            waystation_db.errors.DatabaseUnavailable: Postgres stayed away; it is not known whether the events were
            kept.
        """
        ...

    async def end(self, key: RunKey, attempt: int, end: End, *, resumable: bool) -> None:
        """Mark the end. Called once, after the run's final status was committed. Never raises for a lost log."""
        ...

    def read(
        self, key: RunKey, *, after: EventId | None, resumable: bool
    ) -> AsyncGenerator[Sequence[Event] | End, None]:
        """Events after `after`, in batches, as they come; the last item is an `End`.

        `after=None` means from now on, counted from the first step of the iteration. Reading an ended run gives what
        is still kept and then its `End`. A failed run whose `error` event was lost with its worker gets one made from
        its row. Closing the log stops its readers without an `End`: the run goes on.

        Raises:
            waystation.errors.SlowReader: what comes next is no longer kept for this reader; the run goes on.
        """
        ...

    def begin(self, key: RunKey) -> None:
        """Tell those who follow the run's thread that there is something new: the run began, or ended before it began.
        Only a hint, from the loop that the log belongs to; never raises."""
        ...

    def following(self, tenant_id: str, thread_id: str) -> AbstractContextManager[ThreadWatch]:
        """Be woken, for the length of the block, when a run of a thread begins, in whatever process."""
        ...

    async def forget(self, key: RunKey) -> None:
        """Drop what is kept of a run that was deleted or rolled back; its readers get `End(None)`."""
        ...

    async def close(self) -> None:
        """Stop all readers and let go of connections. Appends that were accepted are finished first."""
        ...


def fenced(key: RunKey, attempt: int) -> Fenced:
    """The refusal of a writer whose attempt is over."""
    return Fenced(f"attempt {attempt} of run {key.run_id} no longer writes its events")
