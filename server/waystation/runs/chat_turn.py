"""A run read as one turn of a conversation: its events become words, tools that were used, questions, and an end.

messages|ns  [chunk, metadata] ─▶ Words      tokens of the nodes that are heard, as they come
                               ─▶ usage      of every model call, heard or not
updates|ns   {node: update}    ─▶ Words      messages that did not stream
                               ─▶ ToolUsed   a call and what it gave
end                            ─▶ Ended      calls that nobody answered, questions, usage, error
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from waystation.events import End, Event
from waystation.runs.chat_graph import MESSAGES, Audible, Path
from waystation.runs.chat_messages import Call, Said, said, text_of
from waystation_db.rows import FinalStatus

INTERRUPT = "__interrupt__"
_STRUCTURED = "ls_structured_output_format"
"""In the metadata of model calls whose text is data for the graph and not for the user."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of all model calls of a run."""

    input: int = 0
    output: int = 0
    total: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Usage:
        """From LangChain's `usage_metadata`."""
        inside: Mapping[str, Any] = given.get("input_token_details") or {}
        outside: Mapping[str, Any] = given.get("output_token_details") or {}
        return cls(
            input=given.get("input_tokens") or 0,
            output=given.get("output_tokens") or 0,
            total=given.get("total_tokens") or 0,
            cached=inside.get("cache_read") or 0,
            cache_write=inside.get("cache_creation") or 0,
            reasoning=outside.get("reasoning") or 0,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.total + other.total,
            self.cached + other.cached,
            self.cache_write + other.cache_write,
            self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True)
class Words:
    """The next words of an answer's message."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolUsed:
    """A call that the graph executed, and what the tool gave."""

    call: Call
    output: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """An interrupt: the graph waits for an answer."""

    id: str
    value: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """How the turn ended. `calls` are the client's to execute. `status` None: the run is gone."""

    status: FinalStatus | None
    error: Mapping[str, Any] | None
    usage: Usage
    finish: str | None
    calls: tuple[Call, ...]
    asked: tuple[Asked, ...]


Progress = Words | ToolUsed | Ended


class Turn:
    """Reads the events of one run. `before` are the messages that the thread had already, with those just sent."""

    def __init__(self, audible: Audible, *, before: Iterable[Any] = ()) -> None:
        self._audible = audible
        self._old: set[str] = set()
        self._calls: dict[str, Call] = {}
        self._texts: dict[str, str] = {}
        self._usage: dict[str, Usage] = {}
        self._asked: dict[str, Asked] = {}
        self._open: tuple[Call, ...] = ()
        self._finish: str | None = None
        self._unnamed = 0
        for message in before:
            self._remember(message)

    def read(self, event: Event) -> Iterator[Progress]:
        """What an event says."""
        if event.mode == "messages-tuple":
            message, metadata = orjson.loads(event.data)
            yield from self._streamed(_namespace(event.name), message, metadata)
        elif event.mode == "updates":
            yield from self._updated(_namespace(event.name), orjson.loads(event.data))

    def end(self, end: End) -> Ended:
        """The turn as a whole, after its last event."""
        asked = tuple(self._asked.values()) if end.status == "success" else ()
        calls = self._open if end.status == "success" and not asked else ()
        usage = sum(self._usage.values(), Usage())
        return Ended(end.status, end.error, usage, self._finish, calls, asked)

    def read_message(self, message: Any) -> Iterator[Progress]:
        """A whole message of the conversation, for turns that are read from a thread's state."""
        if (found := said(message)) is not None and found.kind in ("ai", "tool"):
            if found.usage and found.id:
                self._usage[found.id] = Usage.of(found.usage)
            yield from self._whole(found)

    def ask(self, interrupts: Iterable[Mapping[str, Any]]) -> None:
        """Note what a graph asks."""
        for interrupt in interrupts:
            self._asked[interrupt["id"]] = Asked(interrupt["id"], interrupt.get("value"))

    def _remember(self, message: Any) -> None:
        found = said(message)
        if found is not None:
            self._calls |= {call.id: call for call in found.calls}
            if found.id is not None:
                self._old.add(found.id)

    def _streamed(self, namespace: Path, message: dict[str, Any], metadata: Mapping[str, Any]) -> Iterator[Progress]:
        message_id: str | None = message.get("id")
        if message_id is None or message_id in self._old:
            return
        if usage := message.get("usage_metadata"):
            self._usage[message_id] = self._usage.get(message_id, Usage()) + Usage.of(usage)
        if message.get("type") != "AIMessageChunk" or _STRUCTURED in metadata:
            return
        text = text_of(message.get("content"))
        if text and self._audible.hears(namespace, str(metadata.get("langgraph_node", ""))):
            self._texts[message_id] = self._texts.get(message_id, "") + text
            yield Words(message_id, text)

    def _updated(self, namespace: Path, update: Any) -> Iterator[Progress]:
        if not isinstance(update, dict):
            return
        nodes = cast("dict[str, Any]", update)
        if not namespace and INTERRUPT in nodes:
            self.ask(nodes[INTERRUPT] or ())
        if self._audible.reaches_root(namespace):
            for message in _messages_in(nodes):
                if (found := said(message)) is not None:
                    yield from self._whole(found)

    def _whole(self, message: Said) -> Iterator[Progress]:
        if message.id is not None and message.id in self._old:
            return
        message_id = message.id or self._new_id()
        if message.kind == "tool":
            self._old.add(message_id)
            yield from self._answered(message)
        elif message.kind == "ai":
            self._old.add(message_id)
            self._calls |= {call.id: call for call in message.calls}
            self._open, self._finish = message.calls, message.finish or self._finish
            if rest := self._unsaid(message_id, message.text):
                yield Words(message_id, rest)

    def _answered(self, message: Said) -> Iterator[Progress]:
        call = self._calls.get(message.answers or "")
        if call is None:
            return
        self._open = tuple(other for other in self._open if other.id != call.id)
        yield ToolUsed(call, message.text, message.failed)

    def _unsaid(self, message_id: str, text: str) -> str:
        """What of a whole message has not gone out yet. A node may return what it streamed under another id."""
        sent = self._texts.get(message_id)
        if sent is None:
            again = text in self._texts.values()
            self._texts[message_id] = text
            return "" if again else text
        return text[len(sent) :] if text.startswith(sent) else ""

    def _new_id(self) -> str:
        self._unnamed += 1
        return f"unnamed-{self._unnamed}"


def _namespace(name: str) -> Path:
    """The nodes that lead to the graph an event is from: `updates|child:<task>|inner:<task>` is ("child", "inner")."""
    return tuple(segment.partition(":")[0] for segment in name.split("|")[1:])


def _messages_in(nodes: Mapping[str, Any]) -> Iterator[Any]:
    for update in nodes.values():
        for one in cast("list[Any]", update) if isinstance(update, list) else [update]:
            if not isinstance(one, dict):
                continue
            messages = cast("dict[str, Any]", one).get(MESSAGES)
            yield from cast("list[Any]", messages) if _is_several(messages) else [messages]


def _is_several(messages: Any) -> bool:
    """A list of messages, and not one message written as a pair of role and text."""
    if not isinstance(messages, list):
        return False
    found = cast("list[Any]", messages)
    return not (len(found) == 2 and all(isinstance(one, str) for one in found))
