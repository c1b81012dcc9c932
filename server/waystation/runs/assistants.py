"""Use cases of assistants: make, find, change and version them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import orjson

from waystation.auth import Principal
from waystation.errors import BadRequest, Conflict, NotFound
from waystation.runs.assistant_bodies import (
    AssistantConfig,
    AssistantCount,
    AssistantCreate,
    AssistantPatchBody,
    AssistantSearch,
    VersionsBody,
)
from waystation.runs.permission import ask, count_of, member_of, visible_assistant, visible_thread
from waystation.runs.prune import prune_threads
from waystation.services import Services
from waystation.services.tenants import make_default_assistants
from waystation_db import assistants

DEFAULT_TENANT = "default"
DELETED_AT_ONCE = 100
"""Threads looked up at a time when an assistant is deleted with its threads."""

B = TypeVar("B", AssistantCreate, AssistantPatchBody)

_BOTH = (
    "Cannot specify both configurable and context. Prefer setting context alone: it replaces configurable since "
    "LangGraph 0.6."
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search: JSON objects, and whether more follow."""

    items: list[bytes]
    has_more: bool

    @property
    def body(self) -> bytes:
        return b"[" + b",".join(self.items) + b"]"


async def ensure_default_assistants(services: Services, tenant_id: str = DEFAULT_TENANT) -> None:
    """Make the assistant that each graph of the project has from the start, where it is missing."""
    await make_default_assistants(services.db, services.project, tenant_id)


async def create_assistant(services: Services, caller: Principal, *, body: AssistantCreate) -> bytes:
    """Make an assistant, or with `if_exists: do_nothing` return the one that has the id.

    Raises:
        NotFound: no such graph. Conflict: the id is taken. BadRequest: context and configurable are both given.
    """
    _require_graph(services, body.graph_id)
    assistant_id = body.assistant_id or str(uuid4())
    body, visible = await _permitted_change(caller, "create", assistant_id, body, if_exists=body.if_exists)
    config, context = mirrored(body.config, body.context)
    new = assistants.NewAssistant(
        assistant_id=assistant_id,
        graph_id=body.graph_id,
        name=body.name or "Untitled",
        description=body.description,
        config=config or _text({"configurable": body.context} if body.context else {}),
        context=context or "{}",
        metadata=_text(body.metadata or {}),
    )
    async with services.db.connection() as conn, conn.transaction():
        made = await assistants.create(conn, caller.tenant_id, new)
        if made is None and body.if_exists == "do_nothing":
            made = await assistants.get(conn, caller.tenant_id, new.assistant_id, visible=visible)
    if made is None:
        raise Conflict(f"Assistant {new.assistant_id} already exists")
    return made


async def get_assistant(services: Services, caller: Principal, *, assistant_id: str) -> bytes:
    """One assistant. Raises NotFound."""
    visible = await visible_assistant(caller, "read", assistant_id)
    async with services.db.connection() as conn:
        found = await assistants.get(conn, caller.tenant_id, assistant_id, visible=visible)
    if found is None:
        raise NotFound("Not Found")
    return found


async def patch_assistant(
    services: Services, caller: Principal, *, assistant_id: str, body: AssistantPatchBody
) -> bytes:
    """Change an assistant; every change is a version.

    Raises:
        NotFound: no such assistant or graph. BadRequest: context and configurable are both given.
    """
    if body.graph_id is not None:
        _require_graph(services, body.graph_id)
    body, visible = await _permitted_change(caller, "update", assistant_id, body)
    config, context = mirrored(body.config, body.context)
    change = assistants.AssistantPatch(
        graph_id=body.graph_id,
        name=body.name,
        description=body.description,
        config=config,
        context=context,
        metadata=None if body.metadata is None else _text(body.metadata),
    )
    async with services.db.connection() as conn, conn.transaction():
        changed = None
        if await assistants.lock(conn, caller.tenant_id, assistant_id, visible=visible):
            changed = await assistants.patch(conn, caller.tenant_id, assistant_id, change=change)
    if changed is None:
        raise NotFound(f"Assistant {assistant_id} not found")
    return changed


async def delete_assistant(services: Services, caller: Principal, *, assistant_id: str, delete_threads: bool) -> None:
    """Delete an assistant with its versions, and if wished the threads that it ran on last. Raises NotFound."""
    visible = await visible_assistant(caller, "delete", assistant_id)
    of_threads = await visible_thread(caller, "delete") if delete_threads else None
    async with services.db.connection() as conn:
        if not await assistants.delete(conn, caller.tenant_id, assistant_id, visible=visible):
            raise NotFound(f"Assistant with ID {assistant_id} not found")
    while delete_threads and await _delete_some_threads(services, caller, assistant_id, of_threads):
        pass


async def search_assistants(services: Services, caller: Principal, *, body: AssistantSearch) -> Page:
    """A page of assistants."""
    body, visible = await _permitted_search(caller, body)
    async with services.db.connection() as conn:
        found = await assistants.search(
            conn,
            caller.tenant_id,
            where=_filter(body),
            limit=body.limit + 1,
            offset=body.offset,
            sort_by=body.sort_by,
            ascending=body.sort_order == "asc",
            fields=body.select or None,
            visible=visible,
        )
    return Page(found[: body.limit], has_more=len(found) > body.limit)


