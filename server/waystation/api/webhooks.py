"""Webhooks that were sent or are to be: what no other LangGraph server shows."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, DeliveryId, JSONBytes, ServicesDep, paging_headers
from waystation.api.routing import Router, errors
from waystation.runs import webhook_deliveries
from waystation.runs.webhook_deliveries import WebhookDelivery

router = Router(tags=["Webhooks"])


def _canonical(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise PydanticCustomError("uuid", "must be a UUID") from None


QueryId = Annotated[str, AfterValidator(_canonical), WithJsonSchema({"type": "string", "format": "uuid"})]


@router.get("/webhooks/deliveries", response_model=list[WebhookDelivery], summary="List webhooks")
async def list_deliveries(
    services: ServicesDep,
    caller: CallerDep,
    status: Annotated[
        Literal["pending", "delivered", "spent"] | None, Query(description="`spent` ones were given up.")
    ] = None,
    thread_id: QueryId | None = None,
    run_id: QueryId | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """A page, the newest first. Delivered ones are kept a day, spent ones longer."""
    page = await webhook_deliveries.list_deliveries(
        services, caller, status=status, thread_id=thread_id, run_id=run_id, limit=limit, offset=offset
    )
    headers = paging_headers(offset=offset, returned=len(page.items), more=page.has_more)
    return JSONBytes(page.body, headers=headers)


@router.get(
    "/webhooks/deliveries/{delivery_id}", response_model=WebhookDelivery, responses=errors(404), summary="Get a webhook"
)
async def get_delivery(delivery_id: DeliveryId, services: ServicesDep, caller: CallerDep) -> Response:
    """What became of one webhook."""
    return JSONBytes(await webhook_deliveries.get_delivery(services, caller, delivery_id=delivery_id))


@router.post(
    "/webhooks/deliveries/{delivery_id}/replay",
    response_model=WebhookDelivery,
    responses=errors(404),
    summary="Send a webhook again",
)
async def replay_delivery(delivery_id: DeliveryId, services: ServicesDep, caller: CallerDep) -> Response:
    """Sends it again, with the same body and id, as if it had never been tried."""
    return JSONBytes(await webhook_deliveries.replay_delivery(services, caller, delivery_id=delivery_id))
