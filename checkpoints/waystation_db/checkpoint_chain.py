"""The puts of one run that are on their way: who makes them does not wait, and what follows a failed one fails too.

A checkpoint must not be committed past a gap: it holds what is new since its parent, and relies on its parent's rows.
"""

from __future__ import annotations

import asyncio

from waystation_db.errors import DatabaseError


class PutChain:
    """The puts of one run, all through the same group commit, in the order in which they were made."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """What the first put that failed was refused with."""
        self._under_way: set[asyncio.Future[None]] = set()

    def check(self) -> None:
        """Raise what the first put that failed was refused with."""
        if self.error is not None:
            raise self.error

    def add(self, done: asyncio.Future[None]) -> None:
        """Append a put; `done` is its answer."""
        self._under_way.add(done)
        done.add_done_callback(self._note)

    def fail(self, error: BaseException) -> None:
        """Let nothing follow the put that is failing now."""
        if self.error is None:
            self.error = error

    def gap(self) -> DatabaseError | None:
        """Why the next put must not be written; None when it may."""
        if self.error is None or isinstance(self.error, DatabaseError):
            return self.error
        return DatabaseError(f"a checkpoint before this one could not be stored: {self.error}")

    async def at_rest(self) -> None:
        """Wait until nothing is under way, whatever came of it."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _note(self, done: asyncio.Future[None]) -> None:
        self._under_way.discard(done)
        if not done.cancelled() and (error := done.exception()):
            self.fail(error)
