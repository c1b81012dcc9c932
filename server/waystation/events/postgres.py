"""Events as rows of Postgres: resumable runs always, and all runs where nothing faster lies between the processes.

`ChunkWriter` lives on the loop that executes runs, `ChunkReader` on the loop that reads; each with the pool of its
loop. Appends of all runs that wait at the same moment are one statement, and so are the looks of all readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import psycopg

from waystation.events.batcher import Batcher
from waystation.events.chunks import PackedEvents, pack, unpack
from waystation.events.live import FETCH_BYTES
from waystation.events.log import Event, EventId, fenced
from waystation.events.sealing import opened_chunks, sealed_chunks
from waystation_db import events as rows
from waystation_db import thread_events
from waystation_db.errors import DatabaseError, DatabaseUnavailable, Undecipherable
from waystation_db.events import Chunk, Position, ReadChunks, RunChunks
from waystation_db.group_commit import GroupCommit
from waystation_db.pool import Database
from waystation_db.retrying import is_passing
from waystation_db.rows import RunKey, RunState
from waystation_db.run_sealing import opened_error
from waystation_db.thread_events import ThreadPosition

_RETRY_S = 30.0
# A look of many readers at once holds at most this many times `FETCH_BYTES`.
_READS_AT_ONCE = 32
_FETCH_CHUNKS = 64
_CHANGES_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class _Append:
    run: RunChunks
    notify: bool

    def size_bytes(self) -> int:
        return sum([len(chunk.payload) for chunk in self.run.chunks])


class ChunkWriter:
    """Appends to Postgres, fenced and grouped; an append that returns is committed."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._group = GroupCommit[_Append](self._commit, retry_s=_RETRY_S, bytes_of=_Append.size_bytes)

    async def append(self, key: RunKey, attempt: int, events: Sequence[Event], *, notify: bool) -> None:
        """Write events, and tell readers in other processes if `notify`.

        Raises Fenced when the attempt is over, DatabaseUnavailable when Postgres stayed away for 30 s.
        """
        chunks = [Chunk(*packed) for packed in await sealed_chunks(self._db.cipher, key, pack(events))]
        if chunks:
            await self._group.submit(_Append(RunChunks(key, attempt, chunks), notify))

    async def _commit(self, batch: Sequence[_Append]) -> list[DatabaseError | None]:
        notify = any(item.notify for item in batch)
        async with self._db.connection() as conn:
            written = await rows.append_chunks(conn, [item.run for item in batch], notify=notify)
        return [
            None if is_alive else fenced(item.run.key, item.run.attempt)
            for item, is_alive in zip(batch, written, strict=True)
        ]

    async def announce(self, key: RunKey) -> None:
        """Wake the run's readers everywhere. Raises what the database raises."""
        async with self._db.connection() as conn:
            await rows.announce(conn, key)

    async def forget(self, key: RunKey) -> None:
        """Drop the run's chunks. Raises what the database raises."""
        async with self._db.connection() as conn:
            await rows.delete_chunks(conn, key)

    async def close(self) -> None:
        await self._group.aclose()


@dataclass(frozen=True, slots=True)
class Stored:
    """What Postgres knows of a run after a position: `state` None when the run is not there; `more` events follow."""

    state: RunState | None
    events: Sequence[Event]
    more: bool

    @property
    def is_over(self) -> bool:
        """Whether the run is final or gone."""
        return self.state is None or self.state.is_final


