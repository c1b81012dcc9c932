"""The store: put, get, delete and find items, list namespaces."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from waystation.api.bodies_store import (
    FoundItems,
    ItemDelete,
    ItemObject,
    ItemPut,
    ItemSearch,
    NamespaceList,
    Namespaces,
)
from waystation.api.dependencies import CallerDep, JSONBytes, ServicesDep, json_response, no_content
from waystation.api.limits import without_nul
from waystation.api.routing import ErrorDetail, Router, errors
from waystation.runs import store_items
from waystation.runs.store_items import InvalidLabel

router = Router(tags=["Store"])

_WRONG: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorDetail | str, "description": "Invalid request; of a namespace's label the bare text"}
}
_ITEM: dict[int | str, dict[str, Any]] = {200: {"model": ItemObject | None, "description": "Null: there is none."}}


@router.put("/store/items", status_code=204, summary="Put an item", responses={**_WRONG, **errors(400, 503)})
async def put_item(body: ItemPut, services: ServicesDep, caller: CallerDep) -> Response:
    """Creates the item, or replaces it wholly."""
    try:
        await store_items.put_item(
            services,
            caller,
            namespace=body.namespace,
            key=body.key,
            item=body.value,
            index=body.index,
            ttl=body.ttl,
            default_ttl="ttl" not in body.model_fields_set,
        )
    except InvalidLabel as wrong:
        return _label(wrong)
    return no_content()


@router.get("/store/items", summary="Get an item", responses={**_ITEM, **_WRONG, **errors(400)})
async def get_item(
    services: ServicesDep,
    caller: CallerDep,
    namespace: Annotated[str, Query(description="Its labels, joined by periods.")] = "",
    key: Annotated[str | None, Query(description="Required.")] = None,
    refresh_ttl: Annotated[bool | None, Query(description="Whether it lives on; as configured if left out.")] = None,
) -> Response:
    """The item, or null."""
    if key is None:
        missing = "Key is required"
        return json_response({"error": missing, "detail": missing, "code": "bad_request"}, status_code=400)
    try:
        item = await store_items.get_item(
            services,
            caller,
            namespace=without_nul(namespace).split("."),
            key=without_nul(key),
            refresh_ttl=refresh_ttl,
        )
    except InvalidLabel as wrong:
        return _label(wrong)
    return JSONBytes(item)


@router.delete("/store/items", status_code=204, summary="Delete an item", responses=_WRONG)
async def delete_item(body: ItemDelete, services: ServicesDep, caller: CallerDep) -> Response:
    """Also where there is none."""
    try:
        await store_items.delete_item(services, caller, namespace=body.namespace, key=body.key)
    except InvalidLabel as wrong:
        return _label(wrong)
    return no_content()


@router.post(
    "/store/items/search", summary="Search items", responses={200: {"model": FoundItems}, **_WRONG, **errors(400, 503)}
)
async def search_items(body: ItemSearch, services: ServicesDep, caller: CallerDep) -> Response:
    """The last changed first; with a `query` the nearest, and then those that are not indexed."""
    try:
        found = await store_items.search_items(
            services,
            caller,
            namespace=body.namespace_prefix or [],
            wanted=body.filter,
            limit=body.limit,
            offset=body.offset,
            query=body.query,
            refresh_ttl=body.refresh_ttl,
        )
    except InvalidLabel as wrong:
        return _label(wrong)
    return JSONBytes(found)


@router.post("/store/namespaces", summary="List namespaces", responses={200: {"model": Namespaces}, **_WRONG})
async def list_namespaces(body: NamespaceList, services: ServicesDep, caller: CallerDep) -> Response:
    """Namespaces that hold items, sorted."""
    try:
        found = await store_items.list_namespaces(
            services,
            caller,
            prefix=body.prefix,
            suffix=body.suffix,
            max_depth=body.max_depth,
            limit=body.limit,
            offset=body.offset,
        )
    except InvalidLabel as wrong:
        return _label(wrong)
    return JSONBytes(found)


def _label(wrong: InvalidLabel) -> Response:
    """The protocol has a bare text here, and clients may compare it."""
    return json_response(wrong.message, status_code=wrong.status)
