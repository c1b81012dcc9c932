"""Gets the database ready for the store's vectors: pgvector where it may be had, and vectors only of one model.

pgvector there, or to be installed ──▶ LangGraph's table, and what was made without pgvector moved there
not there, or no right to          ──▶ our table, compared without an index
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from waystation_db.errors import StoreIndexChanged
from waystation_db.pool import Database
from waystation_db.sql import load
from waystation_db.store_vectors import MAX_PGVECTOR_DIMS, StoreIndex, VectorSpace

_sql = load("store_index")
_PGVECTOR, _LOCK, _CREATE_EXTENSION = _sql["pgvector"], _sql["lock"], _sql["create_extension"]
_LOCK_BUILDING = _sql["lock_building"]
_COLUMN, _CREATE, _DROP = _sql["vectors_column"], _sql["create_vectors"], _sql["drop_vectors"]
_ANY_VECTORS, _ANY_EMBEDDINGS, _MOVE = _sql["any_vectors"], _sql["any_embeddings"], _sql["move_embeddings"]
_REMEMBERED, _REMEMBER = _sql["remembered"], _sql["remember"]
_ANN, _DROP_ANN, _CREATE_ANN = _sql["ann_index"], _sql["drop_ann_index"], _sql["create_ann_index"]

_SCANS_ON_SINCE = (0, 8)
_OPERATORS = {"cosine": "cosine_ops", "l2": "l2_ops", "inner_product": "ip_ops"}

logger = logging.getLogger(__name__)

_Conn = AsyncConnection[Any]


async def vector_space(db: Database, index: StoreIndex) -> tuple[StoreIndex, VectorSpace]:
    """Make the tables for `index` where they are not there; how items are embedded, and where the vectors go.

    Raises:
        StoreIndexChanged: there are vectors of another length.
        DatabaseUnavailable: no Postgres.
    """
    index, space = await _in_pgvector(db, index) or (index, VectorSpace.without_pgvector(index))
    async with db.connection() as conn:
        await _compare(conn, index, exact=space.exact)
    return index, space


async def vector_tables(conn: _Conn) -> list[LiteralString]:
    """The tables of this database that may hold vectors."""
    there = await (await conn.execute(_COLUMN)).fetchone() is not None
    return ["store_vectors", "store_embedding"] if there else ["store_embedding"]


async def build_ann_index(db: Database, index: StoreIndex) -> None:
    """Build the index that `index.kind` asks for, unless it is there or another process is at it. May take long."""
    name = f"store_vectors_{index.kind}_{index.distance}_{index.vector_type}_idx"
    async with db.connection() as lock, lock.transaction():
        if await _one(lock, _LOCK_BUILDING) is not True:
            return
        # On another connection: an index is built concurrently only outside a transaction, and locks are for those.
        async with db.connection() as conn:
            try:
                await _build(conn, index, name)
            except psycopg.Error as error:
                logger.warning(
                    "the index of the store's vectors cannot be built: searches compare all vectors",
                    extra={"index": name, "error": str(error).strip()},
                )


async def _build(conn: _Conn, index: StoreIndex, name: str) -> None:
    there = await _one(conn, sql.SQL(_ANN).format(name=sql.Literal(name)))
    if there is True:
        return
    parts = {"index": sql.Identifier(name), "kind": sql.SQL(index.kind)}
    operators = sql.Identifier(f"{index.vector_type}_{_OPERATORS[index.distance]}")
    if there is False:  # somebody's building broke off
        await conn.execute(sql.SQL(_DROP_ANN).format(**parts))
    await conn.execute(sql.SQL(_CREATE_ANN).format(**parts, operators=operators))


async def _in_pgvector(db: Database, index: StoreIndex) -> tuple[StoreIndex, VectorSpace] | None:
    async with db.connection() as conn:
        available, version = await _row(conn, _PGVECTOR)
    if not (available or version):
        logger.warning("this Postgres has no pgvector: the store compares all vectors of a search, which is slower")
        return None
    if index.dims > MAX_PGVECTOR_DIMS:
        logger.warning("store.index.dims is more than pgvector stores: the store compares all vectors of a search")
        return None
    try:
        while not await _set_up(db, index):  # noqa: ASYNC110  # another process is at it
            await asyncio.sleep(0.1)
    except psycopg.Error as error:
        logger.warning(
            "pgvector cannot be set up in this database: the store compares all vectors of a search, which is slower",
            extra={"error": str(error).strip()},
        )
        return None
    async with db.connection() as conn:
        _, version = await _row(conn, _PGVECTOR)
        vector_type, _ = await _row(conn, _COLUMN)
    if vector_type != index.vector_type:
        logger.warning("the vectors in the database are of another type, which is kept", extra={"type": vector_type})
        index = replace(index, vector_type=vector_type)
    numbers = tuple(int(part) for part in str(version).split(".")[:2] if part.isdecimal())
    return index, VectorSpace.in_pgvector(index, scans_on=numbers >= _SCANS_ON_SINCE)


async def _set_up(db: Database, index: StoreIndex) -> bool:
    """Make LangGraph's table of vectors, unless another process is at it."""
    parts = {"vector_type": sql.SQL(index.vector_type), "dims": sql.Literal(index.dims)}
    async with db.connection() as conn, conn.transaction():
        if await _one(conn, _LOCK) is not True:
            return False
        if (await _row(conn, _PGVECTOR))[1] is None:
            await conn.execute(_CREATE_EXTENSION)
        column = await (await conn.execute(_COLUMN)).fetchone()
        if column is not None and column != (index.vector_type, index.dims) and not await _one(conn, _ANY_VECTORS):
            await conn.execute(_DROP)
            column = None
        if column is None:
            await conn.execute(sql.SQL(_CREATE).format(**parts))
        if await _is_ours_to_move(conn, index):
            await conn.execute(sql.SQL(_MOVE).format(**parts))
    return True


