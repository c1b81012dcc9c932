"""Requests of agent-to-agent clients, checked by the SDK's types: those of 0.3 by its models, those of 1.0 by its
protocol buffers.

Importing this module takes 0.3 s for the SDK's types: `a2a.py` does it with the first request.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from a2a.compat.v0_3 import types as v03
from a2a.types import a2a_pb2 as v10
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from pydantic import ValidationError

from waystation.api.routing import describe
from waystation.api.rpc import INVALID_PARAMS, Call, RpcError
from waystation.runs.task_parts import FilePart, Part
from waystation.runs.tasks import Incoming

MAX_HISTORY: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Sending:
    """A message to send, and how its answer is wanted."""

    message: Incoming
    waits: bool
    history_length: int | None
    pushes: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """A task that is asked for."""

    task_id: str
    context_id: str | None
    history_length: int | None


def sending03(call: Call) -> Sending:
    """Raises RpcError."""
    params = _checked(v03.MessageSendParams, call.params)
    wishes = params.configuration
    message = params.message
    if not message.message_id:
        raise RpcError(INVALID_PARAMS, "message.messageId: should be there")
    if message.role is not v03.Role.user:
        raise RpcError(INVALID_PARAMS, "message.role: should be user")
    incoming = Incoming(
        message_id=message.message_id,
        parts=tuple(_part03(part.root) for part in message.parts),
        context_id=message.context_id or None,
        task_id=message.task_id or None,
        metadata=params.metadata,
    )
    return Sending(
        incoming,
        waits=wishes is None or wishes.blocking is not False,
        history_length=_length(wishes.history_length if wishes else None),
        pushes=wishes is not None and wishes.push_notification_config is not None,
    )


def sending10(call: Call) -> Sending:
    """Raises RpcError."""
    params = _parsed(v10.SendMessageRequest(), call.params)
    message = cast("dict[str, Any]", params.get("message") or {})
    if not message.get("messageId"):
        raise RpcError(INVALID_PARAMS, "message.messageId: should be there")
    if message.get("role", "ROLE_USER") != "ROLE_USER":
        raise RpcError(INVALID_PARAMS, "message.role: should be ROLE_USER")
    incoming = Incoming(
        message_id=message["messageId"],
        parts=tuple(_part10(part) for part in message.get("parts", [])),
        context_id=message.get("contextId"),
        task_id=message.get("taskId"),
        metadata=params.get("metadata"),
    )
    wishes = cast("dict[str, Any]", params.get("configuration") or {})
    return Sending(
        incoming,
        waits=not wishes.get("returnImmediately", False),
        history_length=_length(wishes.get("historyLength")),
        pushes="taskPushNotificationConfig" in wishes,
    )


def asking03(call: Call) -> Asking:
    """Raises RpcError."""
    params = _checked(v03.TaskQueryParams, call.params)
    context_id = call.params.get("contextId")
    return Asking(params.id, context_id if isinstance(context_id, str) else None, _length(params.history_length))


def asking10(call: Call) -> Asking:
    """Raises RpcError."""
    params = _parsed(v10.GetTaskRequest(), call.params)
    return Asking(params.get("id", ""), None, _length(params.get("historyLength")))


def _checked(model: type[Any], params: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(params)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        raise RpcError(INVALID_PARAMS, f"Invalid params: {describe(None, wrong)}") from None


def _parsed(into: Message, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the protocol buffer understands of the parameters. Members that it does not know are left out."""
    try:
        ParseDict(dict(params), into, ignore_unknown_fields=True)
        return MessageToDict(into)
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:300] if isinstance(error, ParseError) else type(error).__name__
        raise RpcError(INVALID_PARAMS, f"Invalid params: {reason}") from None


def _part03(part: v03.TextPart | v03.FilePart | v03.DataPart) -> Part:
    match part:
        case v03.TextPart():
            return Part(text=part.text)
        case v03.DataPart():
            return Part(data=part.data)
        case v03.FilePart():
            return Part(file=_file03(part.file))


def _file03(file: v03.FileWithBytes | v03.FileWithUri) -> FilePart:
    match file:
        case v03.FileWithBytes():
            return FilePart(_base64(file.bytes), None, file.mime_type, file.name)
        case v03.FileWithUri():
            return FilePart(None, file.uri, file.mime_type, file.name)


def _part10(part: Mapping[str, Any]) -> Part:
    if "data" in part:
        return Part(data=part["data"])
    if "raw" in part or "url" in part:
        raw = part.get("raw")
        return Part(file=FilePart(raw, part.get("url"), part.get("mediaType"), part.get("filename")))
    return Part(text=part.get("text", ""))


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RpcError(INVALID_PARAMS, "message.parts: file.bytes should be base64") from None
    return text


def _length(asked: Any) -> int | None:
    if asked is None:
        return None
    if not 0 <= asked <= MAX_HISTORY:
        raise RpcError(INVALID_PARAMS, "historyLength: should be 0 or more")
    return asked
