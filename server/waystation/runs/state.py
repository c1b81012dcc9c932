"""Reading a thread's state: its latest, one at a checkpoint, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waystation.auth import Principal
from waystation.runs.graph_access import on_graph_loop, open_graph, state_config, thread_not_found
from waystation.runs.permission import visible_thread
from waystation.runs.snapshot import empty_state, state_object
from waystation.services import GraphSide, Services
from waystation_db import threads
from waystation_db.json import dumps
from waystation_db.threads import ThreadGraph

MAX_HISTORY = 1000
"""States in one answer, however many are asked for."""


async def get_state(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    checkpoint: Mapping[str, Any] | None = None,
    subgraphs: bool = False,
) -> bytes:
    """The state as JSON: the latest, or the one at `checkpoint`. An unknown checkpoint gives an empty state.

    Raises:
        NotFound: no such thread, or its graph is not on this server.
        BadRequest, Conflict, Unavailable: as `open_graph` and `on_graph_loop`.
    """
    graph = await _graph(services, caller, thread_id)
    if graph.graph_id is None:
        return dumps(_nothing(thread_id, checkpoint))

    async def read(side: GraphSide) -> bytes:
        async with open_graph(side, caller, thread_id, graph=graph, access="threads.read") as opened:
            return dumps(
                state_object(await opened.aget_state(state_config(thread_id, checkpoint), subgraphs=subgraphs))
            )

    return await on_graph_loop(services, read)


async def get_history(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    limit: int,
    before: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
) -> bytes:
    """States as a JSON list, newest first; `before` is a checkpoint's id, `metadata` must be contained in theirs.

    Raises:
        As `get_state`.
    """
    graph = await _graph(services, caller, thread_id)
    if graph.graph_id is None or limit < 1:
        return b"[]"

    async def read(side: GraphSide) -> bytes:
        async with open_graph(side, caller, thread_id, graph=graph, access="threads.read") as opened:
            found = opened.aget_state_history(
                state_config(thread_id, checkpoint),
                filter=dict(metadata) if metadata else None,
                before={"configurable": {"checkpoint_id": before}} if before else None,
                limit=min(limit, MAX_HISTORY),
            )
            return b"[" + b",".join([dumps(state_object(snapshot)) async for snapshot in found]) + b"]"

    return await on_graph_loop(services, read)


async def _graph(services: Services, caller: Principal, thread_id: str) -> ThreadGraph:
    visible = await visible_thread(caller, "read", thread_id)
    async with services.db.connection() as conn:
        graph = await threads.graph_of(conn, caller.tenant_id, thread_id, visible=visible)
    if graph is None:
        raise thread_not_found(thread_id)
    return graph


def _nothing(thread_id: str, checkpoint: Mapping[str, Any] | None) -> dict[str, Any]:
    """The empty state of a thread that no graph knows; like any unknown checkpoint, one that was named is echoed."""
    state = empty_state()
    if checkpoint and checkpoint.get("checkpoint_id"):
        state["checkpoint"] = {**checkpoint, "thread_id": thread_id}
        state["checkpoint_id"] = checkpoint["checkpoint_id"]
    return state