async def count_assistants(services: Services, caller: Principal, *, body: AssistantCount) -> int:
    """How many assistants match."""
    asked, visible = await _permitted_search(
        caller, AssistantSearch.model_construct(metadata=body.metadata, graph_id=body.graph_id, name=body.name)
    )
    async with services.db.connection() as conn:
        return await assistants.count(conn, caller.tenant_id, where=_filter(asked), visible=visible)


async def list_versions(services: Services, caller: Principal, *, assistant_id: str, body: VersionsBody) -> bytes:
    """A page of versions, the newest first. Raises NotFound."""
    visible = await visible_assistant(caller, "read", assistant_id)
    async with services.db.connection() as conn:
        found = await assistants.versions(
            conn,
            caller.tenant_id,
            assistant_id,
            metadata=None if body.metadata is None else _text(body.metadata),
            limit=body.limit,
            offset=body.offset,
            visible=visible,
        )
    if found is None:
        raise NotFound(f"Assistant {assistant_id} not found")
    return found


async def set_latest(services: Services, caller: Principal, *, assistant_id: str, version: int) -> bytes:
    """Show a version again. Raises NotFound: no such assistant or version."""
    visible = await visible_assistant(caller, "update", assistant_id, version=version)
    async with services.db.connection() as conn, conn.transaction():
        changed = await assistants.set_latest(conn, caller.tenant_id, assistant_id, version=version, visible=visible)
        if changed:
            return changed
        if await assistants.get(conn, caller.tenant_id, assistant_id, visible=visible) is None:
            raise NotFound(f"Assistant {assistant_id} not found")
    raise NotFound(f"Version {version} not found for assistant {assistant_id}")


def mirrored(config: AssistantConfig | None, context: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """`config` and `context` as JSON text. One is enough: `config.configurable` and `context` have the same content.

    Without a `config` the text is None, so that a patch keeps what else stands in the stored one.
    """
    given: dict[str, Any] | None = None if config is None else config.model_dump(exclude_unset=True)
    configurable = cast("dict[str, Any] | None", given and given.get("configurable"))
    if context and configurable:
        raise BadRequest(_BOTH)
    if context is None:
        return (None, None) if given is None else (_text(given), _text(configurable or {}))
    if given is None:
        return None, _text(context)
    return _text({**given, "configurable": context} if context else given), _text(context or configurable or {})


async def _permitted_change(
    caller: Principal, action: str, assistant_id: str, body: B, **members: Any
) -> tuple[B, str | None]:
    """What the rules leave of a new assistant, or of a change of one."""
    if caller.rules is None:
        return body, None
    config = None if body.config is None else body.config.model_dump(exclude_unset=True)
    value: dict[str, Any] = {
        "assistant_id": UUID(assistant_id),
        "graph_id": body.graph_id,
        "config": dict(config or {}),
        "context": None if body.context is None else dict(body.context),
        "metadata": dict(body.metadata or {}),
        "name": body.name,
        **members,
    }
    visible = await ask(caller, "assistants", action, value)
    changed: dict[str, Any] = {"metadata": member_of(value, "metadata"), "name": value.get("name")}
    left = member_of(value, "config")
    if left != (config or {}):
        changed["config"] = AssistantConfig.model_construct(None, **left)
    if value.get("context") != body.context:
        changed["context"] = member_of(value, "context")
    return body.model_copy(update=changed), visible


async def _permitted_search(caller: Principal, body: AssistantSearch) -> tuple[AssistantSearch, str | None]:
    if caller.rules is None:
        return body, None
    value: dict[str, Any] = {
        "graph_id": body.graph_id,
        "metadata": dict(body.metadata or {}),
        "limit": body.limit,
        "offset": body.offset,
    }
    visible = await ask(caller, "assistants", "search", value)
    changed = {
        "graph_id": value.get("graph_id"),
        "metadata": member_of(value, "metadata") or None,
        "limit": count_of(value, "limit"),
        "offset": count_of(value, "offset"),
    }
    return body.model_copy(update=changed), visible


async def _delete_some_threads(services: Services, caller: Principal, assistant_id: str, visible: str | None) -> bool:
    async with services.db.connection() as conn:
        ids = await assistants.threads_of(conn, caller.tenant_id, assistant_id, limit=DELETED_AT_ONCE, visible=visible)
    return await prune_threads(services, caller, thread_ids=ids, strategy="delete") > 0


def _require_graph(services: Services, graph_id: str) -> None:
    if graph_id not in services.project.graphs:
        known = sorted(services.project.graphs)
        raise NotFound(f"Graph '{graph_id}' not found. Expected one of: {known}")


def _filter(body: AssistantCount) -> assistants.AssistantFilter:
    metadata = None if body.metadata is None else _text(body.metadata)
    return assistants.AssistantFilter(metadata=metadata, graph_id=body.graph_id, name=body.name)


def _text(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode()
