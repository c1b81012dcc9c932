"""How many numbers of its thread's events a run has taken before this attempt.

first attempt                 0
native                        what the last event in its log says
classic, resumable            what its stored log converts to
classic, not resumable        nobody knows: the next attempt counts from a place that lies beyond
"""

from __future__ import annotations

from waystation.events import BEGINNING
from waystation.events.postgres import ChunkReader
from waystation.events.protocol import seq_of
from waystation.events.run_events import RunEvents
from waystation.runs.requests import is_native
from waystation_db import thread_events
from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_db.rows import ClaimedRun
from waystation_db.thread_events import STRIDE

_RETRY_S = 30


async def numbers_before(run: ClaimedRun, *, db: Database) -> int:
    """How many numbers the attempts before this one took. Costs nothing for a first attempt.

    Raises:
        DatabaseUnavailable: Postgres stayed away for half a minute.
    """
    if run.attempt == 1:
        return 0
    if not run.resumable:
        return (run.attempt - 1) * STRIDE
    count = _numbered if is_native(run.kwargs) else _converted
    return await until_done(lambda: count(run, db), retry_s=_RETRY_S)


async def _numbered(run: ClaimedRun, db: Database) -> int:
    newest = await ChunkReader(db).last(run.key)
    return 0 if newest is None else seq_of(newest.data) - run.event_base


async def _converted(run: ClaimedRun, db: Database) -> int:
    async with db.connection() as conn:
        span = await thread_events.span_of(conn, run.key)
    if span is None:
        return 0
    counted, reader, position = RunEvents(span), ChunkReader(db), BEGINNING
    while stored := (await reader.read(run.key, position)).events:
        counted.feed(stored)
        position = stored[-1].id
    return counted.seq - run.event_base
