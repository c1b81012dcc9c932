"""Following a run: the one loop behind streaming, joining, waiting and reconnecting.

    open a watch ──▶ look ──▶ events? hand them over and look again ──▶ an end? done ──▶ wait until woken ──▶ look

A look asks the live store. It asks Postgres too (`_settle`) where that alone can tell: a resumable run whose events
are not live here, a gap, or doubt. Doubt comes from a hint of Postgres, or from the poll: once a second one statement
names, for all readers of the process, those whose run has ended, is gone, or has chunks they have not seen. So a
reader ends even if the live store lost the run's end, and finds what a writer put into Postgres because Redis was
away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import Context
from heapq import merge

import orjson

from waystation.errors import SlowReader
from waystation.events.chunks import follows
from waystation.events.live import Found, LiveEvents
from waystation.events.log import BEGINNING, ONLY_END, End, Event, EventId, ThreadWatch
from waystation.events.postgres import ChunkReader, Stored
from waystation.events.watches import Watch, Watches, thread_key
from waystation_db.errors import DatabaseUnavailable
from waystation_db.events import CHANNEL, run_of_hint
from waystation_db.listen import Gap, Listener
from waystation_db.rows import RunKey, RunState
from waystation_db.thread_events import Place, ThreadPosition

logger = logging.getLogger(__name__)

_POLL_S = 1.0
# How long an end that is in the row already may take to come through the live store, with the values that the row
# lacks.
_END_S = 0.25


class Reading:
    """The readers of one loop over a live store and, where there is a database, the chunks and rows in it."""

    def __init__(
        self,
        live: Callable[[Watches], LiveEvents],
        *,
        chunks: ChunkReader | None,
        listener: Listener | None = None,
        poll_s: float = _POLL_S,
    ) -> None:
        """`listener` brings the hints of Postgres, where writers and readers are in different processes."""
        self._watches = Watches()
        self._live = live(self._watches)
        self._chunks = chunks
        self._listener = listener
        self._poll_s = poll_s
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def readers(self) -> int:
        """How many readers are open."""
        return len(self._watches)

    def hint(self, key: RunKey) -> None:
        """Postgres has something to say on a run: its readers on this loop look there."""
        self._watches.wake((key,), doubt=True)
        self.begin(key)

    def begin(self, key: RunKey) -> None:
        """Something is new on the run's thread: those who follow it on this loop look."""
        self._watches.wake((thread_key(key.tenant_id, key.thread_id),))

    @contextmanager
    def following(self, tenant_id: str, thread_id: str) -> Generator[ThreadWatch, None, None]:
        """See `EventLog.following`."""
        with self._watching(thread_key(tenant_id, thread_id), resumable=False) as watch:
            watch.closed = self._closed
            yield watch

    async def read(
        self, key: RunKey, *, after: EventId | None, resumable: bool
    ) -> AsyncGenerator[Sequence[Event] | End, None]:
        """See `EventLog.read`."""
        with self._watching(key, resumable=resumable) as watch:
            await self._live.ready(key)
            await self._place(watch, after)
            while not self._closed:
                watch.clear()
                found = await self._look(watch)
                if found.events:
                    watch.advance(found.events)
                    yield found.events
                if found.end is not None:
                    if words := await self._last_words(watch, found.end):
                        yield words
                    watch.finished = True
                    yield found.end
                    return
                if not found.events:
                    watch.witnessed = True
                    await watch.wait()

    async def close(self) -> None:
        """End all readers, without an `End`."""
        self._closed = True
        for watch in self._watches:
            watch.closed = True
        self._watches.wake_all(doubt=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._live.close()
        if self._chunks is not None:
            await self._chunks.close()

    @contextmanager
    def _watching(self, key: RunKey, *, resumable: bool) -> Generator[Watch, None, None]:
        self._start()
        watch = self._watches.open(key, resumable=resumable)
        self._live.attach(key)
        try:
            yield watch
        finally:
            self._live.detach(key, last=self._watches.close(watch), finished=watch.finished)

    def _start(self) -> None:
        """With the first reader: a log that is only written to has no use for these."""
        if self._tasks or self._closed or self._chunks is None:
            return
        loop = asyncio.get_running_loop()
        # In a context of their own: they outlive the request that happened to be the first.
        self._tasks.append(loop.create_task(self._poll(self._chunks), context=Context()))
        if self._listener is not None:
            self._tasks.append(loop.create_task(self._hear(self._listener, self._chunks), context=Context()))

    async def _place(self, watch: Watch, after: EventId | None) -> None:
        """Set the position to begin at, and whether the first look has to go to Postgres."""
        if after is not None:
            watch.position = after
            watch.doubt = after != ONLY_END and (watch.resumable or after != BEGINNING)
            return
        # Somebody joins: the run may have ended long ago, which only its row knows.
        watch.joins = watch.doubt = True
        live = await self._live.latest(watch.key)
        watch.position = max(live or BEGINNING, await self._last_stored(watch))

    async def _last_stored(self, watch: Watch) -> EventId:
        while self._chunks is not None and not self._closed:
            watch.clear()
            try:
                last = await self._chunks.last(watch.key)
                return BEGINNING if last is None else last.id
            except DatabaseUnavailable:
                await _pause(watch, self._poll_s)
        return BEGINNING

    async def _look(self, watch: Watch) -> Found:
        if self._chunks is not None and (watch.doubt or self._is_stored_only(watch)):
            return await self._settle(watch, self._chunks)
        found = await self._live.fetch(watch.key, watch.position)
        if not _misses_some(watch, found):
            return found
        if self._chunks is not None:
            return await self._settle(watch, self._chunks)
        await self._refuse_trimmed(watch)
        return found

    def _is_stored_only(self, watch: Watch) -> bool:
        return not self._live.holds(resumable=watch.resumable)

    def _is_durable(self, watch: Watch) -> bool:
        """Whether every event of the run is in Postgres."""
        return self._chunks is not None and (watch.resumable or self._is_stored_only(watch))

    async def _settle(self, watch: Watch, chunks: ChunkReader) -> Found:
        """A look at Postgres and then at the live store, put together. No events and no end: nothing new anywhere."""
        watch.doubt = False
        try:
            stored = await chunks.read(watch.key, watch.position)
        except DatabaseUnavailable:
            watch.doubt = True
            await _pause(watch, self._poll_s)
            return await self._live_alone(watch)
        # Whatever was appended before the state in `stored` became final is in the live store by now.
        if self._is_stored_only(watch) and not stored.is_over:
            live = Found()
        else:
            live = await self._live.fetch(watch.key, watch.position)
        events = _together(stored, live)
        if events:
            # There may be more, or an end, that no hint will tell of again.
            watch.doubt = watch.doubt or stored.more or stored.is_over
            if not follows(watch.position, events[0].id):
                await self._refuse_trimmed(watch)
            return Found(events)
        if _misses_some(watch, live):
            await self._refuse_trimmed(watch)
        if live.end is not None:
            return Found(end=live.end)
        return await self._settle_end(watch, chunks, stored)

    async def _settle_end(self, watch: Watch, chunks: ChunkReader, stored: Stored) -> Found:
        if not stored.is_over:
            return Found()
        state = stored.state
        if state is not None and watch.witnessed and not watch.waited_for_end and self._live.keeps_ends:
            watch.waited_for_end = True
            watch.clear()
            await _pause(watch, _END_S)
            return await self._settle(watch, chunks)
        return Found(end=_end_of(state))

    async def _live_alone(self, watch: Watch) -> Found:
        """What can be shown while Postgres is away: for a resumable run nothing, unless it follows without a gap."""
        if self._is_stored_only(watch):
            return Found()
        found = await self._live.fetch(watch.key, watch.position)
        return Found() if _misses_some(watch, found) else found

    async def _refuse_trimmed(self, watch: Watch) -> None:
        """Raise SlowReader where the reader lost events by being slow; what the store itself lost is only a gap."""
        if not self._is_durable(watch) and await self._live.trimmed(watch.key, watch.position):
            raise SlowReader("the reader fell behind: the events it would get next are no longer kept")

    async def _last_words(self, watch: Watch, end: End) -> list[Event]:
        """The `error` event of a failed run, if the worker took it to its grave."""
        if end.error is None or end.status not in ("error", "timeout") or watch.failed:
            return []
        is_durable = self._is_durable(watch)
        if not watch.witnessed and (watch.joins or not is_durable):
            return []
        last = watch.position
        if is_durable and (stored := await self._last_or_none(watch.key)) is not None:
            # A reader that comes back may have had the event before, stored or made here.
            if stored.mode == "error" or stored.id < last:
                return []
            last = stored.id
        return [Event(EventId(last.epoch_ms, last.counter + 1), "error", orjson.dumps(end.error), "error")]

    async def _last_or_none(self, key: RunKey) -> Event | None:
        try:
            return None if self._chunks is None else await self._chunks.last(key)
        except DatabaseUnavailable:
            return None

    async def _poll(self, chunks: ChunkReader) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._ask_all(chunks)

    async def _hear(self, listener: Listener, chunks: ChunkReader) -> None:
        with listener.subscribe(CHANNEL) as notifications:
            async for notification in notifications:
                if isinstance(notification, Gap):
                    await self._ask_all(chunks)
                elif key := run_of_hint(notification.payload):
                    self.hint(key)

    async def _ask_all(self, chunks: ChunkReader) -> None:
        """Raise doubt with those readers for whom there is something in Postgres."""
        positions: dict[RunKey, EventId] = {}
        threads: list[ThreadPosition] = []
        for watch in self._watches:
            if watch.key.run_id == watch.key.thread_id:
                if watch.idle_at is not None:
                    threads.append(ThreadPosition(watch.key.tenant_id, watch.key.thread_id, Place(*watch.idle_at)))
                continue
            positions[watch.key] = min(watch.position, positions.get(watch.key, watch.position))
        try:
            if positions:
                self._watches.wake(await chunks.changed(positions.items()), doubt=True)
            if threads:
                self._watches.wake([thread_key(*moved[:2]) for moved in await chunks.moved(threads)])
        except DatabaseUnavailable as error:
            # The readers go on with what is live; the next poll finds what this one missed.
            logger.warning("event readers cannot ask Postgres", extra={"error": str(error)})
        except Exception:  # a reader must end even after a failure nobody thought of: keep asking
            logger.exception("asking for the ends of runs failed")


def _together(stored: Stored, live: Found) -> Sequence[Event]:
    """The events of both in order, each once, and none behind a place where one of the two has more."""
    if not live.events:
        return stored.events
    if not stored.events:
        return live.events
    bounds = [found.events[-1].id for found in (stored, live) if found.more]
    bound = min(bounds) if bounds else None
    events: list[Event] = []
    for event in merge(stored.events, live.events, key=_id_of):
        if bound is not None and event.id > bound:
            break
        if not events or event.id > events[-1].id:
            events.append(event)
    return events


def _id_of(event: Event) -> EventId:
    return event.id


def _misses_some(watch: Watch, found: Found) -> bool:
    """Whether events may lie between the reader and what was found. One that just begins takes what is kept."""
    if found.events:
        return not follows(watch.position, found.events[0].id)
    return found.trimmed and watch.witnessed


def _end_of(state: RunState | None) -> End:
    if state is None:
        return End(None)
    if state.status == "pending" or state.status == "running":
        raise ValueError(f"the run {state.key.run_id} has not ended")
    return End(state.status, None, state.error)


async def _pause(watch: Watch, seconds: float) -> None:
    """Wait until woken, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await watch.wait()
    except TimeoutError:
        pass
