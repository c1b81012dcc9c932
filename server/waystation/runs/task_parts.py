"""Between the parts of agent-to-agent messages and what graphs take and give: inputs, resumes, histories, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from waystation.errors import InvalidRequest
from waystation.runs.tool_shapes import Schema
from waystation_db.json import dumps

Role = Literal["user", "agent"]

_ROLES: Final[Mapping[str, Role]] = {"human": "user", "ai": "agent"}
_MEDIA: Final = ("image", "audio", "video")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file, by its content in base64 or by its address."""

    base64: str | None = None
    url: str | None = None
    mime_type: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message: exactly one of the three."""

    text: str | None = None
    data: Any = None
    file: FilePart | None = None


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A message of a task's history. `task_id` is the run that its task began with, where it is known."""

    message_id: str
    role: Role
    parts: tuple[Part, ...]
    task_id: str | None = None


class NotTaken(InvalidRequest):
    """The agent does not take parts of this kind."""


def graph_input(message_id: str, parts: Sequence[Part], *, takes_messages: bool) -> dict[str, Any]:
    """What a graph gets of a message: data is merged, text and files are a message of a person.

    Raises:
        NotTaken: there is text or a file, and the graph takes no messages.
        InvalidRequest: data is no object.
    """
    merged = _merged(parts)
    said = [part for part in parts if part.text is not None or part.file is not None]
    if not said:
        return merged
    if not takes_messages:
        raise NotTaken("parts: this agent takes data parts only; its input has no messages")
    message = {"type": "human", "id": message_id, "content": _content(said)}
    before = merged.get("messages")
    earlier = cast("list[Any]", before) if isinstance(before, list) else []
    return {**merged, "messages": [*earlier, message]}


def resume_value(parts: Sequence[Part]) -> Any:
    """What answers an interrupt: the data of a message, or its text. A lone member `resume` holds the value itself,
    which may then be anything.

    Raises:
        InvalidRequest: there is neither.
    """
    merged = _merged(parts)
    if merged:
        return merged["resume"] if list(merged) == ["resume"] else merged
    texts = [part.text for part in parts if part.text is not None]
    if not texts:
        raise InvalidRequest("parts: an answer is text or data")
    return "\n".join(texts)


def takes_messages(schema: Schema | None) -> bool:
    """Whether a graph's input has messages; one without a schema may have."""
    return schema is None or "messages" in cast("dict[str, Any]", schema.get("properties", {}))


def history_of(values: Any, tasks: Mapping[str, str]) -> list[TaskMessage]:
    """The messages of a thread's values. `tasks`: which of them began which task; those that follow belong to it."""
    found: list[TaskMessage] = []
    task_id: str | None = None
    for message in _messages(values):
        message_id = str(message.get("id") or "")
        task_id = tasks.get(message_id, task_id)
        role, parts = _ROLES.get(str(message.get("type"))), tuple(_parts_of(message.get("content")))
        if role is not None and parts:
            found.append(TaskMessage(message_id or f"{len(found)}", role, parts, task_id))
    return found


def result_parts(values: Any) -> tuple[Part, ...]:
    """What a graph gave: the last text of its model, or its values as text and as data."""
    for message in reversed(_messages(values)):
        if message.get("type") == "ai" and (parts := tuple(_parts_of(message.get("content")))):
            return parts
    text = Part(text=values if isinstance(values, str) else dumps(values).decode())
    return (text, Part(data=values)) if isinstance(values, dict) else (text,)


def question_parts(interrupts: Sequence[Any]) -> tuple[Part, ...]:
    """What a waiting run asks: as text for people, and as it is."""
    values = [cast("dict[str, Any]", i).get("value") if isinstance(i, dict) else i for i in interrupts]
    texts = [value if isinstance(value, str) else dumps(value).decode() for value in values]
    return Part(text="\n".join(texts) or "The run waits for an answer."), Part(data={"interrupts": list(interrupts)})


def text_of(content: Any) -> str:
    """The text of a message's content."""
    return "".join(part.text or "" for part in _parts_of(content))


def _merged(parts: Sequence[Part]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        if part.data is None:
            continue
        data: Any = part.data
        if not isinstance(data, dict):
            raise InvalidRequest("parts: data should be an object; it is merged into the input")
        merged |= cast("dict[str, Any]", data)
    return merged


def _content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and parts[0].text is not None:
        return parts[0].text
    return [_block(part) for part in parts]


def _block(part: Part) -> dict[str, Any]:
    """A part as a content block of LangChain."""
    file = part.file
    if file is None:
        return {"type": "text", "text": part.text or ""}
    kind = (file.mime_type or "").split("/")[0]
    members: dict[str, Any] = {"base64": file.base64, "url": file.url, "mime_type": file.mime_type}
    members["extras"] = {"filename": file.name} if file.name else None
    given = {name: value for name, value in members.items() if value is not None}
    return {"type": kind if kind in _MEDIA else "file", **given}


def _messages(values: Any) -> list[dict[str, Any]]:
    found = cast("dict[str, Any]", values).get("messages") if isinstance(values, dict) else None
    items = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _parts_of(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Part(text=content)] if content else []
    found: list[Part] = []
    for item in cast("list[Any]", content) if isinstance(content, list) else []:
        block = cast("dict[str, Any]", item) if isinstance(item, dict) else {"type": "text", "text": item}
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            found.append(Part(text=block["text"]))
        elif block.get("type") in (*_MEDIA, "file") and ("base64" in block or "url" in block):
            extras = cast("dict[str, Any]", block.get("extras") or {})
            file = FilePart(block.get("base64"), block.get("url"), block.get("mime_type"), extras.get("filename"))
            found.append(Part(file=file))
    return found
