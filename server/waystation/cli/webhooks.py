"""Webhooks from the command line: looks into the outbox of a database, and puts things back into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.terminal import say
from waystation.process import database_uri
from waystation_db import webhooks
from waystation_db.pool import Database
from waystation_db.webhooks import Conn, DeliveryStatus

REPLAYED_AT_ONCE = 1000


def list_all(config: Path | None, *, tenant: str, status: DeliveryStatus | None, limit: int) -> None:
    """Print the newest deliveries of a tenant, one a line.

    Raises:
        ConfigError: no DATABASE_URI. DatabaseUnavailable: Postgres does not answer.
    """

    async def look() -> list[bytes]:
        async with _connection(config) as conn:
            return await webhooks.list_page(conn, tenant, status=status, limit=limit)

    found = asyncio.run(look())
    for delivery in found:
        say(_line(orjson.loads(delivery)))
    if not found:
        say("There are none.")


def replay_all(config: Path | None, *, tenant: str, deliveries: Sequence[str] | None) -> None:
    """Send these again; None: whatever is spent.

    Raises:
        UsageError: one of them is no id, or is not there. ConfigError, DatabaseUnavailable: as `list_all`.
    """
    ids = None if deliveries is None else [_id(text) for text in deliveries]

    async def replay() -> int:
        async with _connection(config) as conn:
            return await _replay(conn, tenant, ids)

    say(f"To be sent again: {asyncio.run(replay())}")


async def _replay(conn: Conn, tenant: str, ids: Sequence[str] | None) -> int:
    count = 0
    if ids is None:
        while more := await webhooks.replay_spent(conn, tenant, limit=REPLAYED_AT_ONCE):
            count += more
        return count
    for delivery_id in ids:
        if await webhooks.replay(conn, tenant, delivery_id) is None:
            raise UsageError(f"there is no webhook {delivery_id} of tenant {tenant}")
        count += 1
    return count


@asynccontextmanager
async def _connection(config: Path | None) -> AsyncGenerator[Conn]:
    settings = settings_of(config)
    uri = database_uri(settings)
    async with Database(uri, max_size=1, name="waystation-cli", prepare=False) as db, db.connection() as conn:
        yield conn


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is no id of a webhook") from None


def _line(delivery: dict[str, Any]) -> str:
    answer = delivery["response_status"] or delivery["error"] or "-"
    what = f"{delivery['status']:<9}  {delivery['attempts']:>3} tries"
    return f"{delivery['delivery_id']}  {what}  {answer}  {delivery['run_id']}  {delivery['url']}"
