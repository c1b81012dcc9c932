"""Runs a graph for the streaming protocol: what LangGraph's own protocol stream gives, as numbered events.

    graph.astream_events(version="v3") ──▶ translate ──▶ number and encode ──▶ (name, data, mode) for the publisher

What comes out depends on the graph: state and messages always, updates, custom and tool events where it was compiled
with the transformers for them. Each event of the log is one event of the thread.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core._api import suppress_langchain_beta_warning
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl
from langgraph.stream import ProtocolEvent, StreamTransformer
from langgraph.types import Durability, Interrupt

from waystation.events.protocol import PROTOCOL_MODE, encode, log_name
from waystation.events.run_events import INTERRUPT, synthetic
from waystation.worker.native_json import short_dumps
from waystation.worker.publisher import WireEvent
from waystation.worker.wire import Breakpoints
from waystation_db.json import dumps
from waystation_db.rows import ClaimedRun

AnyGraph = Pregel[Any, Any, Any, Any]
Event = tuple[str, list[str], bytes, str | None]
"""Channel, namespace, JSON of the data, and an id of its own for an event that the server makes."""

_NOTHING: Final = object()
_UNIT: Final = "\x1f"


class NativeWire:
    """The events of one attempt. Used once."""

    def __init__(self, run: ClaimedRun, *, before: int) -> None:
        """`before`: how many numbers the attempts before took."""
        self._run = run
        self._numbers = before
        self._count = 0
        self._values: Any = _NOTHING
        self._interrupts: dict[str, Interrupt[Any]] = {}
        self._paused = False
        self._announced: set[str] = set()

    @property
    def numbers(self) -> int:
        """How many numbers the run has taken, all attempts together."""
        return self._numbers

    @property
    def paused(self) -> bool:
        """The graph stopped at an interrupt or at a breakpoint. True only after the stream ended."""
        return self._paused

    @property
    def interrupts(self) -> list[Interrupt[Any]]:
        """What the root graph's tasks asked, subgraphs' included."""
        return list(self._interrupts.values())

    def output(self) -> bytes | None:
        """JSON of what a waiting client gets: the last values, with `__interrupt__` if something was asked."""
        if self._interrupts:
            values: Any = self._values
            return dumps({**(values if isinstance(values, dict) else {}), INTERRUPT: self.interrupts})
        return None if self._values is _NOTHING else dumps(self._values)

    def began(self) -> list[WireEvent]:
        """The first event of every attempt."""
        again = {} if self._run.attempt == 1 else {"attempt": self._run.attempt}
        data = dumps({"event": "running", "graph_name": self._run.graph_id} | again)
        return [self._encoded(("lifecycle", [], data, f"{self._made_by}:lc||running"))]

    def asks_again(self, asked: Sequence[Interrupt[Any]]) -> list[WireEvent]:
        """For an attempt that found the graph at its question: told once more, as nobody knows whether it was."""
        self._interrupts |= {interrupt.id: interrupt for interrupt in asked}
        return [self._encoded(one) for one in self._inputs([], asked)]

    async def stream(
        self,
        graph: AnyGraph,
        input: Any,
        *,
        config: RunnableConfig,
        context: Any = None,
        interrupt_before: Breakpoints = None,
        interrupt_after: Breakpoints = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
    ) -> AsyncGenerator[list[WireEvent]]:
        """Run the graph and give its events. Raises whatever the graph raises; cancelling this cancels the graph."""
        stop = _StopNoticed(shown=_streams_updates(graph))
        with suppress_langchain_beta_warning():
            run = await cast("Any", graph).astream_events(
                input,
                config,
                version="v3",
                context=context,
                output_keys=graph.output_channels,
                interrupt_before=interrupt_before,
                interrupt_after=interrupt_after,
                durability=durability,
                control=control,
                transformers=[stop.transformer],
            )
        try:
            events = cast("AsyncIterator[Mapping[str, Any]]", run)
            async for event in events:
                if made := [self._encoded(one) for one in self._translated(event)]:
                    yield made
        finally:
            await run.abort()
        self._paused = stop.noticed or bool(self._interrupts)

    def _encoded(self, event: Event) -> WireEvent:
        channel, namespace, data, own_id = event
        self._numbers += 1
        event_id = own_id or f"{self._run.epoch_ms}-{self._count}"
        self._count += 1
        seq = self._run.event_base + self._numbers
        now_ms = time.time_ns() // 1_000_000
        encoded = encode(event_id, seq, channel, namespace, timestamp_ms=now_ms, data=data)
        return log_name(channel, namespace), encoded, PROTOCOL_MODE

    def _translated(self, event: Mapping[str, Any]) -> Iterator[Event]:
        method: str = event["method"]
        params: Mapping[str, Any] = event["params"]
        namespace: list[str] = params["namespace"]
        data: Any = params["data"]
        match method:
            case "values":
                yield from self._values_of(namespace, data, params.get("interrupts") or ())
            case "updates":
                yield from self._updates_of(namespace, data)
            case "messages":
                yield from _message(namespace, data)
            case "tools":
                yield "tools", namespace, dumps(data), None
                yield from _tool_message(namespace, data)
            case "custom":
                yield "custom", namespace, short_dumps(data), None
            case "lifecycle":
                yield from self._lifecycle_of(namespace, data)
            case _ if method.startswith("custom:"):
                payload = {"name": method.removeprefix("custom:"), "payload": data}
                yield method, namespace, short_dumps(payload), None
            case _:  # tasks, checkpoints, debug: asked for by transformers, for themselves
                pass

    def _values_of(self, namespace: list[str], data: Any, asked: Sequence[Interrupt[Any]]) -> Iterator[Event]:
        yield from self._inputs(namespace, asked)
        if not namespace:
            self._interrupts |= {interrupt.id: interrupt for interrupt in asked}
            self._values = data
        yield "values", namespace, short_dumps(data), None

    def _updates_of(self, namespace: list[str], data: Any) -> Iterator[Event]:
        if not isinstance(data, dict) or INTERRUPT not in data:
            yield "updates", namespace, short_dumps(data), None
            return
        updates = cast("dict[str, Any]", data)
        yield "updates", namespace, short_dumps({k: v for k, v in updates.items() if k != INTERRUPT}), None
        yield from self._inputs(namespace, updates[INTERRUPT])

    def _inputs(self, namespace: list[str], asked: Sequence[Interrupt[Any]]) -> Iterator[Event]:
        for interrupt in asked:
            if interrupt.id in self._announced:
                continue
            self._announced.add(interrupt.id)
            # The same question of another attempt is the same event: clients know it by its id.
            own_id = f"{synthetic(self._run.key.run_id, 1)}:input|{interrupt.id}"
            yield "input", namespace, dumps({"interrupt_id": interrupt.id, "payload": interrupt.value}), own_id

    def _lifecycle_of(self, own: list[str], data: Mapping[str, Any]) -> Iterator[Event]:
        """A subgraph's beginning and end. One that was left at an interrupt goes on later: that is no end."""
        namespace: list[str] = data.get("namespace") or own
        match data["event"]:
            case "started":
                yield "lifecycle", namespace, dumps(data), None
            case "completed" | "failed" as what:
                name = namespace[-1].partition(":")[0] if namespace else self._run.graph_id
                ended = {"event": what, "graph_name": name}
                if "error" in data:
                    ended["error"] = data["error"]
                yield "lifecycle", namespace, dumps(ended), f"{self._made_by}:lc|{_UNIT.join(namespace)}|{what}"
            case _:
                pass

    @property
    def _made_by(self) -> str:
        return synthetic(self._run.key.run_id, self._run.attempt)


