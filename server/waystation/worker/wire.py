"""Turns what a graph streams into the events of the protocol: names, namespaces and one line of JSON each.

    graph.astream(modes) ────────────────┐
                                         ├─▶ (namespace, mode, payload) ─▶ encode ─▶ (name, data, mode)
    graph.astream_events ─▶ root chunks ─┘
        (mode `events`)  └▶ the runnables' own events ────────────────────▶ encode ─▶ ("events", data, "events")

`values` and `updates` are always streamed, whatever the client asked for: from them the worker knows the run's output
and whether it stopped at an interrupt or a breakpoint. Ids are the publisher's, `metadata` and `error` the worker's to
send.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, cast

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl
from langgraph.types import Durability, Interrupt, StreamMode

from waystation.worker.publisher import WireEvent
from waystation.worker.wire_messages import EncodedOnce, GrowingMessages, TupleMessages, with_metadata_once
from waystation_db.json import dumps

AnyGraph = Pregel[Any, Any, Any, Any]
Breakpoints = Literal["*"] | Sequence[str] | None

INTERRUPT: Final = "__interrupt__"
_NOTHING: Final = object()
_SHOWN: Final = frozenset({"values", "updates", "custom", "tasks"})
_CHECKPOINT_KEYS: Final = ("checkpoint_id", "thread_id", "checkpoint_ns", "checkpoint_map")


class Wire:
    """The events of one attempt, in the modes its client asked for. Used once."""

    def __init__(self, modes: str | Sequence[str], *, subgraphs: bool = False) -> None:
        asked = [modes] if isinstance(modes, str) else list(modes)
        self._asked = frozenset(asked or ["values"])
        self._subgraphs = subgraphs
        self._metadata_json = EncodedOnce()
        tuples = "messages-tuple" in self._asked  # asked for both, a client gets this form only
        self._messages = TupleMessages(self._metadata_json) if tuples else GrowingMessages(self._metadata_json)
        self._values: Any = _NOTHING
        self._values_json: bytes | None = None
        self._interrupts: dict[str, Interrupt[Any]] = {}
        self._paused = False
        self._shown = 0

    @property
    def shown(self) -> int:
        """How many of its events are events of the thread, too, when the run's log is converted to these."""
        return self._shown

    @property
    def stream_modes(self) -> list[StreamMode]:
        """What LangGraph has to stream for this wire."""
        modes = {"messages" if mode == "messages-tuple" else mode for mode in self._asked} - {"events"}
        return cast("list[StreamMode]", sorted(modes | {"values", "updates"}))

    @property
    def paused(self) -> bool:
        """The graph stopped at an interrupt or at a breakpoint. True only after the stream ended."""
        return self._paused

    @property
    def interrupts(self) -> list[Interrupt[Any]]:
        """What the root graph's tasks asked, subgraphs' included; empty at a breakpoint."""
        return list(self._interrupts.values())

    @property
    def last_values(self) -> Any:
        """The root graph's latest output values, without interrupts; None before the first."""
        return None if self._values is _NOTHING else self._values

    def output(self) -> bytes | None:
        """JSON of what a waiting client gets: the last values, with `__interrupt__` if something was asked.

        None if the graph streamed no values, as when there was nothing to do.
        """
        if self._interrupts:
            values: Any = self.last_values
            return dumps({**(values if isinstance(values, dict) else {}), INTERRUPT: self.interrupts})
        if self._values is _NOTHING:
            return None
        return self._values_json or dumps(self._values)

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
        """Run the graph and give its events, those of one chunk together. Raises whatever the graph raises.

        Cancelling this cancels the graph.
        """
        options: dict[str, Any] = {
            "context": context,
            "stream_mode": self.stream_modes,
            "subgraphs": self._subgraphs,
            "output_keys": graph.output_channels,
            "interrupt_before": interrupt_before,
            "interrupt_after": interrupt_after,
            "durability": durability,
            "control": control,
        }
        if "events" in self._asked:
            chunks = self._with_runnable_events(graph, input, config, options)
        else:
            chunks = self._chunks(graph, input, config, options)
        async with aclosing(chunks):
            async for events in chunks:
                if events:
                    yield events

    async def _chunks(
        self, graph: AnyGraph, input: Any, config: RunnableConfig, options: dict[str, Any]
    ) -> AsyncGenerator[list[WireEvent]]:
        stream = cast("AsyncGenerator[tuple[Any, ...]]", cast("Any", graph).astream(input, config, **options))
        async with aclosing(stream):
            async for chunk in stream:
                yield self._encode_chunk(chunk)

    async def _with_runnable_events(
        self, graph: AnyGraph, input: Any, config: RunnableConfig, options: dict[str, Any]
    ) -> AsyncGenerator[list[WireEvent]]:
        events = cast("Any", graph).astream_events(input, config, version="v2", **options)
        stream = cast("AsyncGenerator[dict[str, Any]]", events)
        async with aclosing(stream):
            async for event in stream:
                if event["event"] == "on_chain_stream" and not event["parent_ids"]:
                    yield self._encode_chunk(event["data"]["chunk"])
                else:
                    yield [("events", with_metadata_once(event, self._metadata_json), "events")]

    def _encode_chunk(self, chunk: tuple[Any, ...]) -> list[WireEvent]:
        namespace, mode, payload = chunk if self._subgraphs else ((), *chunk)
        return self.encode(namespace, mode, payload)

    def encode(self, namespace: tuple[str, ...], mode: str, payload: Any) -> list[WireEvent]:
        """The events of one of LangGraph's chunks: none if its mode was not asked for."""
        if mode == "messages":
            message, metadata = payload
            return self._messages.encode(message, metadata, _suffix(namespace))
        if not namespace:
            self._note(mode, payload)
        if mode not in self._asked:
            return []
        if mode in _SHOWN and not (mode == "updates" and isinstance(payload, dict) and INTERRUPT in payload):
            self._shown += 1
        data = _ENCODERS.get(mode, dumps)(payload)
        if mode == "values" and not namespace:
            self._values_json = data
        return [(f"{mode}{_suffix(namespace)}", data, mode)]

    def _note(self, mode: str, payload: Any) -> None:
        """Remember what the outcome of the run depends on."""
        if mode == "values":
            values = payload
            if isinstance(payload, dict) and INTERRUPT in payload:
                values = {k: v for k, v in cast("dict[str, Any]", payload).items() if k != INTERRUPT}
                if not values and self._values is not _NOTHING:  # a functional graph's: its values are not in there
                    return
            elif self._interrupts:  # finished neighbours of the asking task: in the stream, not yet in the state
                return
            self._values, self._values_json = values, None
        elif mode == "updates" and isinstance(payload, dict) and INTERRUPT in payload:
            self._paused = True
            for interrupt in cast("Sequence[Interrupt[Any]]", payload[INTERRUPT]):
                self._interrupts[interrupt.id] = interrupt


