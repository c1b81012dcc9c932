"""The store's statements: units of operations on a connection, reads and then writes. They come ready made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, cast

from langgraph.store.base import GetOp, Item, ListNamespacesOp, PutOp, Result, SearchItem, SearchOp
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from waystation_db.sql import load
from waystation_db.store_names import Scope
from waystation_db.store_unit import Placed, Unit, decode, operations_of
from waystation_db.store_vectors import StoreIndex, VectorSpace, search_statement

_sql = load("store")
_GET, _PUT, _DELETE, _NAMESPACES = _sql["get_items"], _sql["put_items"], _sql["delete_items"], _sql["list_namespaces"]
_SEARCH, _SCAN_ON = search_statement("search_items"), _sql["scan_on"]

_Cursor = AsyncCursor[TupleRow]
_Step = tuple[LiteralString, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StoreRows:
    """The rows of one database. `index` and `space` are None where nothing is found by meaning."""

    index: StoreIndex | None
    space: VectorSpace | None

    async def read(self, conn: AsyncConnection[TupleRow], units: Sequence[Unit], results: list[list[Result]]) -> None:
        gets, others = operations_of(units, GetOp), operations_of(units, SearchOp, ListNamespacesOp)
        if gets:
            await self._get(conn, gets, results)
        for which, place, unit, op in others:
            if isinstance(op, SearchOp):
                results[which][place] = await self._search(conn, unit, place, op)
            elif isinstance(op, ListNamespacesOp):
                results[which][place] = await self._namespaces(conn, unit, op)

    async def _get(self, conn: AsyncConnection[TupleRow], gets: Sequence[Placed], results: list[list[Result]]) -> None:
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

    async def write(self, conn: AsyncConnection[TupleRow], units: Sequence[Unit]) -> None:
        last: dict[tuple[str, str], tuple[Unit, int, PutOp]] = {}
        for _, place, unit, op in operations_of(units, PutOp):
            put = cast(PutOp, op)
            last[unit.scope.prefix(put.namespace), put.key] = (unit, place, put)
        if not last:
            return
        puts = {name: one for name, one in last.items() if one[2].value is not None}
        gone = [name for name in last if name not in puts]
        steps: list[_Step] = [(_DELETE, _names(gone))] if gone else []
        if puts:
            steps += self._put(puts)
        if len(steps) == 1:
            await conn.execute(*steps[0], binary=True)
            return
        async with conn.pipeline(), conn.transaction():
            for step in steps:
                await conn.execute(*step, binary=True)

    def _put(self, puts: Mapping[tuple[str, str], tuple[Unit, int, PutOp]]) -> list[_Step]:
        names = _names(list(puts))
        values = [unit.values[place] for unit, place, _ in puts.values()]
        ttls = [None if op.ttl is None else op.ttl * 60 for *_, op in puts.values()]
        steps: list[_Step] = [(_PUT, {**names, "values": values, "ttls": ttls})]
        if self.space is None:
            return steps
        rows: list[tuple[str, str, str, list[float]]] = []
        for (prefix, key), (unit, place, _) in puts.items():
            rows += [(prefix, key, one.field_name, unit.vectors[one.text]) for one in unit.texts.get(place, ())]
        steps.append((self.space.forget, names))
        if rows:
            distinct = {row[:3]: row for row in rows}  # a path given twice, or one that looks like another's part
            steps.append((self.space.put, self.space.put_params(list(distinct.values()))))
        return steps


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
