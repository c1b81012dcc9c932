"""Runs as tasks of agent-to-agent clients: begin one, go on with one that asked something, look at it, follow it, stop
it.

A task is named `{thread}:{run}` by the run that it began with. Answering what a task asked makes another run on the
thread; it is part of the same task, and says so in its metadata.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

import orjson
import uuid_utils

from waystation.auth import ANYTHING, Principal
from waystation.errors import Conflict, InvalidRequest, NotFound
from waystation.events import BEGINNING, End, Event
from waystation.runs.admission import Admitted, create_on_thread, resolve_assistant
from waystation.runs.cancel import cancel_run, until_final
from waystation.runs.output import answer
from waystation.runs.permission import visible_thread
from waystation.runs.requests import CommandBody, StreamMode, ThreadRunCreate
from waystation.runs.run_kwargs import Origin
from waystation.runs.task_parts import (
    Part,
    TaskMessage,
    graph_input,
    history_of,
    question_parts,
    result_parts,
    resume_value,
    takes_messages,
    text_of,
)
from waystation.runs.tools import error_text, graph_schemas
from waystation.services import Services
from waystation_db import tasks
from waystation_db.rows import RunKey
from waystation_db.tasks import TaskRow

TaskState = Literal["submitted", "working", "input-required", "completed", "failed", "canceled"]
Scope = Literal["context", "task"]

FINAL: Final = frozenset({"completed", "failed", "canceled"})
_OURS: Final = frozenset({"a2a_message_id", "a2a_task_id"})
_GROWTH: Final = 32
"""A text that grows is told again when it is longer by this part of itself: what a stream sends grows no faster than
the text, however many pieces it comes in."""


@dataclass(frozen=True, slots=True)
class TaskName:
    """What names a task: its thread, and the run that it began with."""

    thread_id: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.thread_id}:{self.run_id}"

    @classmethod
    def parse(cls, text: str) -> TaskName:
        """Raises NotFound for what names none."""
        thread_id, _, run_id = text.partition(":")
        try:
            return cls(str(UUID(thread_id)), str(UUID(run_id)))
        except ValueError:
            raise NotFound(f"Task not found: {text[:100]}") from None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A client's message, and which context or task it is for."""

    message_id: str
    parts: tuple[Part, ...]
    context_id: str | None = None
    task_id: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class HistoryWish:
    """How much of the history is wanted: its last messages (None: all), of the task alone or of the whole context."""

    length: int | None = None
    scope: Scope = "context"


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it is now."""

    name: TaskName
    assistant_id: str
    state: TaskState
    at: datetime
    status_parts: tuple[Part, ...] = ()
    history: tuple[TaskMessage, ...] = ()
    result: tuple[Part, ...] | None = None

    @property
    def is_over(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True, slots=True)
class Working:
    """A task goes on; `parts` is what its model says so far."""

    name: TaskName
    at: datetime
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A task that has a run under way."""

    name: TaskName
    run: Admitted
    message: TaskMessage


async def begin(
    services: Services, caller: Principal, *, assistant: str, message: Incoming, streams: bool, origin: Origin
) -> Begun:
    """Make the run that a message asks for: a new task, or the rest of one that waits for an answer.

    Raises:
        NotFound: no such task or context. Conflict: the task does not wait for an answer. InvalidRequest: the message
        makes no sense here. Others as `create_on_thread`.
    """
    if not message.parts:
        raise InvalidRequest("message.parts: should have at least one part")
    assistant_id = resolve_assistant(services, assistant)
    modes: list[StreamMode] = ["messages-tuple"] if streams else ["updates"]
    shared: dict[str, Any] = {"assistant_id": assistant_id, "stream_mode": modes}
    given = {name: value for name, value in (message.metadata or {}).items() if name not in _OURS}
    noted: dict[str, Any] = {**given, "a2a_message_id": message.message_id}
    if message.task_id is not None:
        name = await _waiting(services, caller, message)
        command = CommandBody(resume=resume_value(message.parts))
        request = ThreadRunCreate(**shared, command=command, metadata={**noted, "a2a_task_id": name.run_id})
        run = await create_on_thread(services, caller, thread_id=name.thread_id, request=request, origin=origin)
    else:
        takes, _ = await graph_schemas(services, caller, assistant_id)
        input = graph_input(message.message_id, message.parts, takes_messages=takes_messages(takes))
        request = ThreadRunCreate(**shared, input=input, metadata=noted, if_not_exists="create")
        thread_id = _context(message.context_id)
        run = await create_on_thread(services, caller, thread_id=thread_id, request=request, origin=origin)
        name = TaskName(run.key.thread_id, run.key.run_id)
    return Begun(name, run, TaskMessage(message.message_id, "user", message.parts, name.run_id))


