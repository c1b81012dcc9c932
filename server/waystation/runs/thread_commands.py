"""What the commands of the event streaming protocol do to a thread: start a run, answer, look at its state.

Runs made here stream the protocol's own events and keep them for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from waystation.auth import Principal
from waystation.errors import Conflict, ThreadBusy, Unavailable
from waystation.events import ONLY_END, End
from waystation.runs.admission import Admitted, create_on_thread
from waystation.runs.permission import visible_thread
from waystation.runs.requests import CheckpointRef, CommandBody, NativeRunCreate, RunConfig
from waystation.runs.run_kwargs import Origin
from waystation.runs.state import get_history, get_state
from waystation.services import Services
from waystation_db import thread_events, threads
from waystation_db.rows import MultitaskStrategy, RunKey

HELD_S = 60.0
"""How long an answer waits for the run that asked, which may still be about to end."""


_GLANCE_S = 0.05
_NO_CONFIG = RunConfig()
_STILL_BUSY = "The thread is busy; answer when its run is done."


class Refused(Exception):
    """A command that makes no sense now. `code` is the protocol's; the message may be shown to a stranger."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run to start. `checkpoint_id` is a place in the thread's past to start from."""

    assistant_id: str
    input: Any = None
    config: RunConfig = _NO_CONFIG
    metadata: dict[str, Any] | None = None
    multitask_strategy: MultitaskStrategy = "enqueue"
    checkpoint_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers by interrupt id, and what is applied in the same superstep."""

    by_id: Mapping[str, Any]
    update: dict[str, Any] | None = None
    goto: Any = None
    config: RunConfig = _NO_CONFIG
    metadata: dict[str, Any] | None = None


async def start_run(
    services: Services, caller: Principal, *, thread_id: str, start: RunStart, origin: Origin
) -> Admitted:
    """Create a run; the thread, too, if it is missing. While something is asked, input is the answer to it.

    Raises:
        As `create_on_thread`.
    """
    command: CommandBody | None = None
    given = start.input
    if given is not None and start.checkpoint_id is None and (await _asked(services, caller, thread_id)).waits:
        command, given = CommandBody(resume=given), None
    request = NativeRunCreate(
        assistant_id=start.assistant_id,
        input=given,
        command=command,
        config=start.config,
        metadata=start.metadata or {},
        multitask_strategy=start.multitask_strategy,
        checkpoint=None if start.checkpoint_id is None else CheckpointRef(checkpoint_id=start.checkpoint_id),
        **_STREAMED,
    )
    return await create_on_thread(services, caller, thread_id=thread_id, request=request, origin=origin)


async def answer_run(
    services: Services, caller: Principal, *, thread_id: str, answers: Answers, origin: Origin
) -> Admitted:
    """Go on with what was asked, as a new run of the thread's assistant. Waits for a run that is about to ask.

    Raises:
        Refused: `no_such_interrupt`: an id that nobody waits for, or that was answered before.
        As `create_on_thread`.
    """
    deadline = asyncio.get_running_loop().time() + HELD_S
    while True:
        asked = await _asked(services, caller, thread_id)
        if asked.is_busy:
            await _until_free(services, caller, thread_id, deadline)
            continue
        for interrupt_id in answers.by_id:
            if not asked.waits or interrupt_id not in asked.ids:
                raise Refused("no_such_interrupt", f"Unknown or already-consumed interrupt: {interrupt_id[:200]}")
        request = NativeRunCreate(
            assistant_id=asked.assistant_id,
            command=CommandBody(resume=dict(answers.by_id), update=answers.update, goto=answers.goto),
            config=answers.config,
            metadata=answers.metadata or {},
            multitask_strategy="reject",  # of two answers at the same time one is too late
            **_STREAMED,
        )
        try:
            return await create_on_thread(services, caller, thread_id=thread_id, request=request, origin=origin)
        except ThreadBusy:
            await _until_free(services, caller, thread_id, deadline)


async def fork_run(
    services: Services, caller: Principal, *, thread_id: str, start: RunStart, origin: Origin
) -> Admitted:
    """Create a run from a checkpoint of the thread's past, by its assistant unless `start` names one.

    Raises:
        Refused: `no_such_checkpoint`: the thread has none of that id.
        As `create_on_thread`.
    """
    asked = await _asked(services, caller, thread_id)
    checkpoint = {"checkpoint_id": start.checkpoint_id}
    found = orjson.loads(await get_state(services, caller, thread_id=thread_id, checkpoint=checkpoint))
    if found.get("created_at") is None:
        raise Refused("no_such_checkpoint", f"Unknown checkpoint: {str(start.checkpoint_id)[:200]}")
    named = RunStart(
        start.assistant_id or asked.assistant_id,
        start.input,
        start.config,
        start.metadata,
        start.multitask_strategy,
        start.checkpoint_id,
    )
    return await start_run(services, caller, thread_id=thread_id, start=named, origin=origin)


