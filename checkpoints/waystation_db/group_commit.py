"""Group commit: whatever waits to be written at the same moment is written together.

    submit ──▶ waiting ──▶ one batch in flight ──▶ committed: each submit returns or raises for itself
                  ▲              │
                  └── arrives meanwhile, goes with the next batch

One batch is in flight at a time, so that what was submitted first is written first and a batch grows with the load
instead of with a delay. It knows nothing of what it writes: `commit` takes a batch and says what was refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from waystation_db.errors import DatabaseError, DatabaseUnavailable
from waystation_db.retrying import Backoff, is_passing

T = TypeVar("T")

# What `commit` answers: for each item of the batch, in order, None or the reason why it was not written.
Refusals = Sequence[DatabaseError | None]
Commit = Callable[[Sequence[T]], Awaitable[Refusals]]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    deadline: float
    done: asyncio.Future[None]


class GroupCommit(Generic[T]):
    """Writes items through `commit`, several at a time, in the order in which they came.

    `commit` must be all or nothing and safe to repeat. A batch it cannot write is written again item by item, so that
    a bad item fails alone; while the database is away a batch is tried again for `retry_s` seconds from the moment
    its items came in. At most `bound` items wait; beyond that `submit` waits for room.
    """

    def __init__(
        self,
        commit: Commit[T],
        *,
        retry_s: float,
        bytes_of: Callable[[T], int],
        batch_items: int = 256,
        batch_bytes: int = 8 * 2**20,
        bound: int = 4096,
    ) -> None:
        self._commit = commit
        self._retry_s = retry_s
        self._bytes_of = bytes_of
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._room = asyncio.Semaphore(bound)
        self._waiting: deque[_Waiting[T]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._closed = False
        self.tries = 0
        """How many batches were sent, tries again included: a metric, and for tests a sign of life."""

    @property
    def waiting(self) -> int:
        """How many items wait for the batch under way."""
        return len(self._waiting)

    async def submit(self, item: T) -> None:
        """Return when the item is committed. Raises what `commit` refused it with, DatabaseUnavailable, or what is
        wrong with the item. Cancelling the wait does not take the item back: it may be on its way."""
        async with self._room:
            await self._enqueue(item)

    async def post(self, item: T) -> asyncio.Future[None]:
        """Return as soon as there is room for the item. The future is what `submit` would have waited for."""
        await self._room.acquire()
        try:
            done = self._enqueue(item)
        except DatabaseUnavailable:
            self._room.release()
            raise
        done.add_done_callback(lambda _: self._room.release())
        return done

    def _enqueue(self, item: T) -> asyncio.Future[None]:
        if self._closed:
            raise DatabaseUnavailable("the writer is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.time() + self._retry_s, loop.create_future())
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return waiting.done

    async def flushed(self) -> None:
        """Wait until nothing waits and nothing is under way, that of cancelled callers included."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def aclose(self) -> None:
        """Refuse new items and wait until those accepted are written or have failed (at most `retry_s` seconds)."""
        self._closed = True
        await self.flushed()

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._write(self._take())
        finally:
            self._flusher = None
            # Only a cancelled flusher leaves anybody waiting: nobody may wait for ever.
            for waiting in self._waiting:
                _settle(waiting, DatabaseUnavailable("the writer was stopped"))
            self._waiting.clear()

    def _take(self) -> list[_Waiting[T]]:
        """The next batch: at least one item, and no more bytes than are good for everybody's latency."""
        batch = [self._waiting.popleft()]
        room = self._batch_bytes - self._bytes_of(batch[0].item)
        while self._waiting and len(batch) < self._batch_items:
            room -= self._bytes_of(self._waiting[0].item)
            if room < 0:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _write(self, batch: list[_Waiting[T]]) -> None:
        backoff = Backoff(batch[-1].deadline)
        while batch:
            self.tries += 1
            try:
                async with asyncio.timeout_at(backoff.deadline):
                    refusals = await self._commit([waiting.item for waiting in batch])
            except Exception as error:
                if not is_passing(error):
                    await self._write_one_by_one(batch, error)
                    return
                batch = _expire(batch, error)
                if batch:
                    await backoff.pause()
            except BaseException:
                for waiting in batch:
                    _settle(waiting, DatabaseUnavailable("the writer was stopped"))
                raise
            else:
                for waiting, refusal in zip(batch, refusals, strict=True):
                    _settle(waiting, refusal)
                return

    async def _write_one_by_one(self, batch: list[_Waiting[T]], error: Exception) -> None:
        if len(batch) == 1:
            _settle(batch[0], error)
            return
        for waiting in batch:
            await self._write([waiting])


def _expire(batch: list[_Waiting[T]], error: Exception) -> list[_Waiting[T]]:
    now = asyncio.get_running_loop().time()
    for waiting in batch:
        if waiting.deadline <= now:
            unavailable = DatabaseUnavailable("the database did not take a write in time")
            unavailable.__cause__ = error
            _settle(waiting, unavailable)
    return [waiting for waiting in batch if waiting.deadline > now]


def _settle(waiting: _Waiting[T], error: Exception | None) -> None:
    # Done already: whoever waited was cancelled.
    if waiting.done.done():
        return
    if error is None:
        waiting.done.set_result(None)
    else:
        waiting.done.set_exception(error)
