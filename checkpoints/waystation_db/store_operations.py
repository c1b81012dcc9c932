"""Carries out the store's operations: what waits at the same moment goes in one round trip, from whomever it is.

    submit ──▶ waiting ──▶ up to four batches under way: reads, then writes, one transaction ──▶ each unit its results
                                  │ refused
                                  └──▶ each unit alone: a bad one fails by itself

A unit is what one caller asked for at once: it is done wholly or not at all. Texts are embedded before a connection is
taken.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from langgraph.store.base import GetOp, Item, ListNamespacesOp, Op, PutOp, Result, SearchItem, SearchOp
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from waystation_db.errors import DatabaseUnavailable
from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_db.sql import load
from waystation_db.store_embedding import EmbeddedTogether
from waystation_db.store_filter import conditions_of
from waystation_db.store_names import Scope
from waystation_db.store_vectors import StoreIndex, Text, VectorSpace, search_statement, texts_of

_sql = load("store")
_GET, _PUT, _DELETE, _NAMESPACES = _sql["get_items"], _sql["put_items"], _sql["delete_items"], _sql["list_namespaces"]
_SEARCH, _SCAN_ON = search_statement("search_items"), _sql["scan_on"]

# Batches under way at once: more would only take connections from the checkpointer.
_LANES = 4
_BATCH_UNITS = 256

MAX_TTL_MINUTES = 52_560_000.0
"""A hundred years."""

_Cursor = AsyncCursor[TupleRow]


@dataclass(slots=True)
class Unit:
    """Operations of one caller of one tenant, with what was made ready for them before a connection is needed."""

    scope: Scope
    operations: Sequence[Op]
    vectors: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """By text."""
    texts: dict[int, list[Text]] = field(default_factory=dict[int, list[Text]])
    """By the place of the put."""
    values: dict[int, str] = field(default_factory=dict[int, str])
    """JSON, by the place of the put."""
    conditions: dict[int, str] = field(default_factory=dict[int, str])
    """JSON, by the place of the search."""


class StoreOperations:
    """The operations on one pool, on the loop on which it was opened."""

    def __init__(self, db: Database, *, index: StoreIndex | None, space: VectorSpace | None, retry_s: float) -> None:
        self.db = db
        self.index = index
        self.space = space
        self.loop = asyncio.get_running_loop()
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
        return await future

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
                unit.values[place] = encode(op.value)
                if op.ttl is not None and not 0 < op.ttl <= MAX_TTL_MINUTES:
                    raise ValueError(f"ttl is {op.ttl} minutes: expected more than 0 and at most {MAX_TTL_MINUTES:.0f}")
                if self.index:
                    unit.texts[place] = texts_of(op, self.index)
                    wanted += [text.text for text in unit.texts[place]]
            elif isinstance(op, SearchOp):
                unit.conditions[place] = encode(conditions_of(op.filter))
                if self.index and op.query:
                    wanted.append(op.query)
        if wanted and self._embedded:
            unit.vectors = await self._embedded.vectors(wanted)

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
            await self._read(conn, units, results)
            await self._write(conn, units)
        return results

    async def _read(self, conn: AsyncConnection[TupleRow], units: Sequence[Unit], results: list[list[Result]]) -> None:
        gets, others = _split(units, GetOp), _split(units, SearchOp, ListNamespacesOp)
        if gets:
            await self._get(conn, gets, results)
        for which, place, unit, op in others:
            if isinstance(op, SearchOp):
                results[which][place] = await self._search(conn, unit, place, op)
            elif isinstance(op, ListNamespacesOp):
                results[which][place] = await self._namespaces(conn, unit, op)

    async def _get(self, conn: AsyncConnection[TupleRow], gets: Sequence[_Placed], results: list[list[Result]]) -> None:
        operations = [cast(GetOp, op) for *_, op in gets]
        params = {
            "prefixes": [unit.scope.prefix(op.namespace) for (_, _, unit, _), op in zip(gets, operations, strict=True)],
            "keys": [op.key for op in operations],
            "refresh": [op.refresh_ttl for op in operations],
        }
        async with _cursor(conn) as cursor:
            await cursor.execute(_GET, params)
            for at, value, created_at, updated_at in await cursor.fetchall():
                which, place, _, op = gets[cast(int, at) - 1]
                results[which][place] = Item(
                    value=decode(value),
                    key=cast(GetOp, op).key,
                    namespace=cast(GetOp, op).namespace,
                    created_at=created_at,
                    updated_at=updated_at,
                )

    async def _search(self, conn: AsyncConnection[TupleRow], unit: Unit, place: int, op: SearchOp) -> list[SearchItem]:
        params: dict[str, Any] = {
            **unit.scope.below(op.namespace_prefix).params(),
            "conditions": unit.conditions[place],
            "limit": op.limit,
            "offset": op.offset,
            "refresh": op.refresh_ttl,
        }
        async with _cursor(conn) as cursor:
            if self.space and self.index and op.query:
                params |= self.space.query_params(unit.vectors[op.query])
                rows = await self._nearest(conn, cursor, self.space, params)
            else:
                rows = await (await cursor.execute(_SEARCH, params)).fetchall()
        return [self._found(unit.scope, *row) for row in rows]

    async def _nearest(
        self, conn: AsyncConnection[TupleRow], cursor: _Cursor, space: VectorSpace, params: dict[str, Any]
    ) -> list[TupleRow]:
        """By the index, if there is one and it finds enough; otherwise by comparing all."""
        if space.nearest is not None and self.index:
            wanted = params["limit"] + params["offset"]
            asked = {**params, "candidates": wanted * 2 * len(self.index.fields) + 10}
            async with conn.transaction():
                if space.scans_on:
                    await cursor.execute(_SCAN_ON)
                rows = await (await cursor.execute(space.nearest, asked)).fetchall()
            if len(rows) == params["limit"]:
                return rows
        return await (await cursor.execute(space.search, params)).fetchall()

    def _found(
        self,
        scope: Scope,
        prefix: str,
        key: str,
        value: str,
        created_at: datetime,
        updated_at: datetime,
        far: float | None,
    ) -> SearchItem:
        return SearchItem(
            namespace=scope.namespace(prefix),
            key=key,
            value=decode(value),
            created_at=created_at,
            updated_at=updated_at,
            score=self.space.score(far) if self.space else None,
        )

    async def _namespaces(
        self, conn: AsyncConnection[TupleRow], unit: Unit, op: ListNamespacesOp
    ) -> list[tuple[str, ...]]:
        first, last = _paths(op)
        known = first[: first.index("*")] if "*" in first else first
        params: dict[str, Any] = {
            **unit.scope.below(known).params(),
            "depth": unit.scope.depth,
            "max_depth": op.max_depth,
            "first": first,
            "last": last,
            "limit": op.limit,
            "offset": op.offset,
        }
        async with _cursor(conn) as cursor:
            rows = await (await cursor.execute(_NAMESPACES, params)).fetchall()
        return [tuple(labels) for (labels,) in rows]

    async def _write(self, conn: AsyncConnection[TupleRow], units: Sequence[Unit]) -> None:
        last: dict[tuple[str, str], tuple[Unit, int, PutOp]] = {}
        for _, place, unit, op in _split(units, PutOp):
            put = cast(PutOp, op)
            last[unit.scope.prefix(put.namespace), put.key] = (unit, place, put)
        if not last:
            return
        puts = {name: one for name, one in last.items() if one[2].value is not None}
        gone = [name for name in last if name not in puts]
        async with conn.pipeline(), conn.transaction(), _cursor(conn) as cursor:
            if gone:
                await cursor.execute(_DELETE, _names(gone))
            if puts:
                await self._put(cursor, puts)

    async def _put(self, cursor: _Cursor, puts: Mapping[tuple[str, str], tuple[Unit, int, PutOp]]) -> None:
        rows: list[tuple[str, str, str, list[float]]] = []
        for (prefix, key), (unit, place, _) in puts.items():
            rows += [(prefix, key, one.field_name, unit.vectors[one.text]) for one in unit.texts.get(place, ())]
        names = _names(list(puts))
        values = [unit.values[place] for unit, place, _ in puts.values()]
        ttls = [None if op.ttl is None else op.ttl * 60 for *_, op in puts.values()]
        await cursor.execute(_PUT, {**names, "values": values, "ttls": ttls})
        if self.space:
            await cursor.execute(self.space.forget, names)
            if rows:
                distinct = {row[:3]: row for row in rows}  # a path given twice, or one that looks like another's part
                await cursor.execute(self.space.put, self.space.put_params(list(distinct.values())))


_Placed = tuple[int, int, Unit, Op]


def _split(units: Sequence[Unit], *kinds: type[Op]) -> list[_Placed]:
    """The operations of these kinds: which unit, which place in it."""
    return [
        (which, place, unit, op)
        for which, unit in enumerate(units)
        for place, op in enumerate(unit.operations)
        if isinstance(op, kinds)
    ]


def _paths(op: ListNamespacesOp) -> tuple[list[str], list[str]]:
    """The labels that a namespace begins and ends with."""
    paths: dict[str, list[str]] = {"prefix": [], "suffix": []}
    for condition in op.match_conditions or ():
        paths[condition.match_type] = list(condition.path)
    return paths["prefix"], paths["suffix"]


def _names(names: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"prefixes": [prefix for prefix, _ in names], "keys": [key for _, key in names]}


def _cursor(conn: AsyncConnection[TupleRow]) -> _Cursor:
    return conn.cursor(binary=True)


def encode(value: Any) -> str:
    """JSON as Postgres takes it. Raises TypeError or ValueError for what has no form there, U+0000 apart."""
    given = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
    text = json.dumps(given, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text.encode()  # a lone surrogate, which is a ValueError
    return text


def decode(value: str) -> Any:
    """The very numbers that were put, integers of any size among them."""
    return json.loads(value)
