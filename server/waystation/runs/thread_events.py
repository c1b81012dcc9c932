"""Following a thread: the events of all its runs, one after the other, as one numbered sequence that never ends.

    look which runs took numbers ──▶ read each to its end ──▶ nothing more? wait until a run begins ──▶ look

One run at a time executes on a thread, so their numbers follow one another; where a run's begin stands in its row.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from waystation.auth import ANYTHING, Principal
from waystation.events import BEGINNING, End, EventId, ThreadWatch
from waystation.events.protocol import ThreadEvent
from waystation.events.run_events import RunEvents
from waystation.runs.permission import visible_thread
from waystation.services import Services
from waystation_db import thread_events
from waystation_db.thread_events import Place, RunSpan

_REMEMBERED = 1000


async def is_hidden(services: Services, caller: Principal, *, thread_id: str) -> bool:
    """Whether rules keep the thread from the caller: whatever comes on it, there is no use in waiting for it.

    Raises:
        Forbidden: the caller may not read the thread.
    """
    visible = await visible_thread(caller, "read", thread_id)
    if visible is None:
        return False
    async with services.db.connection() as conn:
        return await thread_events.place(conn, caller.tenant_id, thread_id, visible=visible) is None


async def follow_thread(
    services: Services, caller: Principal, *, thread_id: str, since: int
) -> AsyncGenerator[Sequence[ThreadEvent]]:
    """The thread's events with numbers above `since`, those that are still kept and then those that come, in batches.

    It ends only when the process stops. An unknown thread is one on which nothing happened yet.

    Raises:
        Forbidden: the caller may not read the thread.
        SlowReader: what comes next is no longer kept for this reader.
    """
    visible = await visible_thread(caller, "read", thread_id) or ANYTHING
    follower = _Follower(services, caller.tenant_id, thread_id, visible, since)
    with services.log.following(caller.tenant_id, thread_id) as watch:
        while not watch.closed:
            watch.clear()
            place, spans = await follower.look()
            for span in spans:
                async with aclosing(follower.read(span, watch)) as batches:
                    async for batch in batches:
                        yield batch
            if not spans:
                watch.idle_at = place
                await watch.wait()
                watch.idle_at = None


@dataclass(slots=True)
class _Follower:
    services: Services
    tenant_id: str
    thread_id: str
    visible: str
    position: int
    # Where the thread stood when the follower came: runs before that are replayed only if they are kept for that.
    floor: int | None = None
    done: dict[str, None] = field(default_factory=dict[str, None])

    async def look(self) -> tuple[Place, list[RunSpan]]:
        """Where the thread stands, and the runs to read."""
        async with self.services.db.connection() as conn:
            found = await thread_events.place(conn, self.tenant_id, self.thread_id, visible=self.visible)
            place = found or Place(0, 0)
            spans = await thread_events.spans(
                conn,
                self.tenant_id,
                self.thread_id,
                after=self.position,
                visible=self.visible,
                ttl_s=self.services.settings.resumable_stream_ttl_s,
            )
        if self.floor is None:
            self.floor = place.seq
        return place, [span for span in spans if span.key.run_id not in self.done and self._is_kept(span)]

    def _is_kept(self, span: RunSpan) -> bool:
        if span.status == "pending":
            return False
        is_new = span.base >= (self.floor or 0) or self.position > span.base
        return span.resumable or not span.is_final or is_new or span.attempt == 0

    async def read(self, span: RunSpan, watch: ThreadWatch) -> AsyncGenerator[list[ThreadEvent]]:
        """A run's events to its end."""
        run = RunEvents(span)
        if span.attempt > 0:
            log = self.services.log.read(span.key, after=self._start(span), resumable=span.resumable)
            async with aclosing(log):
                async for batch in log:
                    if isinstance(batch, End):
                        break
                    if news := self._news(run.feed(batch)):
                        yield news
                else:
                    return  # the process stops, or the run is for another look
        if news := self._news(run.last(await self._ended(span))):
            yield news
        self.position = max(self.position, run.seq)
        self._forget(span.key.run_id)

    def _start(self, span: RunSpan) -> EventId:
        """Behind what the follower has: a native run in its first attempt has one event for each number."""
        if span.attempt == 1 and span.is_native and self.position > span.base:
            return EventId(span.epoch_ms, self.position - span.base - 1)
        return BEGINNING

    def _news(self, events: list[ThreadEvent]) -> list[ThreadEvent]:
        news = [event for event in events if event.seq > self.position]
        if news:
            self.position = news[-1].seq
        return news

    async def _ended(self, span: RunSpan) -> RunSpan | None:
        async with self.services.db.connection() as conn:
            return await thread_events.span_of(conn, span.key)

    def _forget(self, run_id: str) -> None:
        self.done[run_id] = None
        if len(self.done) > _REMEMBERED:
            del self.done[next(iter(self.done))]