async def thread_values(
    services: Services, caller: Principal, *, thread_id: str, namespace: Sequence[str], keys: Sequence[str] | None
) -> dict[str, Any]:
    """The latest values at a namespace, all or those of some keys, and the checkpoint that has them."""
    where = {"checkpoint_ns": "|".join(namespace)} if namespace else None
    state = orjson.loads(await get_state(services, caller, thread_id=thread_id, checkpoint=where))
    values: Any = state["values"]
    if keys is not None and isinstance(values, dict):
        values = {name: value for name, value in cast("dict[str, Any]", values).items() if name in keys}
    result: dict[str, Any] = {"values": values}
    if state.get("checkpoint_id"):
        result["checkpoint"] = {"id": state["checkpoint_id"]} | ({"ns": where["checkpoint_ns"]} if where else {})
    return result


async def list_checkpoints(
    services: Services,
    caller: Principal,
    *,
    thread_id: str,
    namespace: Sequence[str],
    limit: int,
    before: str | None,
) -> list[dict[str, Any]]:
    """Summaries of a thread's checkpoints, newest first."""
    where = {"checkpoint_ns": "|".join(namespace)} if namespace else None
    history = await get_history(services, caller, thread_id=thread_id, limit=limit, before=before, checkpoint=where)
    return [_summary(state) for state in orjson.loads(history)]


def _summary(state: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = state.get("metadata") or {}
    return {
        "id": state["checkpoint_id"],
        "timestamp": state["created_at"],
        "step": metadata.get("step", -1),
        "metadata": metadata,
    }


_STREAMED: dict[str, Any] = {
    "stream_mode": ["values"],
    "stream_subgraphs": True,
    "stream_resumable": True,
    "durability": "async",
    "if_not_exists": "create",
}
"""What every run of the protocol has."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a thread waits for."""

    status: str = "idle"
    ids: frozenset[str] = frozenset()
    assistant_id: str = ""

    @property
    def is_busy(self) -> bool:
        return self.status == "busy"

    @property
    def waits(self) -> bool:
        return self.status == "interrupted" and bool(self.ids)


async def _asked(services: Services, caller: Principal, thread_id: str) -> _Asked:
    visible = await visible_thread(caller, "read", thread_id)
    async with services.db.connection() as conn:
        face = await threads.get(conn, caller.tenant_id, thread_id, visible=visible)
    if face is None:
        return _Asked()
    thread = orjson.loads(face)
    questions: dict[str, list[dict[str, Any]]] = thread.get("interrupts") or {}
    ids = frozenset(str(one.get("id")) for asked in questions.values() for one in asked)
    return _Asked(thread["status"], ids, str(thread["metadata"].get("assistant_id", "")))


async def _until_free(services: Services, caller: Principal, thread_id: str, deadline: float) -> None:
    """Wait until the run that executes on the thread is final.

    Raises:
        Unavailable: it takes too long.
        Conflict: nothing executes, but runs wait.
    """
    async with services.db.connection() as conn:
        run_id = await thread_events.executing_run(conn, caller.tenant_id, thread_id)
    if run_id is None:
        if asyncio.get_running_loop().time() > deadline:
            raise Conflict(f"Thread {thread_id} has runs that wait; answer when they are done.")
        await asyncio.sleep(_GLANCE_S)
        return
    key = RunKey(caller.tenant_id, thread_id, run_id)
    try:
        async with asyncio.timeout_at(deadline):
            async for batch in services.log.read(key, after=ONLY_END, resumable=True):
                if isinstance(batch, End):
                    return
    except TimeoutError:
        raise Unavailable(_STILL_BUSY, headers={"Retry-After": "5"}) from None


def checkpoint_of_config(config: RunConfig) -> tuple[RunConfig, str | None]:
    """A fork asked for by `config.configurable.checkpoint_id`: the config without it, and the checkpoint."""
    configurable = dict(config.configurable)
    found = configurable.pop("checkpoint_id", None)
    if not isinstance(found, str) or not found:
        return config, None
    return config.model_copy(update={"configurable": configurable}), found
