"""Messages between OpenAI's form and LangChain's: what clients send, and what graphs say.

Content goes through as it is wherever LangChain's models take OpenAI's own parts (`text`, `image_url`, `input_audio`,
`file`); the parts of the Responses API are named as those of chat completions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

from waystation.errors import InvalidRequest
from waystation.runs.chat_bodies import AssistantToolCall, ChatMessage, InputItem, Part
from waystation_db.json import dumps

JSONObject = dict[str, Any]

DEVELOPER = "__openai_role__"
"""The member of a message's `additional_kwargs` in which LangChain's models of OpenAI look for the role."""

_TYPES = {"system": "system", "developer": "system", "user": "human", "assistant": "ai", "tool": "tool"}
_KINDS = {"human": "human", "user": "human", "ai": "ai", "assistant": "ai", "AIMessageChunk": "ai", "tool": "tool"}


def from_chat(messages: Sequence[ChatMessage]) -> list[JSONObject]:
    """The messages of a chat completion as a graph takes them.

    Raises:
        InvalidRequest: a message lacks what its role needs, or a call's arguments are not JSON.
    """
    return [_from_chat(message, f"messages.{at}") for at, message in enumerate(messages)]


def _from_chat(message: ChatMessage, at: str) -> JSONObject:
    match message.role:
        case "assistant":
            calls = [_call(call, f"{at}.tool_calls.{i}") for i, call in enumerate(message.tool_calls or ())]
            return _message("ai", _content(message.content) or "", name=message.name, tool_calls=calls)
        case "tool":
            if message.tool_call_id is None:
                raise InvalidRequest(f"{at}.tool_call_id: a tool's message needs the id of the call it answers")
            return _message("tool", _content(message.content) or "", tool_call_id=message.tool_call_id)
        case role:
            if message.content is None:
                raise InvalidRequest(f"{at}.content: a message of role {role} needs content")
            return _of_role(role, _content(message.content), name=message.name)


def from_input(given: str | Sequence[InputItem]) -> list[JSONObject]:
    """The input of a response as messages. Answers to approval requests are none, and left out.

    Raises:
        InvalidRequest: an item of a kind that is not taken, or that lacks something.
    """
    if isinstance(given, str):
        return [_message("human", given)]
    return [message for at, item in enumerate(given) for message in _from_item(item, f"input.{at}")]


def _from_item(item: InputItem, at: str) -> list[JSONObject]:
    match item.type:
        case "message":
            if item.role is None or item.content is None:
                raise InvalidRequest(f"{at}: a message needs `role` and `content`")
            return [_of_role(item.role, _content(item.content))]
        case "function_call":
            if item.call_id is None or item.name is None:
                raise InvalidRequest(f"{at}: a function_call needs `call_id` and `name`")
            return [_message("ai", "", tool_calls=[_item_call(item, item.call_id, f"{at}.arguments")])]
        case "function_call_output":
            if item.call_id is None:
                raise InvalidRequest(f"{at}.call_id: a function_call_output names the call it answers")
            return [_message("tool", _output(item.output), tool_call_id=item.call_id)]
        case "mcp_call":  # an answer's own item, sent back
            call_id = item.id or f"mcp_{uuid4().hex}"
            called = _message("ai", "", tool_calls=[_item_call(item, call_id, f"{at}.arguments")])
            return [called, _message("tool", _output(item.output), tool_call_id=call_id)]
        case "reasoning" | "mcp_approval_request" | "mcp_approval_response" | "mcp_list_tools":
            return []
        case other:
            raise InvalidRequest(f"{at}.type: items of type {other[:60]!r} are not taken")


def _message(kind: str, content: Any, **members: Any) -> JSONObject:
    given = {name: value for name, value in members.items() if value}
    return {"type": kind, "content": content, "id": str(uuid4()), **given}


def _of_role(role: str, content: Any, **members: Any) -> JSONObject:
    """A message of one of OpenAI's roles. LangChain has no developers: their messages are the system's, and say so."""
    if role == "developer":
        members["additional_kwargs"] = {DEVELOPER: role}
    return _message(_TYPES[role], content, **members)


def _content(content: str | Sequence[Part] | None) -> Any:
    return content if content is None or isinstance(content, str) else [_part(part.model_dump()) for part in content]


def _part(part: JSONObject) -> JSONObject:
    match part["type"]:
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text", "")}
        case "input_image":
            url = {"url": part.get("image_url", ""), "detail": part.get("detail") or "auto"}
            return {"type": "image_url", "image_url": url}
        case "input_file":
            members = ("file_data", "file_id", "filename", "file_url")
            return {"type": "file", "file": {name: part[name] for name in members if part.get(name) is not None}}
        case _:
            return part


def _call(call: AssistantToolCall, at: str) -> JSONObject:
    arguments = _arguments(call.function.arguments, f"{at}.function.arguments")
    return {"type": "tool_call", "id": call.id, "name": call.function.name, "args": arguments}


def _item_call(item: InputItem, call_id: str, at: str) -> JSONObject:
    return {"type": "tool_call", "id": call_id, "name": item.name or "", "args": _arguments(item.arguments or "{}", at)}


def _arguments(text: str, at: str) -> JSONObject:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{at}: should be a JSON object")
    return cast(JSONObject, value)


def _output(output: Any) -> Any:
    if isinstance(output, list) and all(isinstance(one, dict) and "type" in one for one in cast("list[Any]", output)):
        return [_part(part) for part in cast("list[JSONObject]", output)]
    return output if isinstance(output, str) else dumps(output).decode()


@dataclass(frozen=True, slots=True)
class Call:
    """A model's wish to call a tool. `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a graph, as far as an answer is concerned."""

    kind: str
    id: str | None
    text: str
    calls: tuple[Call, ...] = ()
    answers: str | None = None
    """Of a tool's message: the id of the call."""
    failed: bool = False
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    finish: str | None = None


def said(message: Any) -> Said | None:
    """Read a message as a graph put it out: LangChain's form, or what a node returned in a shorter one."""
    if isinstance(message, str):
        return Said("human", None, message)
    if isinstance(message, list) and len(cast("list[Any]", message)) == 2:
        role, content = cast("list[Any]", message)
        message = {"role": role, "content": content}
    if not isinstance(message, dict):
        return None
    given = cast(JSONObject, message)
    kind = _KINDS.get(str(given.get("type") or given.get("role") or ""), "other")
    about: JSONObject = given.get("response_metadata") or {}
    calls = cast("list[JSONObject]", given.get("tool_calls") or []) if kind == "ai" else []
    return Said(
        kind=kind,
        id=given.get("id"),
        text=text_of(given.get("content")),
        calls=tuple(_read_call(call) for call in calls),
        answers=given.get("tool_call_id"),
        failed=given.get("status") == "error",
        usage=given.get("usage_metadata") or {},
        finish=about.get("finish_reason") or about.get("stop_reason"),
    )


def _read_call(call: JSONObject) -> Call:
    if isinstance(function := call.get("function"), dict):  # OpenAI's own form, from a node that returned it
        about = cast(JSONObject, function)
        return Call(str(call.get("id")), str(about.get("name")), str(about.get("arguments")))
    return Call(str(call.get("id")), str(call.get("name")), dumps(call.get("args") or {}).decode())


def text_of(content: Any) -> str:
    """The text in a message's content; what is not text (reasoning, images) is left out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(_text_of_part(part) for part in cast("list[Any]", content))


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        given = cast(JSONObject, part)
        return str(given.get("text") or "") if given.get("type") in ("text", "output_text") else ""
    return ""
