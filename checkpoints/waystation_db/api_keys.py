"""API keys: one function per statement of queries/api_keys.sql. A key itself is never stored. The caller owns the
transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.sql import load

_q = load("api_keys")

Conn = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What is kept of a new key. `key_id` is the part of the key that is no secret; `life` is how long it is good."""

    key_id: str
    tenant_id: str
    identity: str
    name: str
    roles: tuple[str, ...]
    salt: bytes
    digest: bytes
    is_peppered: bool
    life: timedelta | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What verifying a key needs. `is_usable`: neither revoked nor past, on the database's clock."""

    key_id: str
    tenant_id: str
    identity: str
    roles: tuple[str, ...]
    salt: bytes
    digest: bytes
    is_peppered: bool
    is_usable: bool
    unused_s: float | None

    def used_now(self) -> ApiKey:
        return replace(self, unused_s=0.0)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """What an operator sees of a key. `state` is usable, expired or revoked."""

    key_id: str
    tenant_id: str
    identity: str
    name: str
    roles: tuple[str, ...]
    state: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


async def create(conn: Conn, key: NewApiKey) -> None:
    """Keep a new key."""
    params: dict[str, Any] = {name: getattr(key, name) for name in NewApiKey.__slots__}
    await conn.execute(_q["create_key"], params | {"roles": list(key.roles)})


async def find(conn: Conn, key_id: str) -> ApiKey | None:
    """A key by its id, of whichever tenant: who presents it shows by it whose it is."""
    row = await (await conn.execute(_q["find_key"], {"key_id": key_id})).fetchone()
    if row is None:
        return None
    return ApiKey(row[0], row[1], row[2], tuple(row[3]), bytes(row[4]), bytes(row[5]), *row[6:])


async def touch(conn: Conn, key_id: str) -> None:
    """Note that a key was used just now; at most once a minute, however many processes do."""
    await conn.execute(_q["touch_key"], {"key_id": key_id})


async def list_keys(conn: Conn, *, tenant_id: str | None) -> Sequence[ListedKey]:
    """The keys of a tenant, or for None of all, the newest first."""
    rows = await (await conn.execute(_q["list_keys"], {"tenant_id": tenant_id})).fetchall()
    return [ListedKey(row[0], row[1], row[2], row[3], tuple(row[4]), *row[5:]) for row in rows]


async def revoke(conn: Conn, key_id: str, *, tenant_id: str | None) -> bool:
    """Refuse a key from now on. False: there is no such key (of that tenant), or it was revoked before."""
    params = {"key_id": key_id, "tenant_id": tenant_id}
    return await (await conn.execute(_q["revoke_key"], params)).fetchone() is not None
