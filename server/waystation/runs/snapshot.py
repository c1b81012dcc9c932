"""The face of a graph's state: LangGraph's `StateSnapshot` as thread objects and thread states show it.

Pure functions. The worker and the state updates both ask `thread_face` what the thread's row shows from now on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from waystation_db.json import dumps
from waystation_db.rows import RestingStatus

AnyGraph = Pregel[Any, Any, Any, Any]

_CHECKPOINT_KEYS = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")


@dataclass(frozen=True, slots=True)
class ThreadFace:
    """What a thread's row shows of its state, as JSON. `values` is None as long as there is no checkpoint."""

    values: bytes | None
    interrupts: bytes
    resting_status: RestingStatus
    next: tuple[str, ...]


async def latest_state(graph: AnyGraph, config: RunnableConfig) -> StateSnapshot:
    """A graph's latest state with that of its subgraphs, but not of one that runs elsewhere (`RemoteGraph`): its own
    server keeps that, and asking there could take any time."""
    subgraphs: Iterator[tuple[str, object]] = cast("Any", graph).get_subgraphs(recurse=True)
    is_here = all(isinstance(subgraph, Pregel) for _, subgraph in subgraphs)
    return await graph.aget_state(config, subgraphs=is_here)


def thread_face(snapshot: StateSnapshot) -> ThreadFace:
    """The face of the root graph's latest state.

    Take the snapshot with `latest_state`: an interrupt inside a subgraph is then filed under the innermost task's id.
    A thread whose run raised is `error` whatever this says; that is the worker's to know.
    """
    return ThreadFace(
        values=dumps(snapshot.values) if snapshot.created_at is not None else None,
        interrupts=dumps(dict(_interrupts_by_task(snapshot))),
        resting_status="interrupted" if snapshot.next else "idle",
        next=snapshot.next,
    )


def state_object(snapshot: StateSnapshot) -> dict[str, Any]:
    """The thread state object of the API; its members are still Python values, for `waystation_db.json.dumps`."""
    checkpoint = checkpoint_of(snapshot.config)
    parent = checkpoint_of(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": _metadata(snapshot),
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [_interrupt(i) for i in snapshot.interrupts],
        "checkpoint_id": checkpoint["checkpoint_id"] if checkpoint else None,
        "parent_checkpoint_id": parent["checkpoint_id"] if parent else None,
    }


def checkpoint_of(config: RunnableConfig | None) -> dict[str, Any] | None:
    """The checkpoint that a config names, as the API shows it; None when it names none."""
    configurable: Mapping[str, Any] = (config or {}).get("configurable", {})
    if not configurable.get("checkpoint_id"):
        return None
    return {key: configurable[key] for key in _CHECKPOINT_KEYS if configurable.get(key) is not None}


def empty_state() -> dict[str, Any]:
    """The state of a thread that no graph has run on."""
    return state_object(StateSnapshot({}, (), {}, None, None, None, (), ()))


def _metadata(snapshot: StateSnapshot) -> dict[str, Any] | None:
    """Checkpoints do not repeat their thread's id in the metadata, clients look for it there."""
    if snapshot.metadata is None:
        return None
    return {**snapshot.metadata, "thread_id": snapshot.config.get("configurable", {}).get("thread_id")}


def _task(task: PregelTask) -> dict[str, Any]:
    nested = task.state if isinstance(task.state, StateSnapshot) else None
    return {
        "id": task.id,
        "name": task.name,
        "path": cast("object", task.path),  # pyright: ignore[reportUnknownMemberType]  # a bare tuple in the library
        "error": None if task.error is None else _error_text(task.error),
        "interrupts": [_interrupt(i) for i in task.interrupts],
        "checkpoint": _subgraph_checkpoint(task),
        "state": state_object(nested) if nested is not None else None,
        "result": task.result,
    }


def _subgraph_checkpoint(task: PregelTask) -> dict[str, Any] | None:
    if task.state is None or isinstance(task.state, StateSnapshot):
        return None
    configurable: Mapping[str, Any] = task.state.get("configurable", {})
    return {key: configurable[key] for key in _CHECKPOINT_KEYS if key in configurable}


def _error_text(error: object) -> str:
    """Checkpoints keep an exception as its repr; in memory it is still the exception."""
    return error if isinstance(error, str) else repr(error)


def _interrupt(interrupt: Interrupt[Any]) -> dict[str, Any]:
    return {"id": interrupt.id, "value": interrupt.value}


def _interrupts_by_task(snapshot: StateSnapshot) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Task id and what the task asks. What the tasks of a subgraph ask is theirs, not the task's that runs it."""
    for task in snapshot.tasks:
        inner: list[tuple[str, list[dict[str, Any]]]] = []
        if isinstance(task.state, StateSnapshot):
            inner = list(_interrupts_by_task(task.state))
            yield from inner
        named = {cast(str, i["id"]) for _, asked in inner for i in asked}
        own = [_interrupt(i) for i in task.interrupts if i.id not in named]
        if own:
            yield task.id, own
