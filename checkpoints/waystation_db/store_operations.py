"""Carries out the store's operations: what waits at the same moment goes in one round trip, from whomever it is.

    submit ──▶ waiting ──▶ up to four batches under way: reads, then writes, one transaction ──▶ each unit its results
                                  │ refused
                                  └──▶ each unit alone: a bad one fails by itself

A unit is what one caller asked for at once: it is done wholly or not at all. Texts are embedded before a connection is
taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from langgraph.store.base import Item, PutOp, Result, SearchOp

from waystation_db.cipher import is_sealed
from waystation_db.errors import DatabaseUnavailable, SearchesSealed
from waystation_db.places import store_place
from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_db.store_embedding import EmbeddedTogether
from waystation_db.store_filter import conditions_of
from waystation_db.store_rows import StoreRows
from waystation_db.store_unit import Unit, encode
from waystation_db.store_vectors import StoreIndex, VectorSpace, texts_of

# Batches under way at once: more would only take connections from the checkpointer.
_LANES = 4
_BATCH_UNITS = 256

MAX_TTL_MINUTES = 52_560_000.0
"""A hundred years."""


class StoreOperations:
    """The operations on one pool, on the loop on which it was opened."""

    def __init__(self, db: Database, *, index: StoreIndex | None, space: VectorSpace | None, retry_s: float) -> None:
        self.db = db
        self.index = index
        self.space = space
        self.loop = asyncio.get_running_loop()
        self._rows = StoreRows(index, space)
        self._embedded = EmbeddedTogether(index) if index else None
        self.retry_s = retry_s
        self._waiting: deque[tuple[asyncio.Future[list[Result]], Unit]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._closed = False

    async def submit(self, unit: Unit) -> list[Result]:
        """The results of a unit's operations, in order; reads see what was there before its writes.

        Raises:
            ValueError, TypeError: something in it cannot be stored or searched for.
            DatabaseUnavailable: the database stayed away; psycopg.Error: it refused.
            SearchesSealed, SealingFailed, Undecipherable: where values are encrypted.
            Whatever the embedding function raises.
        """
        await self._make_ready(unit)
        if self._closed:
            raise DatabaseUnavailable("the store is closed")
        future: asyncio.Future[list[Result]] = self.loop.create_future()
        self._waiting.append((future, unit))
        if len(self._lanes) < _LANES:
            lane = self.loop.create_task(self._work(), name="store")
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        results = await future
        await self._open(unit, results)
        return results

    async def aclose(self) -> None:
        """Wait for what is under way; what has not begun is cancelled."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft()[0].cancel()
        if self._lanes:
            await asyncio.wait(self._lanes)

    async def _make_ready(self, unit: Unit) -> None:
        wanted: list[str] = []
        for place, op in enumerate(unit.operations):
            if isinstance(op, PutOp) and op.value is not None:
                wanted += await self._make_put_ready(unit, place, op)
            elif isinstance(op, SearchOp):
                cipher = self.db.cipher
                if op.filter and cipher is not None and cipher.seals:
                    raise SearchesSealed("filter: the values of store items are encrypted and cannot be compared")
                unit.conditions[place] = encode(conditions_of(op.filter))
                if self.index and op.query:
                    wanted.append(op.query)
        if wanted and self._embedded:
            unit.vectors = await self._embedded.vectors(wanted)

    async def _make_put_ready(self, unit: Unit, place: int, op: PutOp) -> list[str]:
        """Which texts are to be embedded."""
        if op.ttl is not None and not 0 < op.ttl <= MAX_TTL_MINUTES:
            raise ValueError(f"ttl is {op.ttl} minutes: expected more than 0 and at most {MAX_TTL_MINUTES:.0f}")
        unit.values[place] = encode(op.value)
        if self.db.cipher is not None:
            named = store_place(unit.scope.prefix(op.namespace), op.key)
            unit.values[place] = encode(await self.db.cipher.seal_json(named, op.value))
        if self.index is None:
            return []
        unit.texts[place] = texts_of(op, self.index)
        return [text.text for text in unit.texts[place]]

    async def _open(self, unit: Unit, results: Sequence[Result]) -> None:
        """Put what was sealed in the place of its seal; no connection is held for that."""
        cipher = self.db.cipher
        if cipher is None:
            return
        for result in results:
            for item in cast("list[Any]", result) if isinstance(result, list) else [result]:
                if isinstance(item, Item) and is_sealed(item.value):
                    named = store_place(unit.scope.prefix(item.namespace), item.key)
                    item.value = await cipher.open_json(named, item.value)

    async def _work(self) -> None:
        await asyncio.sleep(0)  # what the loop's other tasks are about to ask for comes along
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_UNITS))]
            await self._settle([one for one in batch if not one[0].done()])

    async def _settle(self, batch: Sequence[tuple[asyncio.Future[list[Result]], Unit]]) -> None:
        if not batch:
            return
        try:
            results = await until_done(lambda: self._carry_out([unit for _, unit in batch]), retry_s=self.retry_s)
        except BaseException as error:
            # A bad unit fails alone, whatever it is that is bad; only the end of the task itself goes on from here.
            if not isinstance(error, Exception):
                for future, _ in batch:
                    future.cancel()
                raise
            if len(batch) > 1:
                for one in batch:
                    await self._settle([one])
            elif not batch[0][0].done():
                batch[0][0].set_exception(error)
            return
        for (future, _), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _carry_out(self, units: Sequence[Unit]) -> list[list[Result]]:
        results: list[list[Result]] = [[None] * len(unit.operations) for unit in units]
        async with self.db.connection() as conn:
            await self._rows.read(conn, units, results)
            await self._rows.write(conn, units)
        return results
