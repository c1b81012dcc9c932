"""One run's part of a thread's events, made from its log while it is read: numbers, conversions, the last event.

log ──▶ RunEvents.feed ──▶ thread events          classic: metadata ──▶ lifecycle `running`
row ──▶ RunEvents.last ──▶ what it asked, the end           values, updates, custom, tasks ──▶ the same channels
                                                           __interrupt__ ──▶ `input.requested`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import orjson

from waystation.events.log import Event
from waystation.events.protocol import (
    PROTOCOL_MODE,
    Namespace,
    ThreadEvent,
    encode,
    method_of,
    native_event,
    shortened,
    split_name,
)
from waystation_db.thread_events import STRIDE, RunSpan

INTERRUPT = "__interrupt__"


class RunEvents:
    """Feed it a run's log from its beginning, or a native one's from anywhere."""

    def __init__(self, span: RunSpan) -> None:
        self._span = span
        self._attempt = 1
        self._asked: set[str] = set()
        self.seq = span.base

    def feed(self, events: Iterable[Event]) -> list[ThreadEvent]:
        """The thread's events that these are."""
        made: list[ThreadEvent] = []
        for event in events:
            if event.mode == PROTOCOL_MODE:
                native = native_event(event)
                self.seq = native.seq
                made.append(native)
            else:
                made += self._converted(event)
        return made

    def last(self, span: RunSpan | None) -> list[ThreadEvent]:
        """What a run that has ended still has to say, from its row; None: it was deleted."""
        if span is None:
            return [self._lifecycle({"event": "interrupted"}, "interrupted", self._span.ended_ms)]
        made: list[ThreadEvent] = []
        if span.status == "success" and not span.is_native:
            made += self._inputs((), span.asked or (), span.ended_ms)
        if span.last is not None:
            self.seq = max(self.seq, span.last - 1)
        made.append(self._lifecycle(_ending(span), _ending(span)["event"], span.ended_ms))
        return made

    def _converted(self, event: Event) -> Iterator[ThreadEvent]:
        match event.mode:
            case "metadata":
                yield from self._running(orjson.loads(event.data).get("attempt", 1))
            case "values":
                yield from self._values(event)
            case "updates":
                yield from self._updates(event)
            case "custom":
                yield self._of_log(event, b'{"payload":%b}' % event.data)
            case "tasks":
                yield self._of_log(event, event.data)
            case _:
                pass

    def _running(self, attempt: int) -> Iterator[ThreadEvent]:
        self._attempt = attempt
        if attempt > 1 and not self._span.resumable:
            # How many numbers the attempt before took, nobody knows: what it streamed may be lost.
            self.seq = max(self.seq, self._span.base + (attempt - 1) * STRIDE)
        again = {} if attempt == 1 else {"attempt": attempt}
        yield self._lifecycle({"event": "running"} | again, "running", self._span.epoch_ms)

    def _values(self, event: Event) -> Iterator[ThreadEvent]:
        namespace = split_name(event.name)[1]
        values = orjson.loads(event.data)
        if isinstance(values, dict) and INTERRUPT in values:
            members = cast("dict[str, Any]", values)
            yield from self._inputs(namespace, members.pop(INTERRUPT), event.id.epoch_ms)
        yield self._of_log(event, orjson.dumps(shortened(values)))

    def _updates(self, event: Event) -> Iterator[ThreadEvent]:
        updates: Any = orjson.loads(event.data)
        if isinstance(updates, dict) and INTERRUPT in updates:
            members = cast("dict[str, Any]", updates)
            yield from self._inputs(split_name(event.name)[1], members[INTERRUPT], event.id.epoch_ms)
        elif isinstance(updates, dict) and len(members := cast("dict[str, Any]", updates)) == 1:
            ((node, update),) = members.items()
            yield self._of_log(event, orjson.dumps(shortened(update)), node=node)
        else:
            yield self._of_log(event, orjson.dumps(shortened(updates)))

    def _inputs(self, namespace: Namespace, asked: Iterable[Any], at_ms: int) -> Iterator[ThreadEvent]:
        for question in asked:
            if not isinstance(question, dict):
                continue
            members = cast("dict[str, Any]", question)
            asked_id = str(members.get("id", ""))
            if asked_id in self._asked:
                continue
            self._asked.add(asked_id)
            data = orjson.dumps({"interrupt_id": asked_id, "payload": members.get("value")})
            name = f"{synthetic(self._span.key.run_id, 1)}:input|{asked_id}"
            yield self._event(name, "input", namespace, data, at_ms)

    def _lifecycle(self, data: dict[str, Any], what: str, at_ms: int) -> ThreadEvent:
        event, *others = data.items()
        encoded = orjson.dumps(dict([event, ("graph_name", self._span.graph_id), *others]))
        return self._event(f"{self._made_by()}:lc||{what}", "lifecycle", (), encoded, at_ms)

    def _made_by(self) -> str:
        return synthetic(self._span.key.run_id, self._attempt)

    def _of_log(self, event: Event, data: bytes, *, node: str | None = None) -> ThreadEvent:
        channel, namespace = split_name(event.name)
        return self._event(str(event.id), channel, namespace, data, event.id.epoch_ms, node)

    def _event(
        self, event_id: str, channel: str, namespace: Namespace, data: bytes, at_ms: int, node: str | None = None
    ) -> ThreadEvent:
        self.seq += 1
        encoded = encode(event_id, self.seq, channel, namespace, timestamp_ms=at_ms, data=data, node=node)
        return ThreadEvent(self.seq, method_of(channel), channel, namespace, encoded)


def synthetic(run_id: str, attempt: int) -> str:
    """The beginning of the ids of events that the server makes; an attempt that begins again has others."""
    return f"synth:{run_id}" if attempt == 1 else f"synth:{run_id}:{attempt}"


def _ending(span: RunSpan) -> dict[str, Any]:
    match span.status:
        case "success":
            return {"event": "interrupted" if span.asked else "completed"}
        case "error" | "timeout":
            return {"event": "failed", "error": str((span.error or {}).get("message", ""))}
        case _:
            return {"event": "interrupted"}
