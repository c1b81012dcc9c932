"""The classic stream of a whole thread: what each of its runs streams by its own modes, when runs begin and end, and
what the state is after each change by hand.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson

from waystation.auth import ANYTHING, Principal
from waystation.errors import WaystationError
from waystation.events import BEGINNING, End, Event, EventId
from waystation.events.classic import classic_events
from waystation.events.postgres import ChunkReader
from waystation.runs.permission import visible_thread
from waystation.runs.state import get_state
from waystation.services import Services
from waystation_db import thread_events
from waystation_db.thread_events import Place, RunSpan

Mode = Literal["run_modes", "lifecycle", "state_update"]
MODES: Final[tuple[Mode, ...]] = ("run_modes", "lifecycle", "state_update")

_BEHIND: Final = 999_999_999
"""A counter behind every event of an attempt."""


async def stream_thread(
    services: Services, caller: Principal, *, thread_id: str, modes: Iterable[Mode], after: EventId | None
) -> AsyncGenerator[Sequence[Event]]:
    """Events of the thread from now on, or those after an id that are kept first. Ends only when the process stops.

    Raises:
        Forbidden: the caller may not read the thread.
        SlowReader: what comes next is no longer kept for this reader.
    """
    visible = await visible_thread(caller, "read", thread_id) or ANYTHING
    stream = _Stream(services, caller, thread_id, visible, frozenset(modes), after)
    with services.log.following(caller.tenant_id, thread_id) as watch:
        while not watch.closed:
            watch.clear()
            place, spans = await stream.look()
            if updated := await stream.updated(place):
                yield updated
            for span in spans:
                async with aclosing(stream.read(span)) as batches:
                    async for batch in batches:
                        yield batch
            if not spans:
                watch.idle_at = place
                await watch.wait()
                watch.idle_at = None


@dataclass(slots=True)
class _Stream:
    services: Services
    caller: Principal
    thread_id: str
    visible: str
    modes: frozenset[Mode]
    after: EventId | None
    # Where the thread stood when the reader came, and how often its state had been changed by then.
    floor: int | None = None
    updates: int | None = None
    done: set[str] = field(default_factory=set[str])
    joined: frozenset[str] | None = None
    position: int = -1

    async def look(self) -> tuple[Place, list[RunSpan]]:
        tenant_id, thread_id = self.caller.tenant_id, self.thread_id
        async with self.services.db.connection() as conn:
            found = await thread_events.place(conn, tenant_id, thread_id, visible=self.visible)
            place = found or Place(0, 0)
            if self.floor is None:
                self.floor = place.seq
                self.position = place.seq if self.after is None else 0
            spans = await thread_events.spans(
                conn,
                tenant_id,
                thread_id,
                after=self.position,
                visible=self.visible,
                ttl_s=self.services.settings.resumable_stream_ttl_s,
            )
        if self.joined is None:
            self.joined = frozenset(span.key.run_id for span in spans)
        return place, [span for span in spans if self._is_wanted(span)]

    def _is_wanted(self, span: RunSpan) -> bool:
        if span.key.run_id in self.done or span.status == "pending" or span.attempt == 0:
            return False
        is_new = span.base >= (self.floor or 0)
        if self.after is None or is_new:
            return is_new or not span.is_final
        return span.epoch_ms >= self.after.epoch_ms and (span.resumable or not span.is_final)

    async def updated(self, place: Place) -> list[Event]:
        """The thread's state, if it was changed by hand since the last look."""
        known, self.updates = self.updates, place.updates
        if known is None or known == place.updates or "state_update" not in self.modes:
            return []
        try:
            state = await get_state(self.services, self.caller, thread_id=self.thread_id)
        except WaystationError:
            return []  # the thread went, or its graph cannot show it: there is nothing to send
        data = b'{"state":%b,"thread_id":%b}' % (state, orjson.dumps(self.thread_id))
        return [Event(EventId(time.time_ns() // 1_000_000, 0), "state_update", data, "state_update")]

    async def read(self, span: RunSpan) -> AsyncGenerator[list[Event]]:
        """What the thread's stream has of a run, to its end."""
        run_id, last = span.key.run_id, None
        async with aclosing(self.services.log.read(span.key, after=self._start(span), resumable=span.resumable)) as log:
            async for batch in log:
                if isinstance(batch, End):
                    break
                last = batch[-1].id
                if shown := [event for event in classic_events(batch, run_id) if self._shows(event)]:
                    yield shown
            else:
                return  # the process stops
        self.done.add(run_id)
        self.position = max(self.position, span.base)
        done = Event(await self._behind(span, last), "metadata", _run_done(run_id), "metadata")
        if self.modes & {"run_modes", "lifecycle"} and done.id > (self.after or BEGINNING):
            yield [done]

    def _start(self, span: RunSpan) -> EventId | None:
        """From where a run is read: one that was executing when the reader came, from that moment on."""
        if self.after is not None:
            return self.after
        return None if span.key.run_id in (self.joined or ()) else BEGINNING

    async def _behind(self, span: RunSpan, last: EventId | None) -> EventId:
        """The id of what is told when a run is done: the same for everybody, wherever they began to read."""
        if last is None and span.resumable:
            stored = await ChunkReader(self.services.db).last(span.key)
            last = None if stored is None else stored.id
        return EventId(span.epoch_ms, _BEHIND) if last is None else EventId(last.epoch_ms, last.counter + 1)

    def _shows(self, event: Event) -> bool:
        return "run_modes" in self.modes or (event.mode == "metadata" and "lifecycle" in self.modes)


def _run_done(run_id: str) -> bytes:
    return orjson.dumps({"status": "run_done", "run_id": run_id})