class _StopNoticed:
    """Tells whether the root graph stopped before its end: at a breakpoint nothing but its updates say so."""

    def __init__(self, *, shown: bool) -> None:
        """`shown`: the graph streams updates of its own accord, and not only for this."""
        self.shown = shown
        self.noticed = False

    def transformer(self, scope: tuple[str, ...]) -> StreamTransformer:
        """What LangGraph puts into its stream."""
        return _Updates(scope, self)


class _Updates(StreamTransformer):
    required_stream_modes = ("updates",)

    def __init__(self, scope: tuple[str, ...], stop: _StopNoticed) -> None:
        super().__init__(scope)
        self._stop = stop

    def init(self) -> dict[str, Any]:
        return {}

    def process(self, event: ProtocolEvent) -> bool:
        if event["method"] != "updates":
            return True
        data = event["params"]["data"]
        if not event["params"]["namespace"] and isinstance(data, dict) and INTERRUPT in data:
            self._stop.noticed = True
        return self._stop.shown


def _streams_updates(graph: AnyGraph) -> bool:
    factories = cast("Sequence[Callable[[tuple[str, ...]], Any]]", graph.stream_transformers or ())
    return any("updates" in getattr(factory(()), "required_stream_modes", ()) for factory in factories)


def _message(namespace: list[str], data: Any) -> Iterator[Event]:
    """Pieces of a message that a model streams; messages that a node returns whole are in the values."""
    payload, _metadata = data
    if isinstance(payload, dict) and "event" in payload:
        yield "messages", namespace, dumps(payload), None


def _tool_message(namespace: list[str], data: Mapping[str, Any]) -> Iterator[Event]:
    """A tool's result once more, as a message of its own in a namespace below."""
    output = data.get("output")
    if data.get("event") != "tool-finished" or not isinstance(output, ToolMessage):
        return
    call_id: str = data["tool_call_id"]
    below = [*namespace, f"tools:{call_id}"]
    start = {"event": "message-start", "role": "tool", "id": output.id or f"tool-{call_id}", "tool_call_id": call_id}
    yield "messages", below, dumps(start), None
    for index, block in enumerate(_blocks(output)):
        empty = {**block, "text": ""} if block.get("type") == "text" else block
        for what, content in (("start", empty), ("delta", block), ("finish", block)):
            piece = {"event": f"content-block-{what}", "index": index, "content": content}
            yield "messages", below, dumps(piece), None
    yield "messages", below, dumps({"event": "message-finish", "metadata": {}}), None


def _blocks(message: ToolMessage) -> list[dict[str, Any]]:
    content = cast("Any", message).content
    parts: list[Any] = [content] if isinstance(content, str) else content
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
