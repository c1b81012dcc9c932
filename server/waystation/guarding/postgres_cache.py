"""The guards' cache in Postgres, for servers without a Redis."""

from __future__ import annotations

from typing import Final

from waystation.guarding.guard_names import LARGEST_VALUE, owner_of, span
from waystation.guarding.ledger_operations import short
from waystation.guarding.postgres_state import answered
from waystation_db import guard_cache
from waystation_db.errors import Undecipherable
from waystation_db.pool import Database

ANSWER_S: Final = 1.0
"""How long Postgres may take: a cache that makes callers wait is none."""


class PostgresCache:
    """`waystation_guards.ports.Cache` of a tenant."""

    __slots__ = ("_answer_s", "_db", "_tenant")

    def __init__(self, db: Database, *, tenant: str = "default", answer_s: float = ANSWER_S) -> None:
        self._db = db
        self._tenant = tenant
        self._answer_s = answer_s

    async def get(self, key: str) -> bytes | None:
        owner = owner_of(self._tenant, key)
        try:
            return await answered(
                self._db, lambda conn: guard_cache.get(conn, owner, short(key)), answer_s=self._answer_s
            )
        except Undecipherable:  # encrypted with a key that is gone: as good as forgotten
            return None

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        if len(value) > LARGEST_VALUE:
            return
        owner = owner_of(self._tenant, key)
        await answered(
            self._db,
            lambda conn: guard_cache.put(conn, owner, short(key), value, ttl_s=span(ttl_s)),
            answer_s=self._answer_s,
        )

    async def lock(self, key: str, *, holder: str, ttl_s: float) -> bool:
        owner = owner_of(self._tenant, key)
        return await answered(
            self._db,
            lambda conn: guard_cache.lock(conn, owner, short(key), holder=short(holder), ttl_s=span(ttl_s)),
            answer_s=self._answer_s,
        )

    async def unlock(self, key: str, *, holder: str) -> None:
        owner = owner_of(self._tenant, key)
        await answered(
            self._db,
            lambda conn: guard_cache.unlock(conn, owner, short(key), holder=short(holder)),
            answer_s=self._answer_s,
        )
