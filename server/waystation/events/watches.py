"""The readers of one loop, by run: where each stands and how it is woken.

A hint names a run and wakes its readers; they look for themselves. `doubt` on a watch says that Postgres has to be
asked: the run may have ended, or events may be there that the live store does not have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from waystation.events.log import BEGINNING, Event, EventId
from waystation_db.rows import RunKey


class Watch:
    """One reader. It is made before the reader's first look, so that nothing can happen unseen in between."""

    __slots__ = (
        "_event",
        "closed",
        "doubt",
        "failed",
        "finished",
        "idle_at",
        "joins",
        "key",
        "position",
        "resumable",
        "waited_for_end",
        "witnessed",
    )

    def __init__(self, key: RunKey, *, resumable: bool) -> None:
        self.key = key
        self.resumable = resumable
        self.position: EventId = BEGINNING
        self.doubt = False
        self.joins = False  # reads from now on, not from an id
        # Whether the run was seen alive, and whether its `error` event has passed.
        self.witnessed = False
        self.failed = False
        self.finished = False
        self.waited_for_end = False
        # Of one that follows a thread: see `ThreadWatch`.
        self.idle_at: tuple[int, int] | None = None
        self.closed = False
        self._event = asyncio.Event()

    def advance(self, events: Sequence[Event]) -> None:
        """The reader is given these."""
        last = events[-1]
        self.position = last.id
        self.witnessed = True
        # In a run that was begun again, an error is not the last word.
        self.failed = last.mode == "error"

    def wake(self, *, doubt: bool) -> None:
        self.doubt = self.doubt or doubt
        self._event.set()

    def clear(self) -> None:
        """Called before looking: what happens from here on ends the next `wait`."""
        self._event.clear()

    async def wait(self) -> None:
        await self._event.wait()


def thread_key(tenant_id: str, thread_id: str) -> RunKey:
    """What stands for a thread among the runs that are watched: no run has its thread's id."""
    return RunKey(tenant_id, thread_id, thread_id)


class Watches:
    """All watches of a loop."""

    def __init__(self) -> None:
        self._by_run: dict[RunKey, set[Watch]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Watch]:
        return (watch for watches in list(self._by_run.values()) for watch in list(watches))

    def open(self, key: RunKey, *, resumable: bool) -> Watch:
        watch = Watch(key, resumable=resumable)
        self._by_run.setdefault(key, set()).add(watch)
        self._count += 1
        return watch

    def close(self, watch: Watch) -> bool:
        """Take a watch out; whether it was its run's last."""
        others = self._by_run[watch.key]
        others.remove(watch)
        self._count -= 1
        if others:
            return False
        del self._by_run[watch.key]
        return True

    def wake(self, keys: Iterable[RunKey], *, doubt: bool = False) -> None:
        for key in keys:
            for watch in self._by_run.get(key, ()):
                watch.wake(doubt=doubt)

    def wake_all(self, *, doubt: bool) -> None:
        for watch in self:
            watch.wake(doubt=doubt)
