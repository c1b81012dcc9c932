"""Tracing by OpenTelemetry: spans of requests and attempts. What it is sent to, how much and how often is said by the
standard OTEL_* variables, which its SDK reads.

Ids of attempts follow from the run's: attempt 3 links to attempt 2, whose process may be gone, without asking anybody.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from waystation.telemetry.logs import standard_output
from waystation.telemetry.otel_calls import SpanHearer
from waystation.telemetry.tracing import About, Redact

_CLOSING_MS: Final = 3000
_HEADERS: Final = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_propagator = TraceContextTextMapPropagator()

_next: ContextVar[tuple[int, int] | None] = ContextVar("waystation_next_span", default=None)
"""Ids of the trace and the span that are made next, where they are not to be random."""


class OtelTracing:
    """The tracing of a process (`tracing.Tracing`)."""

    def __init__(self, exporters: set[str], *, version: str, content: bool, redact: Redact | None) -> None:
        """Raises ValueError: there is no such exporter."""
        made = [_exporter(name) for name in sorted(exporters)]
        self._provider = TracerProvider(resource=_resource(version), id_generator=_Ids())
        for exporter in made:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)  # what graphs trace themselves goes the same way
        self._tracer = self._provider.get_tracer("waystation", version)
        self._content = content
        self._redact = redact

    def request(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> OtelRequest:
        carried = {_HEADERS[name]: value.decode("latin-1") for name, value in headers if name in _HEADERS}
        agent = next((value.decode("latin-1") for name, value in headers if name == b"user-agent"), "")
        about = {"http.request.method": method, "url.path": path, "user_agent.original": agent}
        parent = _propagator.extract(carried)
        return OtelRequest(self._tracer.start_span(method, parent, kind=SpanKind.SERVER, attributes=about), method)

    def attempt(self, about: About) -> OtelAttempt:
        carried = {} if about.parent is None else {"traceparent": about.parent}
        parent = _propagator.extract(carried, Context())
        known = trace.get_current_span(parent).get_span_context()
        trace_id = known.trace_id if known.is_valid else int(about.run_id.replace("-", ""), 16)
        attributes = _attributes(about)
        if about.waited_s is not None and known.is_valid:
            self._waited(about, parent)
        links = [_link(trace_id, about, at) for at in range(about.attempt - 1, max(0, about.attempt - 4), -1)]
        token = _next.set((trace_id, _span_id(about.run_id, about.attempt)))
        try:
            span = self._tracer.start_span(
                f"invoke_agent {about.graph_id}", parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links
            )
        finally:
            _next.reset(token)
        return OtelAttempt(span, self._tracer, content=self._content, redact=self._redact)

    def close(self) -> None:
        self._provider.force_flush(_CLOSING_MS)
        self._provider.shutdown()

    def _waited(self, about: About, parent: Context) -> None:
        now = time.time_ns()
        began = now - int((about.waited_s or 0) * 1e9)
        attributes = {"waystation.run.id": about.run_id}
        self._tracer.start_span(f"queue {about.graph_id}", parent, attributes=attributes, start_time=began).end(now)


class OtelRequest:
    """A request (`tracing.RequestSpan`)."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        self.traceparent = _traceparent(span)

    def end(self, *, route: str | None, status: int) -> None:
        span = self._span
        if route is not None:
            span.update_name(f"{self._method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class OtelAttempt:
    """An attempt (`tracing.AttemptSpan`)."""

    def __init__(self, span: Span, tracer: trace.Tracer, *, content: bool, redact: Redact | None) -> None:
        self._span = span
        self._tracer = tracer
        self._content = content
        self._redact = redact
        self.traceparent = _traceparent(span)

    def current(self) -> AbstractContextManager[object]:
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def hearer(self) -> SpanHearer:
        return SpanHearer(self._tracer, self._span, content=self._content, redact=self._redact)

    def end(self, outcome: str, *, error: str | None = None) -> None:
        self._span.set_attribute("waystation.run.outcome", outcome)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class _Ids(RandomIdGenerator):
    """Random ids, but where the next one is known."""

    def generate_trace_id(self) -> int:
        known = _next.get()
        return super().generate_trace_id() if known is None else known[0]

    def generate_span_id(self) -> int:
        known = _next.get()
        return super().generate_span_id() if known is None else known[1]


def _exporter(name: str) -> SpanExporter:
    match name:
        case "console":
            return ConsoleSpanExporter(out=standard_output(), formatter=lambda span: f"{span.to_json(indent=None)}\n")
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter()
        case _:
            raise ValueError(f"OTEL_TRACES_EXPORTER names {name!r}: otlp, console or none was expected")


def _resource(version: str) -> Resource:
    found = Resource.create()
    if not str(found.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        return found
    return found.merge(Resource({"service.name": "waystation", "service.version": version}))


def _attributes(about: About) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": about.graph_id,
        "gen_ai.agent.id": about.assistant_id,
        "gen_ai.conversation.id": about.thread_id,
        "waystation.run.id": about.run_id,
        "waystation.run.attempt": about.attempt,
        "waystation.tenant.id": about.tenant_id,
        **({} if about.waited_s is None else {"waystation.run.waited_s": round(about.waited_s, 6)}),
    }


def _link(trace_id: int, about: About, attempt: int) -> Link:
    before = SpanContext(trace_id, _span_id(about.run_id, attempt), is_remote=True, trace_flags=TraceFlags(1))
    return Link(before, {"waystation.run.attempt": attempt})


def _span_id(run_id: str, attempt: int) -> int:
    digest = hashlib.blake2b(f"{run_id}:{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def _traceparent(span: Span) -> str:
    known = span.get_span_context()
    return f"00-{known.trace_id:032x}-{known.span_id:016x}-{int(known.trace_flags):02x}"
