"""What became of webhooks: finding them and sending them again. Who may see a thread may see what was told of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from waystation.auth import Principal
from waystation.errors import NotFound
from waystation.runs.assistants import Page
from waystation.runs.requests import UuidText
from waystation.services import Services
from waystation_db import webhooks
from waystation_db.webhooks import DeliveryStatus


class WebhookDelivery(BaseModel):
    """A webhook that was, or is to be, sent. `spent`: it was given up. `next_attempt_at` is there while it waits."""

    delivery_id: UuidText
    thread_id: UuidText
    run_id: UuidText
    url: str
    status: Literal["pending", "delivered", "spent"]
    attempts: int
    next_attempt_at: str | None
    response_status: int | None
    error: str | None
    created_at: str
    updated_at: str
    ended_at: str | None


async def list_deliveries(
    services: Services,
    caller: Principal,
    *,
    status: DeliveryStatus | None,
    thread_id: str | None,
    run_id: str | None,
    limit: int,
    offset: int,
) -> Page:
    """A page of deliveries, the newest first."""
    visible = await caller.may("threads", "search", {"metadata": {}, "limit": limit, "offset": offset})
    async with services.db.connection() as conn:
        found = await webhooks.list_page(
            conn,
            caller.tenant_id,
            status=status,
            thread_id=thread_id,
            run_id=run_id,
            limit=limit + 1,
            offset=offset,
            visible=visible,
        )
    return Page(found[:limit], has_more=len(found) > limit)


async def get_delivery(services: Services, caller: Principal, *, delivery_id: str) -> bytes:
    """One delivery. Raises NotFound."""
    visible = await caller.may("threads", "search", {"metadata": {}})
    async with services.db.connection() as conn:
        found = await webhooks.get(conn, caller.tenant_id, delivery_id, visible=visible)
    if found is None:
        raise NotFound("Webhook delivery not found")
    return found


async def replay_delivery(services: Services, caller: Principal, *, delivery_id: str) -> bytes:
    """Send a delivery again, whatever became of it. Raises NotFound."""
    visible = await caller.may("threads", "update", {"metadata": {}})
    async with services.db.connection() as conn:
        found = await webhooks.replay(conn, caller.tenant_id, delivery_id, visible=visible)
    if found is None:
        raise NotFound("Webhook delivery not found")
    return found
