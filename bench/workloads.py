"""What is measured: the workloads, the same for every contender, and where we want to arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Kind = Literal["wait", "stream", "background"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`count` runs of `graph` by `clients` at a time, but no new one after `seconds`; each on a thread of its own.

    `mark`: what the events that count are called on the wire.
    """

    name: str
    graph: str
    kind: Kind
    clients: int
    count: int
    seconds: float
    warmup: int = 20
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stream_mode: str = "values"
    mark: str = ""

    def shorter(self) -> Workload:
        """For a first look: a figure that is good enough to compare."""
        count = self.clients if self.name == "models" else max(self.clients, self.count // 3)
        return replace(self, count=count, seconds=self.seconds / 2.5, warmup=max(2, self.warmup // 2))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


_MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "go on"}]}
_TOKENS: dict[str, Any] = {
    "graph": "tokens",
    "kind": "stream",
    "stream_mode": "messages-tuple",
    "mark": "messages",
}

_BURST: dict[str, Any] = {"graph": "burst", "input": {"events": 500}, "stream_mode": "custom", "mark": "custom"}
_CALLS: dict[str, Any] = {"graph": "trivial", "kind": "wait"}

WORKLOADS = (
    Workload(name="wait", clients=1, count=400, seconds=4, **_CALLS),
    Workload(name="wait32", clients=32, count=1600, seconds=5, **_CALLS),
    Workload(name="steps", graph="ten_steps", kind="wait", clients=8, count=400, seconds=5),
    Workload(name="first", clients=1, count=200, seconds=4, input={**_MESSAGES, "count": 5}, **_TOKENS),
    Workload(name="tokens", clients=4, count=160, seconds=5, input={**_MESSAGES, "count": 200}, **_TOKENS),
    Workload(name="burst", kind="stream", clients=1, count=60, seconds=4, warmup=4, **_BURST),
    Workload(name="burst8", kind="stream", clients=8, count=200, seconds=5, warmup=4, **_BURST),
    Workload(name="background", graph="trivial", kind="background", clients=8, count=1000, seconds=60),
    Workload(
        name="models",
        clients=300,
        count=300,
        seconds=60,
        warmup=4,
        input={**_MESSAGES, "count": 20, "pause_s": 0.05},
        **_TOKENS,
    ),
)


@dataclass(frozen=True)
class Figure:
    """A line of the table: a key of a workload's measurement, and the target with the side it has to be on."""

    workload: str
    key: str
    title: str
    target: str = ""


FIGURES = (
    Figure("wait", "p50_ms", "`wait`, 1 client: p50, ms", "≤ 6"),
    Figure("wait", "p99_ms", "`wait`, 1 client: p99, ms"),
    Figure("wait32", "per_s", "`wait`, 32 clients: runs/s", "≥ 350"),
    Figure("wait32", "p50_ms", "`wait`, 32 clients: p50, ms"),
    Figure("wait32", "p99_ms", "`wait`, 32 clients: p99, ms"),
    Figure("wait32", "cpu_ms", "trivial run: CPU, ms", "≤ 4"),
    Figure("steps", "cpu_ms", "10 supersteps: CPU, ms", "≤ 9"),
    Figure("steps", "per_s", "10 supersteps, 8 clients: runs/s"),
    Figure("first", "first_event_ms", "stream, 1 client: first event p50, ms"),
    Figure("first", "first_mark_ms", "stream, 1 client: first token p50, ms", "≤ 6"),
    Figure("tokens", "cpu_ms", "200 streamed tokens: CPU, ms", "≤ 1.4 × in process"),
    Figure("burst", "marks_per_s", "500-event runs, 1 client: events/s"),
    Figure("burst8", "marks_per_s", "500-event runs, 8 clients: events/s", "≥ 10,000"),
    Figure("burst8", "cpu_us_per_mark", "500-event runs, 8 clients: CPU per event, µs"),
    Figure("background", "p50_ms", "background run accepted: p50, ms"),
    Figure("background", "accepted_per_s", "background runs accepted: runs/s"),
    Figure("background", "per_s", "background runs, created to all success: runs/s", "≥ 400"),
    Figure("background", "cpu_ms", "background run: CPU, ms"),
    Figure("models", "p50_ms", "300 model streams of 1 s at once: p50, ms"),
    Figure("models", "p99_ms", "300 model streams of 1 s at once: p99, ms", "≤ 3,000"),
)
