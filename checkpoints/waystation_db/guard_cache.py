"""The guards' cache in Postgres, for servers without a Redis. Where content is encrypted, so is what is cached."""

from __future__ import annotations

from typing import cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.cipher import pack, unpack
from waystation_db.places import cache_place
from waystation_db.pool import cipher_of
from waystation_db.sql import load

_q = load("guard_cache")

Conn = AsyncConnection[TupleRow]


async def get(conn: Conn, tenant_id: str, key: str) -> bytes | None:
    """A value that has not expired. Raises Undecipherable."""
    row = await (await conn.execute(_q["get"], {"tenant_id": tenant_id, "key": key})).fetchone()
    if row is None:
        return None
    value = bytes(cast("bytes", row[0]))
    cipher = cipher_of(conn)
    return value if cipher is None else await unpack(cipher, cache_place(tenant_id, key), value)


async def put(conn: Conn, tenant_id: str, key: str, value: bytes, *, ttl_s: float) -> None:
    """Keep a value for so many seconds. Commits."""
    if (cipher := cipher_of(conn)) is not None:
        value = await pack(cipher, cache_place(tenant_id, key), value)
    await conn.execute(_q["put"], {"tenant_id": tenant_id, "key": key, "value": value, "ttl_s": ttl_s})


async def lock(conn: Conn, tenant_id: str, key: str, *, holder: str, ttl_s: float) -> bool:
    """Become, or stay, the one who computes a value. False: another is. Commits."""
    params = {"tenant_id": tenant_id, "key": key, "holder": holder, "ttl_s": ttl_s}
    return await (await conn.execute(_q["lock"], params)).fetchone() is not None


async def unlock(conn: Conn, tenant_id: str, key: str, *, holder: str) -> None:
    """Give the lock back, if it is this holder's. Commits."""
    await conn.execute(_q["unlock"], {"tenant_id": tenant_id, "key": key, "holder": holder})
