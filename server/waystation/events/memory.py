"""Live events in the memory of one process, between the graph loop that appends and the API's loop that reads.

    graph loop:  append, end ──▶ MemoryStore (one lock) ──▶ call_soon_threadsafe, once per tick ──▶ API loop: fetch

Every method of `MemoryStore` may be called from any thread and returns at once. What is kept is bounded, per run and
in all: readers hold nothing but a position, and one whose next event was dropped is told so (`trimmed`).

How long events stay: a live run's as long as its share of memory allows; an ended run's until its readers have left,
or for the few seconds in which the reader of whoever created the run may still be on its way. The end stays a little
longer.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

from waystation.events.chunks import size_of
from waystation.events.live import FETCH_BYTES, Found
from waystation.events.log import BEGINNING, End, Event, EventId, fenced
from waystation.events.watches import thread_key
from waystation_db.rows import RunKey

RUN_BYTES = 32 * 1024 * 1024
TOTAL_BYTES = 256 * 1024 * 1024
# A run that nobody reads keeps this much once its creator had the time to begin reading.
_UNREAD_BYTES = 256 * 1024
_CREATOR_S = 5.0
_END_KEPT_S = 30.0
_STUCK_READER_S = 300.0
_IDLE_S = 900.0
_SCAN_S = 60.0

Wake = Callable[[set[RunKey]], None]


class _Block(NamedTuple):
    last: EventId
    events: tuple[Event, ...]
    size: int


def _last_of(block: _Block) -> EventId:
    return block.last


@dataclass(slots=True, eq=False)
class _Run:
    born: float
    touched: float
    attempt: int = 0
    readers: int = 0
    size: int = 0
    blocks: list[_Block] = field(default_factory=list[_Block])
    dropped: EventId = BEGINNING
    end: End | None = None

    @property
    def latest(self) -> EventId:
        return self.blocks[-1].last if self.blocks else self.dropped


@dataclass(slots=True, eq=False)
class _Listener:
    loop: asyncio.AbstractEventLoop
    wake: Wake
    woken: set[RunKey] = field(default_factory=set[RunKey])


class MemoryStore:
    """The events of the runs that this process executes. One for a process; thread-safe."""

    def __init__(self, *, run_bytes: int = RUN_BYTES, total_bytes: int = TOTAL_BYTES) -> None:
        self._run_bytes = run_bytes
        self._total_bytes = total_bytes
        self._lock = threading.Lock()
        self._runs: dict[RunKey, _Run] = {}
        self._size = 0
        self._unread: deque[tuple[float, RunKey]] = deque()
        self._ended: deque[tuple[float, RunKey]] = deque()
        self._next_scan = monotonic() + _SCAN_S
        self._relief_at = total_bytes
        self._listeners: dict[asyncio.AbstractEventLoop, _Listener] = {}

    @property
    def size(self) -> int:
        """Bytes kept for all runs."""
        return self._size

    @property
    def runs(self) -> int:
        """How many runs something is kept of."""
        return len(self._runs)

    # The writer's side.

    def append(self, key: RunKey, attempt: int, events: Sequence[Event]) -> None:
        """Keep events and wake the run's readers. Raises Fenced for an attempt that is over."""
        if not events:
            return
        block = _Block(events[-1].id, tuple(events), size_of(events))
        now = monotonic()
        with self._lock:
            run = self._run(key, now)
            if attempt < run.attempt or run.end is not None or block.events[0].id <= run.latest:
                raise fenced(key, attempt)
            run.attempt = attempt
            run.touched = now
            if not run.blocks:
                self._wake_thread(key)
            run.blocks.append(block)
            self._grow(run, block.size)
            self._trim(run, self._share(run, now))
            self._relieve()
            self._wake(key, run)
            self._expire(now)

    def end(self, key: RunKey, attempt: int, end: End) -> None:
        """Mark the end and wake the run's readers; only the first end of a run counts."""
        now = monotonic()
        with self._lock:
            run = self._run(key, now)
            if run.end is None and attempt >= run.attempt:
                self._finish(key, run, end, now)
            self._expire(now)

    def begin(self, key: RunKey) -> None:
        """Wake those who follow the run's thread."""
        with self._lock:
            self._wake_thread(key)

    def forget(self, key: RunKey) -> None:
        """Drop a run's events; readers that follow it, now or in the next seconds, are told that it is gone."""
        now = monotonic()
        with self._lock:
            run = self._run(key, now)
            self._trim(run, -1)
            self._finish(key, run, End(None), now)

    # The readers' side.

    def attach(self, key: RunKey) -> None:
        """Count a reader in: from here on appends wake it, and the run's events are kept for it."""
        with self._lock:
            self._run(key, monotonic()).readers += 1

    def detach(self, key: RunKey, *, finished: bool) -> None:
        """Count a reader out. When the last one was given the end, the events have done their work."""
        with self._lock:
            run = self._runs[key]
            run.readers -= 1
            if run.readers:
                return
            if run.end is not None and finished:
                self._trim(run, -1)
            elif run.end is None and run.latest == BEGINNING:
                self._remove(key, run)

    def fetch(self, key: RunKey, after: EventId) -> Found:
        """What is kept after a position, up to some `FETCH_BYTES`."""
        with self._lock:
            run = self._runs.get(key)
            if run is None:
                return Found()
            blocks = run.blocks
            index = bisect_right(blocks, after, key=_last_of)
            if index == len(blocks):
                return Found(end=run.end, trimmed=after < run.dropped)
            taken = _take(blocks, index)
            more = index + len(taken) < len(blocks)
            end = None if more else run.end
            trimmed = after < run.dropped
        return Found(_events_after(taken, after), end, more, trimmed)

    def latest(self, key: RunKey) -> EventId | None:
        """The newest event's id; None when there was none."""
        with self._lock:
            run = self._runs.get(key)
            return None if run is None or run.latest == BEGINNING else run.latest

    def trimmed(self, key: RunKey, position: EventId) -> bool:
        """Whether an event after `position` was dropped."""
        run = self._runs.get(key)
        return run is not None and position < run.dropped

    def listen(self, wake: Wake) -> None:
        """Call `wake` on the running loop with the runs that changed, once per tick, until `unlisten`."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._listeners[loop] = _Listener(loop, wake)

    def unlisten(self) -> None:
        """Undo `listen` for the running loop."""
        with self._lock:
            self._listeners.pop(asyncio.get_running_loop(), None)

    # Everything below is called with the lock held.

    def _run(self, key: RunKey, now: float) -> _Run:
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(born=now, touched=now)
        return run

    def _finish(self, key: RunKey, run: _Run, end: End, now: float) -> None:
        if self._size > self._total_bytes and end.values is not None:
            end = End(end.status, None, end.error)
        self._grow(run, _values_size(end) - _values_size(run.end))
        run.end = end
        run.touched = now
        self._unread.append((now + _CREATOR_S, key))
        self._ended.append((now + _END_KEPT_S, key))
        self._wake(key, run)
        self._wake_thread(key)

    def _grow(self, run: _Run, size: int) -> None:
        run.size += size
        self._size += size

    def _share(self, run: _Run, now: float) -> int:
        if run.readers == 0 and now - run.born > _CREATOR_S:
            return _UNREAD_BYTES
        return self._run_bytes

    def _trim(self, run: _Run, size: int) -> None:
        """Drop the oldest blocks until `size` bytes are left, never the newest; -1 drops all."""
        count = 0
        keep = 0 if size < 0 else 1
        while run.size > size and count < len(run.blocks) - keep:
            self._grow(run, -run.blocks[count].size)
            count += 1
        if count:
            run.dropped = run.blocks[count - 1].last
            del run.blocks[:count]

    def _relieve(self) -> None:
        """Where all runs together hold too much, cut each back to its part of half of it."""
        if self._size <= self._total_bytes:
            self._relief_at = self._total_bytes
        if self._size <= self._relief_at:
            return
        share = self._total_bytes // (2 * len(self._runs))
        for run in self._runs.values():
            self._trim(run, share)
        # Where the newest events alone are too much, looking at all runs for each append would not help.
        self._relief_at = max(self._total_bytes, self._size + self._size // 4)

    def _remove(self, key: RunKey, run: _Run) -> None:
        self._size -= run.size
        del self._runs[key]

    def _wake(self, key: RunKey, run: _Run) -> None:
        if not run.readers:
            return
        for listener in self._listeners.values():
            if not listener.woken:
                try:
                    listener.loop.call_soon_threadsafe(self._hand_over, listener)
                except RuntimeError:  # its loop is closed: nobody reads there any more
                    continue
            listener.woken.add(key)

    def _wake_thread(self, key: RunKey) -> None:
        """Wake those who follow the thread: they watch it as if it were a run."""
        thread = thread_key(key.tenant_id, key.thread_id)
        if (followed := self._runs.get(thread)) is not None:
            self._wake(thread, followed)

    def _hand_over(self, listener: _Listener) -> None:
        with self._lock:
            woken, listener.woken = listener.woken, set()
        listener.wake(woken)

    def _expire(self, now: float) -> None:
        while self._unread and self._unread[0][0] <= now:
            run = self._runs.get(self._unread.popleft()[1])
            if run is not None and run.readers == 0:
                self._trim(run, -1)
        while self._ended and self._ended[0][0] <= now:
            self._expire_end(self._ended.popleft()[1], now)
        if now >= self._next_scan:
            self._next_scan = now + _SCAN_S
            self._drop_idle(now)

    def _expire_end(self, key: RunKey, now: float) -> None:
        run = self._runs.get(key)
        if run is None or run.end is None:
            return
        if run.readers == 0:
            self._remove(key, run)
            return
        self._ended.append((now + _END_KEPT_S, key))
        if now - run.touched > _STUCK_READER_S:
            self._trim(run, -1)

    def _drop_idle(self, now: float) -> None:
        """Runs whose end this process never heard of (another worker took them over) are dropped in the end."""
        idle = [key for key, run in self._runs.items() if run.readers == 0 and now - run.touched > _IDLE_S]
        for key in idle:
            self._remove(key, self._runs[key])


def _values_size(end: End | None) -> int:
    return 0 if end is None or end.values is None else len(end.values)


def _take(blocks: list[_Block], index: int) -> list[_Block]:
    taken: list[_Block] = []
    size = 0
    while index < len(blocks) and (not taken or size + blocks[index].size <= FETCH_BYTES):
        taken.append(blocks[index])
        size += blocks[index].size
        index += 1
    return taken


def _events_after(blocks: list[_Block], after: EventId) -> Sequence[Event]:
    first = blocks[0].events
    if first[0].id <= after:
        first = tuple([event for event in first if event.id > after])
    if len(blocks) == 1:
        return first
    events = list(first)
    for block in blocks[1:]:
        events.extend(block.events)
    return events


class LiveMemory:
    """A `MemoryStore` as the readers of one loop see it."""

    keeps_ends = True

    def __init__(self, store: MemoryStore, wake: Wake) -> None:
        self._store = store
        self._wake = wake
        self._listens = False

    def holds(self, *, resumable: bool) -> bool:
        return True

    def attach(self, key: RunKey) -> None:
        if not self._listens:
            self._store.listen(self._wake)
            self._listens = True
        self._store.attach(key)

    async def ready(self, key: RunKey) -> None: ...

    def detach(self, key: RunKey, *, last: bool, finished: bool) -> None:
        self._store.detach(key, finished=finished)

    async def fetch(self, key: RunKey, after: EventId) -> Found:
        return self._store.fetch(key, after)

    async def latest(self, key: RunKey) -> EventId | None:
        return self._store.latest(key)

    async def trimmed(self, key: RunKey, position: EventId) -> bool:
        return self._store.trimmed(key, position)

    async def close(self) -> None:
        self._store.unlisten()