def submitted(begun: Begun) -> Task:
    """A task that was just begun."""
    assistant_id = begun.run.row.assistant_id
    return Task(begun.name, assistant_id, "submitted", _now(), history=(begun.message,))


async def finished(services: Services, caller: Principal, begun: Begun, *, wish: HistoryWish) -> Task:
    """Wait for a task's run, and show the task."""
    end = await until_final(services, begun.run.key, resumable=begun.run.resumable)
    return await _ended(services, caller, begun.name, begun.run.key, end, wish)


async def get(services: Services, caller: Principal, *, task_id: str, wish: HistoryWish) -> Task:
    """A task. Raises NotFound."""
    name = TaskName.parse(task_id)
    row = await _row(services, caller, name)
    return await _shown(services, caller, name, row, wish)


async def cancel(services: Services, caller: Principal, *, task_id: str) -> Task:
    """Stop a task and show it; one that waits for an answer stays as it is.

    Raises:
        NotFound: no such task. Conflict: it is over, or waits.
    """
    name = TaskName.parse(task_id)
    row = await _row(services, caller, name)
    if row.status not in ("pending", "running"):
        raise Conflict("Task is not cancelable in its current state")
    try:
        key = await cancel_run(services, caller, thread_id=name.thread_id, run_id=row.run_id, action="interrupt")
    except NotFound:
        raise Conflict("Task is not cancelable in its current state") from None
    await until_final(services, key, resumable=row.resumable)
    return await get(services, caller, task_id=task_id, wish=HistoryWish(0))


async def follow(services: Services, caller: Principal, begun: Begun) -> AsyncGenerator[Task | Working]:
    """A task from its beginning to its end."""
    yield submitted(begun)
    async for step in _steps(services, caller, begun.name, begun.run.key, resumable=begun.run.resumable):
        yield step


async def rejoin(services: Services, caller: Principal, *, task_id: str) -> AsyncGenerator[Task | Working]:
    """A task that is under way: as it is now, then to its end.

    Raises:
        NotFound: no such task. Conflict: nothing of it is under way.
    """
    name = TaskName.parse(task_id)
    row = await _row(services, caller, name)
    if row.status not in ("pending", "running"):
        raise Conflict("The task is not under way; tasks/get shows what it came to")
    now = await _shown(services, caller, name, row, HistoryWish(scope="task"))
    key = RunKey(caller.tenant_id, name.thread_id, row.run_id)

    async def steps() -> AsyncGenerator[Task | Working]:
        yield now
        async for step in _steps(services, caller, name, key, resumable=row.resumable):
            yield step

    return steps()


async def _steps(
    services: Services, caller: Principal, name: TaskName, key: RunKey, *, resumable: bool
) -> AsyncGenerator[Task | Working]:
    said = _Said()
    async for batch in services.log.read(key, after=BEGINNING, resumable=resumable):
        if isinstance(batch, End):
            yield await _ended(services, caller, name, key, batch, HistoryWish(scope="task"))
            return
        for event in batch:
            said.take(event)
            if text := said.news():
                yield Working(name, _now(), (Part(text=text),))


