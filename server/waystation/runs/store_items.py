"""Items of the long-term store, as clients see them. It is the store that graphs have, seen by the caller's tenant.

A rule may rewrite the namespace, or anything else in the value; what it leaves is checked like what a client sends.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from langgraph.store.base import NOT_PROVIDED, InvalidNamespaceError, Item, NotProvided

from waystation.auth import ANYTHING, Principal
from waystation.errors import BadRequest, Forbidden, InvalidRequest
from waystation.runs.permission import count_of, member_of, unusable
from waystation.services import Services
from waystation_db.json import dumps
from waystation_db.store import PostgresStore
from waystation_db.store_names import RESERVED_ROOT
from waystation_db.store_vectors import BadEmbedding

Index = Literal[False] | list[str] | None

MAX_LABEL_SHOWN = 100


class InvalidLabel(InvalidRequest):
    """A label of a namespace is empty or holds a period."""

    def __init__(self, label: str) -> None:
        shown = label if len(label) <= MAX_LABEL_SHOWN else f"{label[:MAX_LABEL_SHOWN]}…"
        super().__init__(f"Namespace label '{shown}' must be a non-empty string without periods")


async def put_item(
    services: Services,
    caller: Principal,
    *,
    namespace: Sequence[str],
    key: str,
    item: dict[str, Any],
    index: Index = None,
    ttl: float | None = None,
    default_ttl: bool = True,
) -> None:
    """Create or replace an item. `ttl` in minutes, None for ever; `default_ttl`: as configured instead.

    Raises:
        BadRequest: an empty namespace, a reserved one, or the embedding function failed.
        InvalidRequest: something cannot be stored. Forbidden.
    """
    value = {"namespace": tuple(namespace), "key": key, "value": item, "index": index}
    await _ask(caller, "put", value)
    labels = _labels(value)
    if not labels:
        raise BadRequest("Namespace cannot be empty.")
    if labels[0] == RESERVED_ROOT:
        raise BadRequest(f'Root label for namespace cannot be "{RESERVED_ROOT}". Got: {labels}')
    lasts: float | NotProvided | None = NOT_PROVIDED if default_ttl else ttl
    with _refused():
        await _store(services, caller).aput(
            labels, _text_of(value, "key"), member_of(value, "value"), index=_index_of(value), ttl=lasts
        )


async def get_item(
    services: Services, caller: Principal, *, namespace: Sequence[str], key: str, refresh_ttl: bool | None = None
) -> bytes:
    """An item as JSON, `null` where there is none. Raises InvalidRequest, Forbidden."""
    value = {"namespace": tuple(namespace), "key": key}
    await _ask(caller, "get", value)
    item = await _store(services, caller).aget(_labels(value), _text_of(value, "key"), refresh_ttl=refresh_ttl)
    return b"null" if item is None else dumps(_shown(item))


async def delete_item(services: Services, caller: Principal, *, namespace: Sequence[str], key: str) -> None:
    """Delete an item, if there is one. Raises InvalidRequest, Forbidden."""
    value = {"namespace": tuple(namespace), "key": key}
    await _ask(caller, "delete", value)
    await _store(services, caller).adelete(_labels(value), _text_of(value, "key"))


async def search_items(
    services: Services,
    caller: Principal,
    *,
    namespace: Sequence[str],
    wanted: Mapping[str, Any] | None,
    limit: int,
    offset: int,
    query: str | None,
    refresh_ttl: bool | None = None,
) -> bytes:
    """A page of items as JSON.

    Raises:
        InvalidRequest: the filter has no meaning. BadRequest: the embedding function failed. Forbidden.
    """
    value = {"namespace": tuple(namespace), "filter": wanted, "limit": limit, "offset": offset, "query": query}
    await _ask(caller, "search", value)
    with _refused():
        found = await _store(services, caller).asearch(
            _labels(value),
            filter=member_of(value, "filter"),
            limit=count_of(value, "limit"),
            offset=_offset_of(value),
            query=_text_of(value, "query") if value["query"] else None,
            refresh_ttl=refresh_ttl,
        )
    return dumps({"items": [{**_shown(item), "score": item.score} for item in found]})


async def list_namespaces(
    services: Services,
    caller: Principal,
    *,
    prefix: Sequence[str] | None,
    suffix: Sequence[str] | None,
    max_depth: int | None,
    limit: int,
    offset: int,
) -> bytes:
    """A page of namespaces as JSON. Raises InvalidRequest, Forbidden."""
    value: dict[str, Any] = {
        "namespace": None if prefix is None else tuple(prefix),
        "suffix": None if suffix is None else tuple(suffix),
        "max_depth": max_depth,
        "limit": limit,
        "offset": offset,
    }
    await _ask(caller, "list_namespaces", value)
    found = await _store(services, caller).alist_namespaces(
        prefix=_labels(value),
        suffix=_labels(value, "suffix"),
        max_depth=None if value["max_depth"] is None else count_of(value, "max_depth"),
        limit=count_of(value, "limit"),
        offset=_offset_of(value),
    )
    return dumps({"namespaces": found})


def _shown(item: Item) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "key": item.key,
        "value": item.value,
        "created_at": item.created_at.isoformat(timespec="microseconds"),
        "updated_at": item.updated_at.isoformat(timespec="microseconds"),
    }


def _store(services: Services, caller: Principal) -> PostgresStore:
    return services.store.of(caller.tenant_id)


async def _ask(caller: Principal, action: str, value: dict[str, Any]) -> None:
    """Ask the rules, which see a namespace as the SDK documents it.

    Raises:
        Forbidden: they say so; or they narrow by metadata, which items do not have: nobody may see more for that.
    """
    if await caller.may("store", action, value) != ANYTHING:
        raise Forbidden('Items of the store have no metadata to filter by; a rule may rewrite value["namespace"]')


def _labels(value: Mapping[str, Any], name: str = "namespace") -> tuple[str, ...]:
    labels = value.get(name)
    if labels is None:
        return ()
    if not isinstance(labels, list | tuple):
        raise unusable(name, labels)
    for label in cast("Sequence[object]", labels):
        if not isinstance(label, str):
            raise unusable(name, label)
        if not label or "." in label:
            raise InvalidLabel(label)
    return tuple(cast("Sequence[str]", labels))


def _text_of(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise unusable(name, found)
    return found


def _offset_of(value: Mapping[str, Any]) -> int:
    found = value.get("offset")
    if type(found) is not int or not 0 <= found < 2**63:
        raise unusable("offset", found)
    return found


def _index_of(value: Mapping[str, Any]) -> Index:
    found = value.get("index")
    if found is None or found is False:
        return found
    if not isinstance(found, list):
        raise unusable("index", found)
    return [str(path) for path in cast("list[object]", found)]


@contextmanager
def _refused() -> Generator[None]:
    """What the store says of a request that makes no sense."""
    try:
        yield
    except BadEmbedding as error:
        raise BadRequest(str(error)) from None
    except InvalidNamespaceError as error:
        raise InvalidRequest(str(error)) from None
    except ValueError as error:
        raise InvalidRequest(str(error)[:500]) from None