def metadata_event(run_id: str, attempt: int) -> WireEvent:
    """The first event of every attempt."""
    return "metadata", orjson.dumps({"run_id": run_id, "attempt": attempt}), "metadata"


def error_event(data: bytes) -> WireEvent:
    """The last event of a run that failed; `data` is the JSON of `{"error": class name, "message": text}`."""
    return "error", data, "error"


def _suffix(namespace: tuple[str, ...]) -> str:
    return "".join(f"|{segment}" for segment in namespace)


def _checkpoints(payload: Mapping[str, Any]) -> bytes:
    return dumps(_shown(payload))


def _debug(payload: Mapping[str, Any]) -> bytes:
    """As mode `checkpoints` and `tasks`, with the checkpoints named once more in the flat form of thread states."""
    if payload["type"] != "checkpoint":
        return dumps(payload)
    shown = _shown(payload["payload"])
    shown["tasks"] = [_flat_task(task) for task in shown["tasks"]]
    shown["checkpoint"] = _flat_checkpoint(shown["config"])
    shown["parent_checkpoint"] = _flat_checkpoint(shown["parent_config"])
    return dumps({**payload, "payload": shown})


def _shown(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint payload whose configs have lost the keys that are internal to the server or to LangGraph."""
    return {name: _shown_config(v) if name in ("config", "parent_config") else v for name, v in checkpoint.items()}


def _shown_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    return {"configurable": {k: v for k, v in config["configurable"].items() if not k.startswith("__")}}


def _flat_checkpoint(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    return {k: config["configurable"][k] for k in _CHECKPOINT_KEYS if k in config["configurable"]}


def _flat_task(task: Mapping[str, Any]) -> dict[str, Any]:
    state = task.get("state")
    if not isinstance(state, dict):
        return dict(task)
    flat = {name: value for name, value in task.items() if name != "state"}
    return {**flat, "checkpoint": cast("dict[str, Any]", state)["configurable"]}


_ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {"checkpoints": _checkpoints, "debug": _debug}
