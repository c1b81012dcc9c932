"""What `waystation keys` does."""

from __future__ import annotations

import asyncio
import getpass
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation.auth.api_keys import key_id_of, make_key
from waystation.auth.principal import is_tenant_id
from waystation.auth.roles import Role
from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.terminal import result, say
from waystation.config import Settings
from waystation.process import database_uri
from waystation_db import api_keys, audit
from waystation_db.migrate import check
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditEntry

T = TypeVar("T")

_LIFE = re.compile(r"(\d{1,5})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_HEAD = ("id", "tenant", "identity", "roles", "state", "expires", "last used", "name")


def make(config: Path | None, *, identity: str, roles: Sequence[str], tenant: str, name: str, life: str | None) -> None:
    """Make a key and print it.

    Raises:
        UsageError: a tenant that cannot be called so, or no such time.
    """
    if not is_tenant_id(tenant):
        raise UsageError(f"--tenant {tenant!r}: expected letters, digits and . _ : @ | + = ~ - (at most 128)")
    if not identity or not identity.isprintable():
        raise UsageError("the identity is empty, or has characters that cannot be printed")
    settings = settings_of(config)
    made = make_key(
        tenant_id=tenant,
        identity=identity,
        roles=cast("list[Role]", list(dict.fromkeys(roles))),
        name=name,
        life=None if life is None else _span(life),
        pepper=settings.key_pepper,
    )
    row = made.row
    told = {"identity": identity, "roles": list(row.roles), "expires_in": life or "never", "name": name}

    async def create(conn: AsyncConnection[TupleRow]) -> None:
        async with conn.transaction():
            await api_keys.create(conn, row)
            await _tell(conn, tenant, "key.created", row.key_id, told)

    _run(settings, create)
    result(made.text)


def show(config: Path | None, *, tenant: str | None) -> None:
    """Print a table of the keys."""
    found = _run(settings_of(config), lambda conn: api_keys.list_keys(conn, tenant_id=tenant))
    rows = [
        (
            *(one.key_id, one.tenant_id, one.identity, ",".join(one.roles), one.state),
            *(_day(one.expires_at, "never"), _day(one.last_used_at, "never"), one.name),
        )
        for one in found
    ]
    widths = [max(len(row[i]) for row in (_HEAD, *rows)) for i in range(len(_HEAD))]
    for row in (_HEAD, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def end(config: Path | None, *, key: str, tenant: str | None) -> None:
    """Revoke a key.

    Raises:
        UsageError: there is none that could be.
    """
    key_id = key_id_of(key)

    async def revoke(conn: AsyncConnection[TupleRow]) -> bool:
        async with conn.transaction():
            found = await api_keys.find(conn, key_id)
            revoked = await api_keys.revoke(conn, key_id, tenant_id=tenant)
            if revoked and found is not None:
                await _tell(conn, found.tenant_id, "key.revoked", key_id, {"identity": found.identity})
        return revoked

    if not _run(settings_of(config), revoke):
        raise UsageError(f"there is no key {key_id!r} that is not revoked already")
    say(f"revoked  {key_id}")


def _run(settings: Settings, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
    uri = database_uri(settings)

    async def there() -> T:
        await check(uri)
        opening = Database(uri, max_size=2, name="waystation-keys", prepare=settings.prepare)
        async with opening as db, db.connection() as conn:
            return await work(conn)

    return asyncio.run(there())


async def _tell(
    conn: AsyncConnection[TupleRow], tenant: str, action: str, key_id: str, detail: Mapping[str, Any]
) -> None:
    """Write what an operator did to the audit log, with it or not at all; also where the server writes nothing."""
    entry = AuditEntry(tenant, action, user=operator(), resource=key_id, detail=detail)
    await audit.append(conn, tenant, [entry.as_json()])


def operator() -> str:
    """Who sits at the command line, as far as the machine knows."""
    try:
        return f"operator:{getpass.getuser()}"
    except (KeyError, OSError):
        return "operator"


def _span(text: str) -> timedelta:
    found = _LIFE.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(f"--expires-in {text!r}: expected a number and d, h or m, such as 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _day(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
