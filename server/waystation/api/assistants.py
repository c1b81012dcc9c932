"""Assistants: graphs with a configuration of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from waystation.api.dependencies import (
    AssistantId,
    CallerDep,
    JSONBytes,
    ServicesDep,
    json_response,
    no_content,
    paging_headers,
)
from waystation.api.routing import Router, errors
from waystation.errors import InvalidRequest
from waystation.runs import assistant_graphs, assistants
from waystation.runs.admission import resolve_assistant
from waystation.runs.assistant_bodies import (
    AssistantCount,
    AssistantCreate,
    AssistantObject,
    AssistantPatchBody,
    AssistantSchemas,
    AssistantSearch,
    AssistantVersion,
    GraphDrawing,
    GraphSchemas,
    LatestBody,
    SelectedAssistant,
    VersionsBody,
)

router = Router(tags=["Assistants"])

MAX_XRAY = 100
"""Subgraphs nested deeper than this are not drawn in place; no real graph is."""

Recurse = Annotated[str | None, Query(description="`true`: also subgraphs of subgraphs.")]


@router.post(
    "/assistants", response_model=AssistantObject, responses=errors(400, 404, 409), summary="Create an assistant"
)
async def create_assistant(body: AssistantCreate, services: ServicesDep, caller: CallerDep) -> Response:
    """A new assistant, version 1. With `if_exists: do_nothing` an existing one is returned unchanged."""
    return JSONBytes(await assistants.create_assistant(services, caller, body=body))


@router.post("/assistants/search", response_model=list[SelectedAssistant], summary="Search assistants")
async def search_assistants(body: AssistantSearch, services: ServicesDep, caller: CallerDep) -> Response:
    """A page of assistants, the newest first unless sorted. `X-Pagination-Next` is there while more follow."""
    page = await assistants.search_assistants(services, caller, body=body)
    headers = paging_headers(offset=body.offset, returned=len(page.items), more=page.has_more)
    return JSONBytes(page.body, headers=headers)


@router.post("/assistants/count", response_model=int, summary="Count assistants")
async def count_assistants(body: AssistantCount, services: ServicesDep, caller: CallerDep) -> Response:
    """How many assistants match."""
    return json_response(await assistants.count_assistants(services, caller, body=body))


@router.get(
    "/assistants/{assistant_id}", response_model=AssistantObject, responses=errors(404), summary="Get an assistant"
)
async def get_assistant(assistant_id: AssistantId, services: ServicesDep, caller: CallerDep) -> Response:
    """One assistant."""
    return JSONBytes(await assistants.get_assistant(services, caller, assistant_id=assistant_id))


@router.patch(
    "/assistants/{assistant_id}",
    response_model=AssistantObject,
    responses=errors(400, 404),
    summary="Change an assistant",
)
async def patch_assistant(
    assistant_id: AssistantId, body: AssistantPatchBody, services: ServicesDep, caller: CallerDep
) -> Response:
    """Merges metadata, replaces the other members given, and makes a new version, also when nothing differs."""
    return JSONBytes(await assistants.patch_assistant(services, caller, assistant_id=assistant_id, body=body))


@router.delete("/assistants/{assistant_id}", status_code=204, responses=errors(404), summary="Delete an assistant")
async def delete_assistant(
    assistant_id: AssistantId,
    services: ServicesDep,
    caller: CallerDep,
    delete_threads: Annotated[str | None, Query(description="`true`: also the threads that it ran on last.")] = None,
) -> Response:
    """Deletes an assistant with its versions."""
    await assistants.delete_assistant(
        services, caller, assistant_id=assistant_id, delete_threads=_is_true(delete_threads)
    )
    return no_content()


@router.get(
    "/assistants/{assistant_id}/graph",
    response_model=GraphDrawing,
    responses=errors(400, 404),
    summary="Draw the graph",
)
async def draw_graph(
    assistant_id: str,
    services: ServicesDep,
    caller: CallerDep,
    xray: Annotated[str | None, Query(description="`true`, or how deep subgraphs are drawn in place.")] = None,
) -> Response:
    """Nodes and edges. `assistant_id` may also be the name of a graph."""
    found = resolve_assistant(services, assistant_id)
    return json_response(
        await assistant_graphs.draw_graph(services, caller, assistant_id=found, xray=_parse_xray(xray))
    )


@router.get(
    "/assistants/{assistant_id}/subgraphs",
    response_model=dict[str, GraphSchemas],
    responses=errors(400, 404),
    summary="Schemas of the subgraphs",
)
async def list_subgraphs(
    assistant_id: AssistantId, services: ServicesDep, caller: CallerDep, recurse: Recurse = None
) -> Response:
    """Namespace to schemas, of the direct subgraphs or, with `recurse`, of all."""
    return json_response(
        await assistant_graphs.describe_subgraphs(
            services, caller, assistant_id=assistant_id, namespace=None, recurse=_is_true(recurse)
        )
    )


@router.get(
    "/assistants/{assistant_id}/subgraphs/{namespace}",
    response_model=dict[str, GraphSchemas],
    responses=errors(400, 404),
    summary="Schemas of the subgraphs in a namespace",
)
async def list_subgraphs_in(
    assistant_id: AssistantId, namespace: str, services: ServicesDep, caller: CallerDep, recurse: Recurse = None
) -> Response:
    """As above, only in this namespace; `{}` for an unknown one."""
    return json_response(
        await assistant_graphs.describe_subgraphs(
            services, caller, assistant_id=assistant_id, namespace=namespace, recurse=_is_true(recurse)
        )
    )


@router.get(
    "/assistants/{assistant_id}/schemas",
    response_model=AssistantSchemas,
    responses=errors(400, 404),
    summary="Schemas of the graph",
)
async def describe_graph(assistant_id: AssistantId, services: ServicesDep, caller: CallerDep) -> Response:
    """JSON Schemas of input, output, state, config and context; null for one that cannot be made."""
    return json_response(await assistant_graphs.describe_graph(services, caller, assistant_id=assistant_id))


@router.post(
    "/assistants/{assistant_id}/versions",
    response_model=list[AssistantVersion],
    responses=errors(404),
    summary="List versions",
)
async def list_versions(
    assistant_id: AssistantId, body: VersionsBody, services: ServicesDep, caller: CallerDep
) -> Response:
    """The versions of an assistant, the newest first."""
    return JSONBytes(await assistants.list_versions(services, caller, assistant_id=assistant_id, body=body))


@router.post(
    "/assistants/{assistant_id}/latest",
    response_model=AssistantObject,
    responses=errors(404),
    summary="Go back to a version",
)
async def set_latest(assistant_id: AssistantId, body: LatestBody, services: ServicesDep, caller: CallerDep) -> Response:
    """The assistant is again as it was in that version. A later change gets the number after the highest."""
    return JSONBytes(await assistants.set_latest(services, caller, assistant_id=assistant_id, version=body.version))


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() in ("true", "1", "yes")


def _parse_xray(value: str | None) -> bool | int:
    match value:
        case None | "" | "false" | "False":
            return False
        case "true" | "True":
            return True
        case _ if value.isdecimal() and value.isascii() and int(value[:6]) > 0:
            return min(int(value[:6]), MAX_XRAY)
        case _:
            raise InvalidRequest("Invalid xray value")
