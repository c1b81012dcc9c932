"""One request and its answer, before an API gives them its form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil
from typing import Any, Final, Literal, Protocol, cast

from .plan import Plan

_ids = count(1)
_TRUNCATED: Final = (("search", {"query": "one two three four"}),)

Finish = Literal["stop", "length", "tool_calls", "refusal"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, whichever API it came by."""

    model: str
    stream: bool
    wants_usage: bool
    max_tokens: int | None
    input_tokens: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What is answered: words (a token each) and tool calls, whose arguments are a token per piece."""

    id: str
    asked: Asked
    words: Sequence[str]
    calls: Sequence[tuple[str, str, Sequence[str]]]
    """Id, name and the arguments' JSON in pieces."""
    finish: Finish
    plan: Plan

    @property
    def tokens(self) -> int:
        """Output tokens, reasoning included."""
        return self.plan.reasoning + len(self.words) + sum(len(pieces) for _, _, pieces in self.calls)

    @property
    def cached(self) -> int:
        return min(self.plan.cached, self.asked.input_tokens)


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of a stream. `tokens`: how many it brings. `is_end`: it belongs to the end; `is_mark`: it is the
    protocol's last line."""

    data: bytes
    tokens: int = 0
    is_end: bool = False
    is_mark: bool = False


class Api(Protocol):
    """A provider's API."""

    name: str

    def asked(self, body: Mapping[str, Any], model: str | None) -> Asked: ...

    def whole(self, turn: Turn) -> dict[str, Any]: ...

    def events(self, turn: Turn) -> Iterator[Event]: ...

    def error(self, kind: str, message: str | None = None) -> dict[str, Any]: ...

    def error_event(self, kind: str) -> bytes: ...


def turn_of(asked: Asked, plan: Plan, answers: Callable[[Mapping[str, Any]], str]) -> Turn:
    """The answer that a plan foresees."""
    number = next(_ids)
    words = (
        []
        if plan.fault == "empty"
        else re.findall(r"\S+\s*", plan.text or ("" if plan.tool_calls else answers(asked.body)))
    )
    given = plan.tool_calls or (
        (("search", {"query": "one two three four"}),) if plan.fault == "truncated_tool" else ()
    )
    calls = [(f"call_{number}_{place}", name, _pieces(arguments)) for place, (name, arguments) in enumerate(given)]
    finish: Finish = "tool_calls" if calls else "stop"
    if plan.fault == "truncated_tool":
        calls = [(id_, name, pieces[: max(1, len(pieces) // 2)]) for id_, name, pieces in calls]
    if plan.fault == "refusal":
        words, calls, finish = words[: plan.after], [], "refusal"
    if asked.max_tokens is not None and len(words) > asked.max_tokens:
        words, calls, finish = words[: asked.max_tokens], [], "length"
    return Turn(f"resp_{number}", asked, words, calls, finish, plan)


def input_tokens(texts: Sequence[str], tools: Any) -> int:
    """Four characters a token, and three more per message: near what byte-pair encodings make of English."""
    described = ceil(len(json.dumps(tools)) / 4) if tools else 0
    return sum(3 + ceil(len(text) / 4) for text in texts) + described


def text_of(content: Any) -> str:
    """The text of a message's content, in any API's form."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part) for part in cast("list[Any]", content))
    if isinstance(content, Mapping):
        part = cast("Mapping[str, Any]", content)
        return text_of(part.get("text") or part.get("content") or part.get("output") or "")
    return ""


def sse(data: Any, event: str = "") -> bytes:
    """A server-sent event."""
    line = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {line}\n\n".encode()


def _pieces(arguments: Mapping[str, Any]) -> list[str]:
    text = json.dumps(arguments)
    return [text[at : at + 8] for at in range(0, len(text), 8)]
