"""What clients may know of an assistant's graph: its drawing and its schemas. Made on the graph loop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from langchain_core.runnables import RunnableConfig

from waystation.auth import Principal
from waystation.catalog import Graph, draw, schemas, subgraph_schemas
from waystation.errors import BadRequest, NotFound, WaystationError
from waystation.runs.graph_access import on_graph_loop
from waystation.runs.permission import visible_assistant
from waystation.services import GraphSide, Services
from waystation_db import assistants
from waystation_db.errors import DatabaseError

T = TypeVar("T")

log = logging.getLogger(__name__)


async def draw_graph(services: Services, caller: Principal, *, assistant_id: str, xray: bool | int) -> dict[str, Any]:
    """Nodes and edges. Raises NotFound."""

    async def drawn(graph: Graph, _assistant: assistants.AssistantGraph) -> dict[str, Any]:
        return dict(await draw(graph, xray=xray))

    return await with_graph(services, caller, assistant_id, drawn)


async def describe_graph(services: Services, caller: Principal, *, assistant_id: str) -> dict[str, Any]:
    """The graph's id and its schemas. Raises NotFound."""

    async def described(graph: Graph, assistant: assistants.AssistantGraph) -> dict[str, Any]:
        return {"graph_id": assistant.graph_id, **await schemas(graph)}

    return await with_graph(services, caller, assistant_id, described)


async def describe_subgraphs(
    services: Services, caller: Principal, *, assistant_id: str, namespace: str | None, recurse: bool
) -> dict[str, Any]:
    """Namespace → schemas of the subgraph there. Raises NotFound: no such assistant; an unknown namespace gives {}."""

    async def described(graph: Graph, _assistant: assistants.AssistantGraph) -> dict[str, Any]:
        return dict(await subgraph_schemas(graph, namespace=namespace, recurse=recurse))

    return await with_graph(services, caller, assistant_id, described)


async def with_graph(
    services: Services,
    caller: Principal,
    assistant_id: str,
    look: Callable[[Graph, assistants.AssistantGraph], Awaitable[T]],
) -> T:
    """Open an assistant's graph on the graph loop and look at it there. Raises NotFound, BadRequest."""
    visible = await visible_assistant(caller, "read", assistant_id)
    async with services.db.connection() as conn:
        assistant = await assistants.graph_of(conn, caller.tenant_id, assistant_id, visible=visible)
    if assistant is None:
        raise NotFound("Not Found")
    ids = {"graph_id": assistant.graph_id, "assistant_id": assistant_id, "langgraph_auth_user": caller.user}
    config = cast(  # stored as a client sent it, which is what RunnableConfig describes
        RunnableConfig, {**assistant.config, "configurable": {**assistant.context, **ids}}
    )

    async def there(side: GraphSide) -> T:
        try:
            async with side.catalog.open(
                assistant.graph_id,
                access="assistants.read",
                config=config,
                tenant_id=caller.tenant_id,
                context=assistant.context,
            ) as graph:
                return await look(graph, assistant)
        except (WaystationError, DatabaseError):
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the user's factory, which must not end this loop
            log.warning("A graph could not be opened", extra={"graph_id": assistant.graph_id}, exc_info=True)
            raise BadRequest(f"Graph {assistant.graph_id!r} cannot be opened: {type(error).__name__}") from None

    return await on_graph_loop(services, there)
