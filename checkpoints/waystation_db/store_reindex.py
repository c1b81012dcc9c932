"""Makes the store's vectors anew, after another model, other fields or another number of dimensions were configured.

    begin    in one transaction: note which items have vectors, throw these away, remember the new settings
    go_on    a batch at a time: embed, put the vectors, strike the items off       (again after any interruption)

From `begin` on processes with the new settings may serve: until its turn comes an item is found like one without
vectors. What is put meanwhile is done by whoever puts it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.store.base import PutOp

from waystation_db.cipher import is_sealed
from waystation_db.places import store_place
from waystation_db.pool import Database
from waystation_db.sql import load
from waystation_db.store_setup import vector_space, vector_tables
from waystation_db.store_unit import decode
from waystation_db.store_vectors import StoreIndex, VectorSpace, embedded, texts_of

_sql = load("store_index")
_NOTE_ALL, _NOTED, _FORGET_NOTED = _sql["note_all"], _sql["noted"], _sql["forget_noted"]
_HOLD = _sql["hold_unchanged"]


@dataclass(frozen=True, slots=True)
class _Noted:
    prefix: str
    key: str
    value: Any
    updated_at: datetime | None


async def begin(db: Database, index: StoreIndex, *, all_items: bool = False) -> tuple[StoreIndex, VectorSpace]:
    """Throw all vectors away and note whose are to be made; `all_items`: also of what had none.

    Raises:
        DatabaseUnavailable: no Postgres.
    """
    async with db.connection() as conn, conn.transaction():
        for table in await vector_tables(conn):
            await conn.execute(_sql["note_indexed"].replace("{vectors}", table))
            await conn.execute(_sql["forget_all"].replace("{vectors}", table))
        if all_items:
            await conn.execute(_NOTE_ALL)
    return await vector_space(db, index)


async def prepare(db: Database, index: StoreIndex) -> tuple[StoreIndex, VectorSpace]:
    """For `go_on` after an interruption. Raises StoreIndexChanged, DatabaseUnavailable."""
    return await vector_space(db, index)


async def left(db: Database) -> int:
    """How many items wait for their vectors."""
    async with db.connection() as conn:
        row = await (await conn.execute(_NOTED)).fetchone()
    return 0 if row is None else row[0]


async def go_on(db: Database, index: StoreIndex, space: VectorSpace, *, batch: int = 100) -> AsyncGenerator[int]:
    """Embed what waits; after each batch how many items it was.

    Raises:
        Undecipherable: an item is encrypted with a key that is not here.
        Whatever the embedding function raises: what is done stays done.
    """
    take = _sql["take_noted"].replace("{vectors}", space.table)
    while True:
        async with db.connection() as conn:
            rows = await (await conn.execute(take, {"limit": batch})).fetchall()
            if not rows:
                await conn.execute(_sql["forget_done"].replace("{vectors}", space.table))
                return
        noted = [_Noted(prefix, key, value and decode(value), at) for prefix, key, value, at in rows]
        await _embed(db, index, space, noted)
        yield len(noted)


async def _embed(db: Database, index: StoreIndex, space: VectorSpace, noted: list[_Noted]) -> None:
    made: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in noted:
        value = one.value
        if db.cipher is not None and is_sealed(value):
            value = await db.cipher.open_json(store_place(one.prefix, one.key), value)
        put = PutOp((), one.key, value)
        made[one.prefix, one.key] = [(text.field_name, text.text) for text in texts_of(put, index)]
    texts = list(dict.fromkeys(text for fields in made.values() for _, text in fields))
    vectors = dict(zip(texts, await embedded(index, texts), strict=True)) if texts else {}
    async with db.connection() as conn, conn.transaction():
        held = await (await conn.execute(_HOLD, _unchanged(noted))).fetchall()
        rows = [(p, k, field, vectors[text]) for p, k in held for field, text in made[p, k]]
        if rows:
            await conn.execute(space.forget, {"prefixes": [p for p, _ in held], "keys": [k for _, k in held]})
            await conn.execute(space.put, space.put_params(rows))
        done = [one for one in noted if one.updated_at is None or (one.prefix, one.key) in set(held)]
        await conn.execute(_FORGET_NOTED, {"prefixes": [d.prefix for d in done], "keys": [d.key for d in done]})


def _unchanged(noted: list[_Noted]) -> dict[str, Any]:
    there = [one for one in noted if one.updated_at is not None]
    return {
        "prefixes": [one.prefix for one in there],
        "keys": [one.key for one in there],
        "updated": [one.updated_at for one in there],
    }
