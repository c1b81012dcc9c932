"""Whether an answer that came to its end is one: streams that end cleanly may lack their end all the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk

from waystation_guards.failover.errors import MalformedAnswer
from waystation_guards.failover.stream import has_other_blocks

ENDS_ARE_MARKED: Final = frozenset(("openai", "azure", "azure_openai", "anthropic"))
"""Providers (LangChain's `ls_provider`) whose streams always say why they ended."""

_CUT_OFF: Final = ("length", "max_tokens", "incomplete")
"""Reasons to stop with which an answer may be empty, or stop anywhere: the caller's own limit was reached."""


@dataclass(slots=True)
class Ending:
    """Collects what tells whether an answer is complete."""

    provider: str
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    has_content: bool = False
    _arguments: dict[Any, str] = field(default_factory=dict[Any, str])

    def note(self, piece: AIMessage) -> None:
        """Take a piece, or a whole answer, into account."""
        self.metadata.update(piece.response_metadata)
        if piece.text or has_other_blocks(piece) or piece.tool_calls or piece.additional_kwargs.get("refusal"):
            self.has_content = True
        if isinstance(piece, AIMessageChunk):
            for call in piece.tool_call_chunks:
                self.has_content = True
                index = call.get("index")
                self._arguments[index] = self._arguments.get(index, "") + (call.get("args") or "")
        elif piece.invalid_tool_calls:
            self.has_content, self._arguments["invalid"] = True, "{"

    @property
    def reason(self) -> str:
        """Why the provider stopped; empty where it says nothing."""
        named = (self.metadata.get(name) for name in ("finish_reason", "stop_reason", "done_reason", "status"))
        return next((str(name) for name in named if name), "")

    def check(self, *, streamed: bool) -> None:
        """Raises MalformedAnswer if what has come is no answer."""
        if streamed and not self.reason and self.provider in ENDS_ARE_MARKED:
            raise MalformedAnswer("the stream ended without its end marker")
        if self.reason in _CUT_OFF:
            return
        if not self.has_content:
            raise MalformedAnswer("the answer is empty", is_empty=True)
        if any(map(_is_cut, self._arguments.values())):
            raise MalformedAnswer("a tool call stops in the middle of its arguments")


def _is_cut(arguments: str) -> bool:
    try:
        json.loads(arguments or "{}")
    except ValueError:
        return True
    return False
