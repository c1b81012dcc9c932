"""Changing a thread's state by hand: one update, or the replay of a whole history.

```
 on the graph loop, in one transaction:
 hold the thread's row, at rest ─▶ write checkpoints, read the new state ─▶ save the new face
```

The row is held so that no run can be created in between; `on_graph_loop` bounds for how long. One connection does it
all: a second one might never come, when everybody who holds one waits for this row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateUpdate

from waystation.auth import Principal
from waystation.catalog import Graph
from waystation.errors import BadRequest, Conflict, NotFound
from waystation.runs.commands import to_command
from waystation.runs.graph_access import no_graph, on_graph_loop, open_graph, state_config, thread_not_found
from waystation.runs.permission import visible_thread
from waystation.runs.requests import CommandBody
from waystation.runs.snapshot import checkpoint_of, latest_state, thread_face
from waystation.services import GraphSide, Services
from waystation_db import runs, threads
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.json import dumps
from waystation_db.rows import RunKey
from waystation_db.threads import Conn, LockedThread

MAX_SHOWN_RUNS = 10


@dataclass(frozen=True, slots=True)
class StateChange:
    """One update of a superstep, as the node `as_node`; `command` wins over `values`."""

    values: Any = None
    as_node: str | None = None
    command: CommandBody | None = None


async def update_state(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    values: Any,
    as_node: str | None = None,
    checkpoint: Mapping[str, Any] | None = None,
) -> bytes:
    """Write a checkpoint with `values` applied, from the latest state or from `checkpoint`. JSON naming the new one.

    Raises:
        NotFound: no such thread, checkpoint or graph.
        Conflict: a run is pending or running, or the stored state is damaged.
        BadRequest: the thread has no graph, or the graph does not take the update.
        Unavailable: the graph took too long.
    """

    async def change(saver: PostgresCheckpointer, graph: Graph) -> RunnableConfig:
        config = state_config(thread_id, checkpoint)
        if checkpoint:
            await _check_fork(saver, graph, config, checkpoint)
        return await graph.aupdate_state(config, values, as_node)

    config, _ = await _change(services, caller, thread_id, change)
    made = checkpoint_of(config) or {}
    return dumps({"checkpoint": made, "configurable": made, "checkpoint_id": made.get("checkpoint_id")})


async def apply_supersteps(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    supersteps: Sequence[Sequence[StateChange]],
) -> bytes:
    """Replay a history, one checkpoint per superstep. JSON of the thread with its new face.

    No superstep may be empty. Raises as `update_state`.
    """
    steps = [
        [StateUpdate(to_command(c.command) if c.command else c.values, c.as_node) for c in step]  # pyright: ignore[reportArgumentType]  # the library takes commands here too
        for step in supersteps
    ]

    async def change(_: PostgresCheckpointer, graph: Graph) -> RunnableConfig:
        return await graph.abulk_update_state(state_config(thread_id), steps)

    _, thread = await _change(services, caller, thread_id, change)
    return thread


async def _change(
    services: Services,
    caller: Principal,
    thread_id: str,
    change: Callable[[PostgresCheckpointer, Graph], Awaitable[RunnableConfig]],
) -> tuple[RunnableConfig, bytes]:
    visible = await visible_thread(caller, "update", thread_id)

    async def work(side: GraphSide) -> tuple[RunnableConfig, bytes | None]:
        async with side.updates, side.db.connection() as conn, conn.transaction():
            locked = await _lock(conn, caller, thread_id, visible)
            saver = side.saver.for_tenant(caller.tenant_id).within(conn)
            opening = open_graph(side, caller, thread_id, graph=locked.graph, access="threads.update", saver=saver)
            async with opening as graph:
                made = await change(saver, graph)
                face = thread_face(await latest_state(graph, state_config(thread_id)))
            return made, await threads.save_face(
                conn,
                caller.tenant_id,
                thread_id,
                values=face.values,
                interrupts=face.interrupts,
                resting_status=face.resting_status,
            )

    config, thread = await on_graph_loop(services, work)
    services.log.begin(RunKey(caller.tenant_id, thread_id, ""))
    return config, thread or b"null"


async def _check_fork(
    saver: PostgresCheckpointer, graph: Graph, config: RunnableConfig, checkpoint: Mapping[str, Any]
) -> None:
    """The library would begin a new state at a checkpoint that it does not find."""
    namespace = checkpoint.get("checkpoint_ns") or ""
    if namespace:
        # "child:task-id|grandchild:task-id", with numbers in between for repeated calls.
        names = [part.split(":")[0] for part in namespace.split("|")]
        path = "|".join(name for name in names if not name.isdigit())
        if not [True async for _ in graph.aget_subgraphs(namespace=path, recurse=True)]:  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # the library leaves a type parameter open
            raise BadRequest(f"checkpoint.checkpoint_ns: the graph has no subgraph {path}")
    if checkpoint.get("checkpoint_id") and await saver.aget_tuple(config) is None:
        raise NotFound(f"Checkpoint {checkpoint['checkpoint_id']} not found")


async def _lock(conn: Conn, caller: Principal, thread_id: str, visible: str | None) -> LockedThread:
    locked = await threads.lock_for_state(conn, caller.tenant_id, thread_id, visible=visible)
    if locked is None:
        raise thread_not_found(thread_id)
    if locked.active_runs:
        active = await runs.active_runs(conn, caller.tenant_id, thread_id)
        named = ", ".join(run_id for run_id, _ in active[:MAX_SHOWN_RUNS])
        raise Conflict(f"Thread {thread_id} has in-flight runs: {named}")
    if locked.graph.graph_id is None:
        raise BadRequest(no_graph(thread_id))
    return locked
