"""Tool calls that cannot be meant: cut off (LangChain completes their arguments, so that they look like whole ones), or
with arguments that do not fit the tool's schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ValidationError

Check = Callable[[Any], None]
"""Raises ValueError for arguments that are wrong."""


def has_broken_call(message: AIMessage) -> bool:
    """Whether the arguments of a tool call are no JSON as the model wrote them."""
    if message.invalid_tool_calls:
        return True
    pieces = message.tool_call_chunks if isinstance(message, AIMessageChunk) else []
    return any(not _is_json(piece["args"]) for piece in pieces)


def calls_fit(message: AIMessage, checks: Mapping[str, Check]) -> bool:
    """Whether the arguments of all tool calls are as their tools want them. What is not known is not checked."""
    try:
        for call in message.tool_calls:
            checks.get(call["name"], _anything)(call["args"])
    except (ValueError, ValidationError):
        return False
    return True


def checks_of(tools: Sequence[Any]) -> dict[str, Check]:
    """For each tool what raises for arguments that do not fit: its schema's class, or its required members."""
    found: dict[str, Check] = {}
    for tool in tools:
        if isinstance(tool, type) and issubclass(tool, BaseModel):
            found[tool.__name__] = _by_class(tool)
        elif isinstance(tool, BaseTool):
            shown: Any = tool.tool_call_schema
            found[tool.name] = _by_class(shown) if isinstance(shown, type) else _by_members(shown)
        elif isinstance(tool, dict):
            described = cast("dict[str, Any]", tool)
            function = cast("dict[str, Any]", described.get("function") or described)
            name = function.get("name") or function.get("title")
            if name and described.get("type", "function") in ("function", "custom", "object"):
                found[str(name)] = _by_members(function.get("parameters") or function.get("input_schema") or function)
        elif callable(function := cast("object", tool)):
            found[str(getattr(function, "__name__", ""))] = _anything
    return found


def _is_json(text: str | None) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return False
    return True


def _by_class(schema: type[Any]) -> Check:
    def check(arguments: Any) -> None:
        cast("type[BaseModel]", schema).model_validate(arguments)

    return check if issubclass(schema, BaseModel) else _anything


def _by_members(schema: Any) -> Check:
    members = cast("dict[str, Any]", schema) if isinstance(schema, dict) else {}
    required = cast("list[str]", members.get("required") or [])

    def check(arguments: Any) -> None:
        if missing := [name for name in required if name not in arguments]:
            raise ValueError(f"{', '.join(missing)} is missing")

    return check


def _anything(_arguments: Any) -> None:
    return None
