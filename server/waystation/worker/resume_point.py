"""Where an attempt begins: with the run's input, at the run's own last checkpoint, or nowhere because it had paused.

A run that is executed again must not be given its input again once a checkpoint of its own is committed; and one
that had
come to an interrupt or breakpoint before its worker died must stay there: going on from it would skip the breakpoint or
run the asking node twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from waystation.runs.snapshot import latest_state, thread_face
from waystation_db import runs
from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_db.rows import ClaimedRun

AnyGraph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """`start`: with the input. `continue`: from the run's last checkpoint, without input. `paused`: nothing is to be
    run."""

    kind: Literal["start", "continue", "paused"]
    snapshot: StateSnapshot | None = None


async def resume_point(run: ClaimedRun, graph: AnyGraph, config: RunnableConfig, *, db: Database) -> ResumePoint:
    """Decide where this attempt begins. `config` must not name a checkpoint: the thread's head is what counts.

    Costs nothing for a first attempt.
    """
    if run.attempt == 1:
        return ResumePoint("start")
    head = await latest_state(graph, config)
    if (head.metadata or {}).get("run_id") != run.key.run_id:
        return ResumePoint("paused", head) if await _asks_again(run, head, db) else ResumePoint("start")
    if _waits_for_answer(head) or await _at_breakpoint(run, graph, head):
        return ResumePoint("paused", head)
    return ResumePoint("continue", head)


async def _asks_again(run: ClaimedRun, head: StateSnapshot, db: Database) -> bool:
    """Whether this run's answer was taken already, and led to another question before any checkpoint.

    The thread's row still shows what was asked when the run was created. Giving the answer once more would answer the
    question that came after it. Two equal questions of one node cannot be told apart.
    """
    command: dict[str, Any] = run.kwargs.get("command") or {}
    if command.get("resume") is None or not _waits_for_answer(head):
        return False

    async def asked() -> object:
        async with db.connection() as conn:
            row = await runs.run_output(conn, run.key)
        return row.interrupts if row is not None else None

    before = await until_done(asked, retry_s=30)
    return orjson.loads(thread_face(head).interrupts) != before


def _waits_for_answer(head: StateSnapshot) -> bool:
    """Every task that is due has asked something: nothing can run before the answers."""
    due = [task for task in head.tasks if task.error is None and task.result is None]
    return bool(due) and all(task.interrupts for task in due)


async def _at_breakpoint(run: ClaimedRun, graph: AnyGraph, head: StateSnapshot) -> bool:
    if not head.next:
        return False
    if _hits(head.next, run.kwargs.get("interrupt_before")):
        return True
    after = run.kwargs.get("interrupt_after")
    if not after or head.parent_config is None or (head.metadata or {}).get("source") != "loop":
        return False
    ran = (await graph.aget_state(head.parent_config)).next
    return _hits(ran, after)


def _hits(nodes: Sequence[str], breakpoints: Literal["*"] | list[str] | None) -> bool:
    return breakpoints == "*" or bool(set(nodes) & set(breakpoints or ()))
