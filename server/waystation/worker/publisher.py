"""Numbers a run's events and appends them to the log: what one tick of the loop makes leaves together.

One publisher per attempt. `emit` never waits; `room` does when the log cannot keep up, so that a fast graph and a
slow log
do not fill the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from waystation.events import Event, EventId, EventLog
from waystation_db.rows import ClaimedRun

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Events of one run that may wait for the log before its graph waits for it."""

WireEvent = tuple[str, bytes, str]
"""Name, data (one line of JSON) and stream mode of an event that has no id yet."""


class Publisher:
    """Appends one attempt's events, in order, in batches."""

    def __init__(self, log: EventLog, run: ClaimedRun) -> None:
        self._log = log
        self._run = run
        self._counter = 0
        self._waiting: list[Event] = []
        self._waiting_bytes = 0
        self._appending: asyncio.Task[None] | None = None

    def emit(self, events: Iterable[WireEvent]) -> None:
        """Give events their ids and queue them.

        Raises:
            Whatever the append before it raised: Fenced when a later attempt owns the log.
        """
        for name, data, mode in events:
            self._waiting.append(Event(EventId(self._run.epoch_ms, self._counter), name, data, mode))
            self._waiting_bytes += len(data)
            self._counter += 1
        if self._waiting and self._appending is None:
            self._appending = asyncio.get_running_loop().create_task(self._append_all())
        elif self._appending is not None and self._appending.done():
            self._appending.result()

    async def room(self) -> None:
        """Return when little enough is waiting. Raises as `emit`."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Return when everything emitted is in the log. Raises as `emit`."""
        while self._appending is not None:
            await asyncio.shield(self._appending)

    async def _append_all(self) -> None:
        # The task starts in the next tick: by then everything that this one makes is in the list.
        while self._waiting:
            batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
            await self._log.append(self._run.key, self._run.attempt, batch, resumable=self._run.resumable)
        self._appending = None
