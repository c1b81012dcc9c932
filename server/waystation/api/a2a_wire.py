"""Tasks as agent-to-agent clients read them, in the two forms that the protocol has.

0.3   members named by `kind`, states in lower case, updates with `final`
1.0   the JSON of protocol buffers: members named by what they hold, states as TASK_STATE_…, a stream that ends
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import uuid4

from waystation.runs.task_parts import Part, TaskMessage
from waystation.runs.tasks import Task, TaskName, Working

ARTIFACT: Final = "Assistant Response"


class Wire(Protocol):
    """One form of the protocol."""

    def sent(self, task: Task) -> dict[str, Any]:
        """A task as the answer to a message."""
        ...

    def task(self, task: Task) -> dict[str, Any]:
        """A task."""
        ...

    def steps(self, step: Task | Working, *, first: bool) -> list[dict[str, Any]]:
        """What a stream says of a step: the first is the task as it is, the others are updates of it."""
        ...


class Wire03:
    """Version 0.3."""

    def sent(self, task: Task) -> dict[str, Any]:
        return self.task(task)

    def task(self, task: Task) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "kind": "task",
            "id": str(task.name),
            "contextId": task.name.thread_id,
            "history": [self._message(task.name, message) for message in task.history],
            "status": self._status(task),
        }
        if task.result is not None:
            shown["artifacts"] = [self._artifact(task)]
        return shown

    def steps(self, step: Task | Working, *, first: bool) -> list[dict[str, Any]]:
        if isinstance(step, Working):
            status = {"state": "working", "message": self._said(step.name, step.parts), "timestamp": _time(step.at)}
            return [{**self._update(step.name, "status-update"), "status": status, "final": False}]
        if first:
            return [self.task(step)]
        found: list[dict[str, Any]] = []
        if step.result is not None:
            artifact = self._update(step.name, "artifact-update") | {"artifact": self._artifact(step)}
            found.append({**artifact, "append": False, "lastChunk": True})
        found.append({**self._update(step.name, "status-update"), "status": self._status(step), "final": True})
        return found

    def _update(self, name: TaskName, kind: str) -> dict[str, Any]:
        return {"taskId": str(name), "contextId": name.thread_id, "kind": kind}

    def _status(self, task: Task) -> dict[str, Any]:
        status: dict[str, Any] = {"state": task.state, "timestamp": _time(task.at)}
        if task.status_parts:
            status["message"] = self._said(task.name, task.status_parts)
        return status

    def _said(self, name: TaskName, parts: tuple[Part, ...]) -> dict[str, Any]:
        return self._message(name, TaskMessage(str(uuid4()), "agent", parts, name.run_id))

    def _message(self, name: TaskName, message: TaskMessage) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "kind": "message",
            "role": message.role,
            "parts": [_part03(part) for part in message.parts],
            "messageId": message.message_id,
            "contextId": name.thread_id,
        }
        return shown if message.task_id is None else {**shown, "taskId": f"{name.thread_id}:{message.task_id}"}

    def _artifact(self, task: Task) -> dict[str, Any]:
        return _artifact(task, [_part03(part) for part in task.result or ()])


class Wire10:
    """Version 1.0."""

    def sent(self, task: Task) -> dict[str, Any]:
        return {"task": self.task(task)}

    def task(self, task: Task) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": str(task.name),
            "contextId": task.name.thread_id,
            "status": self._status(task),
            "history": [self._message(task.name, message) for message in task.history],
        }
        if task.result is not None:
            shown["artifacts"] = [self._artifact(task)]
        return shown

    def steps(self, step: Task | Working, *, first: bool) -> list[dict[str, Any]]:
        if isinstance(step, Working):
            message = self._said(step.name, step.parts)
            status = {"state": _state10("working"), "message": message, "timestamp": _time10(step.at)}
            return [{"statusUpdate": {**self._update(step.name), "status": status}}]
        if first:
            return [{"task": self.task(step)}]
        found: list[dict[str, Any]] = []
        if step.result is not None:
            artifact = self._update(step.name) | {"artifact": self._artifact(step), "lastChunk": True}
            found.append({"artifactUpdate": artifact})
        found.append({"statusUpdate": {**self._update(step.name), "status": self._status(step)}})
        return found

    def _update(self, name: TaskName) -> dict[str, Any]:
        return {"taskId": str(name), "contextId": name.thread_id}

    def _status(self, task: Task) -> dict[str, Any]:
        status: dict[str, Any] = {"state": _state10(task.state), "timestamp": _time10(task.at)}
        if task.status_parts:
            status["message"] = self._said(task.name, task.status_parts)
        return status

    def _said(self, name: TaskName, parts: tuple[Part, ...]) -> dict[str, Any]:
        return self._message(name, TaskMessage(str(uuid4()), "agent", parts, name.run_id))

    def _message(self, name: TaskName, message: TaskMessage) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "messageId": message.message_id,
            "contextId": name.thread_id,
            "role": f"ROLE_{message.role.upper()}",
            "parts": [_part10(part) for part in message.parts],
        }
        return shown if message.task_id is None else {**shown, "taskId": f"{name.thread_id}:{message.task_id}"}

    def _artifact(self, task: Task) -> dict[str, Any]:
        return _artifact(task, [_part10(part) for part in task.result or ()])


def _artifact(task: Task, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "artifactId": str(uuid4()),
        "name": ARTIFACT,
        "description": f"Response from assistant {task.assistant_id}",
        "parts": parts,
    }


def _part03(part: Part) -> dict[str, Any]:
    if part.file is not None:
        file = part.file
        where = {"bytes": file.base64} if file.base64 is not None else {"uri": file.url}
        return {"kind": "file", "file": where | _named("mimeType", file.mime_type) | _named("name", file.name)}
    if part.data is not None:
        return {"kind": "data", "data": part.data}
    return {"kind": "text", "text": part.text or ""}


def _part10(part: Part) -> dict[str, Any]:
    if part.file is not None:
        file = part.file
        where = {"raw": file.base64} if file.base64 is not None else {"url": file.url}
        return where | _named("mediaType", file.mime_type) | _named("filename", file.name)
    return {"data": part.data} if part.data is not None else {"text": part.text or ""}


def _named(name: str, value: str | None) -> dict[str, Any]:
    return {} if value is None else {name: value}


def _state10(state: str) -> str:
    return f"TASK_STATE_{state.upper().replace('-', '_')}"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _time10(at: datetime) -> str:
    return _time(at).replace("+00:00", "Z")
