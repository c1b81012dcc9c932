"""The outbox of webhooks. A trigger fills it when a run with a webhook ends (migration 0021); workers empty it.

    pending ──claim──▶ pending, leased ──▶ delivered | pending again, later | spent ──replay──▶ pending

A claim counts the attempt, and what a sender says afterwards names it: one that was taken to be dead changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.cipher import Cipher
from waystation_db.cron_sealing import open_delivery
from waystation_db.errors import Undecipherable
from waystation_db.pool import cipher_of
from waystation_db.sql import load

_q = load("webhooks")

Conn = AsyncConnection[TupleRow]
DeliveryStatus = Literal["pending", "delivered", "spent"]

CHANNEL = "ws_webhook"
"""Hints that there is something to deliver."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that this process is to send. `payload` is JSON text; the times are the database's."""

    tenant_id: str
    delivery_id: str
    thread_id: str
    run_id: str
    url: str
    attempt: int
    tries: int
    payload: str
    sent_at: str
    timestamp_s: int


async def claim(
    conn: Conn, *, limit: int, lease_s: float, relative: bool, busy: Collection[str] = ()
) -> list[Delivery]:
    """Take up to `limit` deliveries of any tenant for `lease_s` seconds. Commits.

    `relative`: also those to a path of the server itself. `busy`: hosts (with port, as in the URL) not to send to now.
    """
    params = {"limit": limit, "lease_s": lease_s, "relative": relative, "busy": list(busy)}
    taken = [Delivery(*row) for row in await (await conn.execute(_q["claim_deliveries"], params)).fetchall()]
    if (cipher := cipher_of(conn)) is None:
        return taken
    opened = [await _opened(conn, cipher, delivery) for delivery in taken]
    return [delivery for delivery in opened if delivery is not None]


async def _opened(conn: Conn, cipher: Cipher, delivery: Delivery) -> Delivery | None:
    """The delivery with its body decrypted. One that does not open is spent: it can be replayed when its key is
    there."""
    try:
        payload = await open_delivery(cipher, delivery.tenant_id, delivery.thread_id, delivery.run_id, delivery.payload)
    except Undecipherable as error:
        await settle_failed(conn, delivery, delay_s=None, response_status=None, error=str(error))
        return None
    return replace(delivery, payload=payload)


async def settle_delivered(conn: Conn, delivery: Delivery, *, response_status: int) -> bool:
    """The receiver has taken it. False: the attempt is over. Commits."""
    params = _attempt(delivery) | {"response_status": response_status}
    return await (await conn.execute(_q["settle_delivered"], params)).fetchone() is not None


async def settle_failed(
    conn: Conn, delivery: Delivery, *, delay_s: float | None, response_status: int | None, error: str
) -> bool:
    """It was not taken: again after `delay_s` seconds; None gives it up. False: the attempt is over. Commits."""
    params = _attempt(delivery) | {"delay_s": delay_s, "response_status": response_status, "error": error}
    return await (await conn.execute(_q["settle_failed"], params)).fetchone() is not None


async def get(conn: Conn, tenant_id: str, delivery_id: str, *, visible: str = "{}") -> bytes | None:
    """A delivery as the API shows it; None if there is none."""
    params = {"tenant_id": tenant_id, "delivery_id": delivery_id, "visible": visible}
    return _json(await (await conn.execute(_q["get_delivery"], params)).fetchone())


async def list_page(
    conn: Conn,
    tenant_id: str,
    *,
    status: str | None = None,
    thread_id: str | None = None,
    run_id: str | None = None,
    limit: int = 10,
    offset: int = 0,
    visible: str = "{}",
) -> list[bytes]:
    """A page of deliveries, the newest first, each as JSON."""
    params = {
        "tenant_id": tenant_id,
        "status": status,
        "thread_id": thread_id,
        "run_id": run_id,
        "limit": limit,
        "offset": offset,
        "visible": visible,
    }
    rows = await (await conn.execute(_q["list_deliveries"], params)).fetchall()
    return [cast("str", row[0]).encode() for row in rows]


async def replay(conn: Conn, tenant_id: str, delivery_id: str, *, visible: str = "{}") -> bytes | None:
    """Send a delivery again, whatever became of it; None if there is none. Commits."""
    params = {"tenant_id": tenant_id, "delivery_id": delivery_id, "visible": visible}
    return _json(await (await conn.execute(_q["replay_delivery"], params)).fetchone())


async def replay_spent(conn: Conn, tenant_id: str, *, limit: int = 1000) -> int:
    """Send up to `limit` spent deliveries again; returns how many. Commits."""
    cur = await conn.execute(_q["replay_spent"], {"tenant_id": tenant_id, "limit": limit})
    return len(await cur.fetchall())


async def prune(conn: Conn, *, delivered_s: float, spent_s: float, limit: int) -> int:
    """Forget up to `limit` deliveries that ended so long ago; returns how many. Commits."""
    params = {"delivered_s": delivered_s, "spent_s": spent_s, "limit": limit}
    return len(await (await conn.execute(_q["prune_deliveries"], params)).fetchall())


def _attempt(delivery: Delivery) -> dict[str, Any]:
    return {
        "tenant_id": delivery.tenant_id,
        "delivery_id": delivery.delivery_id,
        "attempt": delivery.attempt,
    }


def _json(row: TupleRow | None) -> bytes | None:
    return None if row is None else cast("str", row[0]).encode()
