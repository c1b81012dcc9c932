"""Numbers a run's events and appends them to the log: the first at once, those that follow hard on it together.

    emit ──▶ waiting ──▶ one append per tick, and at most one in a few milliseconds ──▶ event log
                              ▲
    flush ── without a pause ─┘

One publisher per attempt. `emit` never waits; `room` does when the log cannot keep up, so that a fast graph and a slow
log do not fill the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from waystation.events import Event, EventId, EventLog
from waystation.telemetry import metrics
from waystation_db.rows import ClaimedRun

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Events of one run that may wait for the log before its graph waits for it."""

PAUSE_S = 0.004
"""Between two appends of a run. Nobody sees it, and a graph that emits faster than that costs less."""

_AT_ONCE = 3
"""Appends of a run that need no pause before them: its first events are waited for."""

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
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._appends = 0
        self._resume_at = 0.0
        self._oldest_at: float | None = None

    def emit(self, events: Iterable[WireEvent]) -> None:
        """Give events their ids and queue them.

        Raises:
            Whatever the append before it raised: Fenced when a later attempt owns the log.
        """
        if self._oldest_at is None:
            self._oldest_at = self._loop.time()
        for name, data, mode in events:
            self._waiting.append(Event(EventId(self._run.epoch_ms, self._counter), name, data, mode))
            self._waiting_bytes += len(data)
            self._counter += 1
        if self._appending is None:
            self._start_in_time()
        elif self._appending.done():
            self._appending.result()

    async def room(self) -> None:
        """Return when little enough is waiting. Raises as `emit`."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Return when everything emitted is in the log. Raises as `emit`."""
        while self._appending is not None or self._waiting:
            await asyncio.shield(self._appending or self._start())

    def _start_in_time(self) -> None:
        if not self._waiting or self._timer is not None:
            return
        if self._loop.time() >= self._resume_at:
            self._start()
        else:
            self._timer = self._loop.call_at(self._resume_at, self._start)

    def _start(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._appending is None:
            self._appending = self._loop.create_task(self._append())
            self._appending.add_done_callback(_seen)  # of an attempt that is over, nobody asks for it
        return self._appending

    async def _append(self) -> None:
        # The task starts in the next tick: by then everything that this one makes is in the list.
        batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        made_at, self._oldest_at = self._oldest_at, None
        await self._log.append(self._run.key, self._run.attempt, batch, resumable=self._run.resumable)
        self._appending = None
        if batch and made_at is not None:
            metrics.EVENT_APPEND_SECONDS.observe(self._loop.time() - made_at)
        self._appends += 1
        if self._appends >= _AT_ONCE:
            self._resume_at = self._loop.time() + PAUSE_S
        self._start_in_time()


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