class ChunkReader:
    """Reads chunks and the states of their runs for all readers of a loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._reads = Batcher[Position, Stored](self._answer_all, limit=_READS_AT_ONCE)

    async def read(self, key: RunKey, after: EventId) -> Stored:
        """A run's state and its events after an id, as one snapshot. Raises DatabaseUnavailable while Postgres is
        away."""
        return await self._reads.ask(Position(key, *after))

    async def changed(self, positions: Iterable[tuple[RunKey, EventId]]) -> list[RunKey]:
        """Which of these runs are final, gone, or have chunks after the position. Raises DatabaseUnavailable."""
        asked = [Position(key, *after) for key, after in positions]
        found: list[RunKey] = []
        for start in range(0, len(asked), _CHANGES_AT_ONCE):
            found += await self._changed(asked[start : start + _CHANGES_AT_ONCE])
        return found

    async def moved(self, positions: Sequence[ThreadPosition]) -> list[ThreadPosition]:
        """Which of these threads have something new for a reader there. Raises DatabaseUnavailable."""
        distinct = list(dict.fromkeys(positions))
        found: list[ThreadPosition] = []
        try:
            for start in range(0, len(distinct), _CHANGES_AT_ONCE):
                async with self._db.connection() as conn:
                    found += await thread_events.moved(conn, distinct[start : start + _CHANGES_AT_ONCE])
        except psycopg.Error as error:
            raise _told(error) from error
        return found

    async def last(self, key: RunKey) -> Event | None:
        """The newest event of a run. Raises DatabaseUnavailable while Postgres is away."""
        try:
            async with self._db.connection() as conn:
                chunk = await rows.last_chunk(conn, key)
        except psycopg.Error as error:
            raise _told(error) from error
        if chunk is None:
            return None
        (opened,) = await opened_chunks(self._db.cipher, key, [PackedEvents(*chunk)])
        return unpack(opened, EventId(chunk.epoch_ms, chunk.last_counter - 1))[-1]

    async def close(self) -> None:
        await self._reads.close()

    async def _changed(self, positions: list[Position]) -> list[RunKey]:
        try:
            async with self._db.connection() as conn:
                return await rows.changed_runs(conn, positions)
        except psycopg.Error as error:
            if is_passing(error):
                raise _told(error) from error
            if len(positions) == 1:
                # An impossible id: its reader looks, and gets the error for itself.
                return [positions[0].key]
            half = len(positions) // 2
            return [*await self._changed(positions[:half]), *await self._changed(positions[half:])]

    async def _answer_all(self, asked: Sequence[Position]) -> list[Stored | Exception]:
        # Readers of a run that are all up to date stand at the same position: one look serves them.
        distinct = list(dict.fromkeys(asked))
        answers = dict(zip(distinct, await self._read_all(distinct), strict=True))
        return [answers[position] for position in asked]

    async def _read_all(self, positions: list[Position]) -> list[Stored | Exception]:
        try:
            async with self._db.connection() as conn:
                found = await rows.read_chunks(conn, positions, max_chunks=_FETCH_CHUNKS, max_bytes=FETCH_BYTES)
        except psycopg.Error as error:
            if len(positions) == 1 or is_passing(error):
                return [_told(error)] * len(positions)
            # One reader's impossible id must not fail the others.
            return [answer for position in positions for answer in await self._read_all([position])]
        return [await self._stored(position, read) for position, read in zip(positions, found, strict=True)]

    async def _stored(self, position: Position, read: ReadChunks) -> Stored | Exception:
        if (cipher := self._db.cipher) is None:
            return _stored(position, read.state, [PackedEvents(*chunk) for chunk in read.chunks], read.more)
        try:
            chunks = await opened_chunks(cipher, position.key, [PackedEvents(*chunk) for chunk in read.chunks])
        except Undecipherable as error:
            return error
        state = read.state
        if state is not None and state.error is not None:
            state = replace(state, error=await opened_error(cipher, position.key, state.error))
        return _stored(position, state, chunks, read.more)


def _stored(
    position: Position, state: RunState | None, chunks: Sequence[PackedEvents], more: bool
) -> Stored | Exception:
    events: list[Event] = []
    last = EventId(position.epoch_ms, position.counter)
    try:
        for chunk in chunks:
            events += unpack(chunk, last)
            last = events[-1].id if events else last
    except ValueError as error:
        return error
    return Stored(state, events, more)


def _told(error: psycopg.Error) -> Exception:
    """The error as callers know it: what passes by itself is DatabaseUnavailable."""
    return DatabaseUnavailable(str(error).strip()) if is_passing(error) else error
