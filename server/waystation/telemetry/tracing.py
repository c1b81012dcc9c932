"""What the server asks of tracing, without any library: `open_tracing` gives None where nobody traces.

request ──▶ RequestSpan ┄ traceparent in the run's row ┄▶ AttemptSpan ──▶ hearer: nodes, calls of models and tools
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol
from uuid import UUID

log = logging.getLogger(__name__)

Redact = Callable[[str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """An attempt of a run. `parent` is the trace context in its row; `waited_s` how long it was in the queue."""

    run_id: str
    attempt: int
    thread_id: str
    assistant_id: str
    graph_id: str
    tenant_id: str
    parent: str | None
    waited_s: float | None


class RequestSpan(Protocol):
    """A request that is being answered."""

    traceparent: str

    def end(self, *, route: str | None, status: int) -> None: ...


class CallHearer(Protocol):
    """LangChain's callbacks of one attempt, and what guards say of its calls."""

    def agreed(self, run_id: UUID) -> None: ...

    def refused(self, run_id: UUID, error: Exception) -> None: ...

    def close(self) -> None: ...


class AttemptSpan(Protocol):
    """An attempt that executes."""

    traceparent: str

    def current(self) -> AbstractContextManager[object]:
        """Within the block, spans that users' code makes belong to the attempt."""
        ...

    def hearer(self) -> CallHearer: ...

    def end(self, outcome: str, *, error: str | None = None) -> None: ...


class Tracing(Protocol):
    """The tracing of a process. From any thread."""

    def request(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> RequestSpan: ...

    def attempt(self, about: About) -> AttemptSpan: ...

    def close(self) -> None:
        """Send what is waiting; takes at most a few seconds."""
        ...


def open_tracing(*, exporters: str, version: str, content: bool, redact: Redact | None) -> Tracing | None:
    """Tracing by OpenTelemetry, as its own OTEL_* variables say. `content`: prompts and answers are shown, too, after
    `redact`. None, with a warning, where its packages are not installed.

    Raises:
        ValueError: there is no such exporter.
    """
    wanted = {name.strip() for name in exporters.split(",")} - {"", "none"}
    if not wanted:
        return None
    if not _is_installed("opentelemetry.sdk"):
        log.warning("OTEL_* asks for traces, which need the extra: pip install 'waystation[otel]'")
        return None
    from waystation.telemetry.otel import OtelTracing

    return OtelTracing(wanted, version=version, content=content, redact=redact)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


def exporters_of(environ: Mapping[str, str]) -> str:
    """Which exporters the standard variables name; none where there is no address to send to."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    chosen: Any = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if chosen:
        return str(chosen)
    addresses = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return "otlp" if any(environ.get(name, "").strip() for name in addresses) else ""
