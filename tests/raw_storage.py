"""Everything that a database and a Redis keep, as the bytes they keep it in: for tests of what must not be there."""

from __future__ import annotations

from typing import Any, cast

import psycopg
from psycopg import sql
from redis.asyncio import Redis

_TABLES = "select tablename from pg_tables where schemaname = 'public' order by tablename"


async def raw_tables(database_uri: str) -> dict[str, bytes]:
    """The rows of every table, in Postgres's binary form, in which text stands as it is."""
    found: dict[str, bytes] = {}
    async with await psycopg.AsyncConnection.connect(database_uri) as conn, conn.cursor() as cursor:
        names = [row[0] for row in await (await cursor.execute(_TABLES)).fetchall()]
        for name in names:
            copy = sql.SQL("copy {} to stdout (format binary)").format(sql.Identifier(name))
            async with cursor.copy(copy) as rows:
                found[name] = b"".join([bytes(block) async for block in rows])
    return found


async def raw_redis(url: str) -> dict[str, bytes]:
    """The keys of a Redis and what they hold."""
    redis: Any = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
    try:
        names = cast("list[bytes]", [name async for name in redis.scan_iter()])
        return {name.decode(): await _held(redis, name) for name in names}
    finally:
        await redis.aclose()


async def _held(redis: Any, name: bytes) -> bytes:
    match await redis.type(name):
        case b"stream":
            entries = await redis.xrange(name)
            return b"".join(part for _, fields in entries for pair in fields.items() for part in pair)
        case b"string":
            return await redis.get(name)
        case other:
            raise AssertionError(f"{name!r} is a {other!r}: this helper does not know how to read it")
