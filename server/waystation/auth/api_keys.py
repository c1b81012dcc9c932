"""API keys of our own: `wsk_<id>_<secret>`, 256 random bits, of which Postgres keeps a keyed hash.

A fast hash is right for a secret that cannot be guessed. Its key is the row's salt and, where the operator has one, a
pepper that is not in the database: a copy of the table alone then proves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from waystation.auth.cache import Remembered
from waystation.auth.gate import KEY_PREFIX, Identity
from waystation.auth.roles import Role
from waystation.errors import Unauthorized
from waystation_db import api_keys
from waystation_db.api_keys import ApiKey, NewApiKey
from waystation_db.pool import Database

FRESH_S: Final = 2.0
"""How long a key's row is believed: what is revoked is refused everywhere after this."""

TOUCH_S: Final = 60.0
"""How exact the last use of a key is."""

_REMEMBERED = 10_000
_ID_BYTES, _SECRET_BYTES = 8, 32
_LONGEST = 128

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key. `text` is shown once and known to nobody afterwards."""

    text: str
    row: NewApiKey


def make_key(
    *,
    tenant_id: str,
    identity: str,
    roles: Sequence[Role],
    name: str = "",
    life: timedelta | None = None,
    pepper: str | None = None,
) -> MadeKey:
    """A key that nobody has had before, and the row to keep of it."""
    key_id, salt = secrets.token_hex(_ID_BYTES), secrets.token_bytes(16)
    text = f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    row = NewApiKey(
        key_id=key_id,
        tenant_id=tenant_id,
        identity=identity,
        name=name,
        roles=tuple(roles),
        salt=salt,
        digest=_digest(text, salt, pepper),
        is_peppered=pepper is not None,
        life=life,
    )
    return MadeKey(text, row)


def key_id_of(key: str) -> str:
    """The part of a key that is no secret; an id is its own."""
    return key.removeprefix(KEY_PREFIX).partition("_")[0]


class ApiKeys:
    """Verifies keys against Postgres, each row read at most every FRESH_S. On the API's loop."""

    def __init__(self, db: Database, *, pepper: str | None) -> None:
        self._db = db
        self._pepper = pepper
        self._rows = Remembered[str, "ApiKey | _Unknown"](ttl_s=FRESH_S, max_size=_REMEMBERED)
        self._looking: dict[str, asyncio.Task[ApiKey | None]] = {}

    async def verify(self, credential: str) -> Identity:
        """Whom a key stands for.

        Raises:
            Unauthorized: it is unknown, wrong, revoked or has expired; which one is not told.
            DatabaseUnavailable: it cannot be looked up.
        """
        key_id = key_id_of(credential)
        row = await self._row(key_id) if len(credential) <= _LONGEST and len(key_id) == 2 * _ID_BYTES else None
        if not self._is(row, credential) or row is None or not row.is_usable:
            raise Unauthorized("The API key is not valid", headers={"WWW-Authenticate": "Bearer"})
        if row.unused_s is None or row.unused_s > TOUCH_S:
            await self._touch(row)
        permissions = tuple(f"role:{role}" for role in row.roles)
        return Identity(row.tenant_id, row.identity, permissions, {"api_key": row.key_id, "tenant_id": row.tenant_id})

    def _is(self, row: ApiKey | None, credential: str) -> bool:
        """Takes the same time whether there is such a key or not."""
        salt, expected = (b"", b"") if row is None else (row.salt, row.digest)
        pepper = self._pepper if row is None or row.is_peppered else None
        if row is not None and row.is_peppered and pepper is None:
            log.error("An API key was made with a pepper, and WAYSTATION_KEY_PEPPER is not set here")
            return False
        return hmac.compare_digest(_digest(credential, salt, pepper), expected)

    async def _row(self, key_id: str) -> ApiKey | None:
        known = self._rows.get(key_id)
        if known is not None:
            return known if isinstance(known, ApiKey) else None
        task = self._looking.get(key_id)
        if task is None:
            task = self._looking[key_id] = asyncio.create_task(self._look_up(key_id))
            task.add_done_callback(lambda _: self._looking.pop(key_id, None))
        return await asyncio.shield(task)

    async def _look_up(self, key_id: str) -> ApiKey | None:
        async with self._db.connection() as conn:
            row = await api_keys.find(conn, key_id)
        self._rows.keep(key_id, row or _UNKNOWN)
        return row

    async def _touch(self, row: ApiKey) -> None:
        self._rows.keep(row.key_id, row.used_now())
        async with self._db.connection() as conn:
            await api_keys.touch(conn, row.key_id)


class _Unknown:
    """Remembered in the place of a key that is not there."""


_UNKNOWN = _Unknown()


def _digest(text: str, salt: bytes, pepper: str | None) -> bytes:
    return hmac.new(salt + (pepper or "").encode(), text.encode("utf-8", "replace"), hashlib.sha256).digest()
