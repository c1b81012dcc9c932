"""A thread's graph for reading and changing its state: opened on the graph loop, at arm's length.

The graph is user code: reducers, channel types, factories. What it raises becomes a 4xx that names the class and not
the text; what the library says about a wrong request is passed on.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.errors import EmptyChannelError, EmptyInputError, InvalidUpdateError
from langgraph_sdk.runtime import AccessContext

from waystation.auth import Principal
from waystation.catalog import Graph
from waystation.errors import BadRequest, Conflict, NotFound, Unavailable, WaystationError
from waystation.services import GraphSide, Services
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.errors import CorruptCheckpoint, DatabaseError
from waystation_db.threads import ThreadGraph

T = TypeVar("T")

ON_GRAPH_LOOP_S = 30.0
"""How long a reading or an update may take; then the client is told to come back, and a thread's row is let go."""

_log = logging.getLogger(__name__)


async def on_graph_loop(services: Services, work: Callable[[GraphSide], Awaitable[T]]) -> T:
    """Run `work` on the graph loop.

    Raises:
        Unavailable: it took too long; it was cancelled there.
    """
    try:
        async with asyncio.timeout(ON_GRAPH_LOOP_S):
            return await services.graphs.call(work)
    except TimeoutError:
        raise Unavailable(
            f"The graph did not answer within {ON_GRAPH_LOOP_S:g} s", headers={"Retry-After": "5"}
        ) from None


@asynccontextmanager
async def open_graph(
    side: GraphSide,
    caller: Principal,
    thread_id: str,
    *,
    graph: ThreadGraph,
    access: AccessContext,
    saver: PostgresCheckpointer | None = None,
) -> AsyncGenerator[Graph]:
    """The thread's graph with the checkpointer compiled in, as reading a subgraph's namespace needs it. `saver` takes
    the place of the process's.

    Raises:
        BadRequest: the thread has no graph yet, or the graph's own code failed, in here or in the block.
        NotFound: this server does not have the graph.
        Conflict: the stored state is damaged.
    """
    if graph.graph_id is None:
        raise BadRequest(no_graph(thread_id))
    ids = {"thread_id": thread_id, "graph_id": graph.graph_id, "langgraph_auth_user": caller.user}
    configurable = {**graph.configurable, **ids}
    config = cast("RunnableConfig", {"configurable": configurable})
    with _at_arms_length(thread_id, graph.graph_id):
        async with side.catalog.open(
            graph.graph_id, access=access, config=config, tenant_id=caller.tenant_id
        ) as opened:
            side.saver.allow_types_of(opened)
            own = copy.copy(opened)
            own.checkpointer = saver or side.saver.for_tenant(caller.tenant_id)
            yield own


def state_config(thread_id: str, checkpoint: Mapping[str, Any] | None = None) -> RunnableConfig:
    """The config that names a thread's latest state, or the checkpoint and namespace in `checkpoint`."""
    return {"configurable": {**(checkpoint or {}), "thread_id": thread_id}}


def thread_not_found(thread_id: str) -> NotFound:
    """What every operation on an unknown thread answers."""
    return NotFound(f"Thread with ID {thread_id} not found")


def no_graph(thread_id: str) -> str:
    """Said where a thread's graph is needed and nobody named one."""
    return (
        f"Thread '{thread_id}' has no assigned graph ID. This usually occurs when no runs have been made on this "
        "particular thread. This operation requires a graph ID. Please ensure a run has been made for the thread or "
        "manually update the thread metadata (by setting the 'graph_id' field) before running this operation."
    )


@contextmanager
def _at_arms_length(thread_id: str, graph_id: str) -> Generator[None]:
    try:
        yield
    except CorruptCheckpoint:
        raise Conflict(f"The state of thread {thread_id} is damaged and cannot be read") from None
    except (WaystationError, DatabaseError, psycopg.Error):
        raise
    except (InvalidUpdateError, EmptyInputError, EmptyChannelError) as error:
        raise BadRequest(str(error)) from None
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the user's code, which must not end this loop either
        _log.warning("graph failed on a state request", extra={"graph_id": graph_id}, exc_info=True)
        raise BadRequest(f"Graph {graph_id!r} failed on this state: {type(error).__name__}") from None
