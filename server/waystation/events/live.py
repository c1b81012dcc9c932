"""What a reader asks of the place where live events are: the memory of this process, Redis, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from waystation.events.log import End, Event, EventId
from waystation_db.rows import RunKey

# Events that one look hands over; with the largest event on top of it, what a reader that stopped reading holds.
FETCH_BYTES = 1024 * 1024


class Found(NamedTuple):
    """Events after a position, in order. `more`: there are others behind them. `end` stands only where nothing
    follows.

    `trimmed`: some between the position and these were dropped, as far as the store knows without looking further.
    """

    events: Sequence[Event] = ()
    end: End | None = None
    more: bool = False
    trimmed: bool = False


class LiveEvents(Protocol):
    """The reading side of a live store. Nothing here raises because the store is away: it has found nothing then."""

    def holds(self, *, resumable: bool) -> bool:
        """Whether a run's events are here as they come (those of a resumable one after they were committed)."""
        ...

    @property
    def keeps_ends(self) -> bool:
        """Whether an `End` can be expected here at all; if not, the run's row is the only one to ask."""
        ...

    def attach(self, key: RunKey) -> None:
        """A reader of this loop begins and wants to be woken."""
        ...

    async def ready(self, key: RunKey) -> None:
        """Return when no later event can be missed."""
        ...

    def detach(self, key: RunKey, *, last: bool, finished: bool) -> None:
        """A reader leaves, `finished` if it was given the end; `last` when no other of this loop follows the run."""
        ...

    async def fetch(self, key: RunKey, after: EventId) -> Found: ...

    async def latest(self, key: RunKey) -> EventId | None:
        """The newest id here; None when the store knows of no event."""
        ...

    async def trimmed(self, key: RunKey, position: EventId) -> bool:
        """Whether events after `position` were dropped because too many were kept, and not because the store lost
        them."""
        ...

    async def close(self) -> None: ...


class NothingLive:
    """No live store: Postgres carries everything."""

    keeps_ends = False

    def holds(self, *, resumable: bool) -> bool:
        return False

    def attach(self, key: RunKey) -> None: ...

    async def ready(self, key: RunKey) -> None: ...

    def detach(self, key: RunKey, *, last: bool, finished: bool) -> None: ...

    async def fetch(self, key: RunKey, after: EventId) -> Found:
        return Found()

    async def latest(self, key: RunKey) -> EventId | None:
        return None

    async def trimmed(self, key: RunKey, position: EventId) -> bool:
        return False

    async def close(self) -> None: ...