async def _is_ours_to_move(conn: _Conn, index: StoreIndex) -> bool:
    remembered = await (await conn.execute(_REMEMBERED)).fetchone()
    return remembered is not None and remembered[0] == index.dims and bool(await _one(conn, _ANY_EMBEDDINGS))


async def _compare(conn: _Conn, index: StoreIndex, *, exact: bool) -> None:
    """Refuse, or warn, when what is stored was not made as `index` says."""
    remembered = await (await conn.execute(_REMEMBERED)).fetchone()
    if not exact and (column := await _row(conn, _COLUMN))[1] not in (-1, index.dims):
        raise _other_dims(column[1], index)
    if remembered is None or not await _one(conn, _ANY_EMBEDDINGS if exact else _ANY_VECTORS):
        await _remember(conn, index)
        return
    dims, embed, fields = remembered
    if dims != index.dims:
        raise _other_dims(dims, index)
    if embed != index.name:
        logger.warning(
            "store.index.embed was changed: vectors of two models cannot be compared; run `waystation reindex`",
            extra={"embed": index.name, "vectors_made_by": embed},
        )
    if fields != list(index.fields):
        logger.warning(
            "store.index.fields was changed: items put before are found by the old fields; run `waystation reindex`",
            extra={"fields": list(index.fields), "fields_before": fields},
        )


async def _remember(conn: _Conn, index: StoreIndex) -> None:
    """Write down that the vectors are made as `index` says."""
    await conn.execute(_REMEMBER, {"dims": index.dims, "embed": index.name, "fields": list(index.fields)})


def _other_dims(stored: int, index: StoreIndex) -> StoreIndexChanged:
    return StoreIndexChanged(
        f"store.index.dims is {index.dims}, but the vectors in the database have {stored} numbers: set it back, or run "
        "`waystation reindex` to make all vectors anew"
    )


async def _one(conn: _Conn, statement: Any) -> Any:
    row = await (await conn.execute(statement)).fetchone()
    return None if row is None else row[0]


async def _row(conn: _Conn, statement: Any) -> Any:
    return await (await conn.execute(statement)).fetchone()