class _Said:
    """What the model says, of the pieces in which it comes."""

    def __init__(self) -> None:
        self._message_id: str | None = None
        self._pieces: list[str] = []
        self._length = 0
        self._told = 0

    def take(self, event: Event) -> None:
        if event.mode != "messages-tuple":
            return
        message = cast("list[dict[str, Any]]", orjson.loads(event.data))[0]
        if message.get("type") not in ("AIMessageChunk", "ai"):
            return
        if message.get("id") != self._message_id:
            self._message_id, self._pieces, self._length, self._told = message.get("id"), [], 0, 0
        elif message["type"] == "ai":  # the whole message, after its pieces
            return
        text = text_of(message.get("content"))
        if text:
            self._pieces.append(text)
            self._length += len(text)

    def news(self) -> str | None:
        """All of it, when enough has come since the last time."""
        if self._length - self._told <= self._told // _GROWTH:
            return None
        self._told = self._length
        return "".join(self._pieces)


async def _ended(
    services: Services, caller: Principal, name: TaskName, key: RunKey, end: End, wish: HistoryWish
) -> Task:
    """A task whose run has just ended. What the run gave is the log's to say: the thread may have moved on."""
    row = await _row(services, caller, name)
    task = await _shown(services, caller, name, row, wish)
    if row.run_id != key.run_id or task.state != "completed":
        return task
    return replace(task, result=result_parts(orjson.loads(await answer(services, key, end))))


async def _row(services: Services, caller: Principal, name: TaskName) -> TaskRow:
    visible = await visible_thread(caller, "read", name.thread_id) or ANYTHING
    key = RunKey(caller.tenant_id, name.thread_id, name.run_id)
    async with services.db.connection() as conn:
        row = await tasks.get(conn, key, visible=visible)
    if row is None:
        raise NotFound(f"Task not found: {name}")
    return row


async def _shown(services: Services, caller: Principal, name: TaskName, row: TaskRow, wish: HistoryWish) -> Task:
    values = orjson.loads(row.values or "null")
    task = Task(name, row.assistant_id, _state(row), row.updated_at.astimezone(UTC))
    if wish.length != 0:
        async with services.db.connection() as conn:
            begun_by = await tasks.message_tasks(conn, caller.tenant_id, name.thread_id)
        task = replace(task, history=_history(values, begun_by, name, wish))
    match task.state:
        case "input-required":
            asked = [interrupt for some in (row.interrupts or {}).values() for interrupt in some]
            return replace(task, status_parts=question_parts(asked))
        case "failed":
            return replace(task, status_parts=(Part(text=error_text(services, row.error or {})),))
        case "completed":
            own = task.history and [m for m in task.history if m.role == "agent" and m.task_id == name.run_id]
            if row.is_last:
                return replace(task, result=result_parts(values))
            return replace(task, result=own[-1].parts) if own else task
        case _:
            return task


def _state(row: TaskRow) -> TaskState:
    match row.status:
        case "pending":
            return "submitted"
        case "running":
            return "working"
        case "success":
            return "input-required" if row.is_last and row.interrupts else "completed"
        case "error" | "timeout":
            return "failed"
        case "interrupted":
            return "canceled"


def _history(values: Any, begun_by: Mapping[str, str], name: TaskName, wish: HistoryWish) -> tuple[TaskMessage, ...]:
    """A task's messages, in its context with those of the tasks before it."""
    messages = history_of(values, begun_by)
    ends = [at for at, message in enumerate(messages, 1) if message.task_id == name.run_id]
    messages = messages[: ends[-1]] if ends else messages
    if wish.scope == "task":
        messages = [message for message in messages if message.task_id == name.run_id]
    return tuple(messages if wish.length is None else messages[-wish.length :])


async def _waiting(services: Services, caller: Principal, message: Incoming) -> TaskName:
    name = TaskName.parse(message.task_id or "")
    if message.context_id is not None and message.context_id != name.thread_id:
        raise InvalidRequest("message.contextId: is not the context of the task in message.taskId")
    row = await _row(services, caller, name)
    if (state := _state(row)) != "input-required":
        raise Conflict(f"The task is {state} and waits for no answer; send the message without taskId")
    return name


def _context(context_id: str | None) -> str:
    if context_id is None:
        return str(uuid_utils.uuid7())
    try:
        return str(UUID(context_id))
    except ValueError:
        raise InvalidRequest("message.contextId: should be a UUID; it is the id of a thread") from None


def _now() -> datetime:
    return datetime.now(UTC)
