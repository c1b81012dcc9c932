"""When there is tracing, what is taken for a trace context, and which spans refused and cancelled calls leave."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from waystation.telemetry import trace_context, tracing
from waystation.telemetry.otel_calls import SpanHearer

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Refusal(Exception):
    """What a guard raises."""

    code = "over_budget"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (GOOD, GOOD),
        (f" {GOOD} ", GOOD),
        (GOOD.replace("00-", "cc-", 1) + "-later", GOOD.replace("00-", "cc-", 1)),
        ("", None),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", None),
        (GOOD.upper(), None),
        (GOOD.replace("00-", "ff-", 1), None),
        ("ü" * 55, None),
        (GOOD + "-" + "x" * 200, None),
    ],
)
def test_what_is_no_trace_context_is_as_if_nothing_were_sent(sent: str, kept: str | None) -> None:
    assert trace_context.parsed(sent.encode()) == kept
    assert trace_context.trace_id_of(kept) == (kept and kept[3:35])


def test_it_is_switched_on_by_an_address_or_an_exporter() -> None:
    asked = tracing.exporters_of
    assert asked({}) == ""
    assert asked({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) == ""
    assert asked({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}) == "otlp"
    assert asked({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}) == "otlp"
    assert asked({"OTEL_TRACES_EXPORTER": "console"}) == "console"
    assert asked({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}) == ""


def opened(exporters: str) -> tracing.Tracing | None:
    return tracing.open_tracing(exporters=exporters, version="1", content=False, redact=None)


def test_nobody_traces_where_nothing_is_asked_for() -> None:
    assert opened("") is None
    assert opened("none") is None


def test_an_unknown_exporter_is_told_of() -> None:
    with pytest.raises(ValueError, match="'zipkin': otlp, console or none was expected"):
        opened("zipkin")


def test_without_its_packages_the_server_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with caplog.at_level(logging.WARNING):
        assert opened("otlp") is None
    assert "waystation[otel]" in caplog.text


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def hearer(exported: InMemorySpanExporter) -> SpanHearer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    tracer = provider.get_tracer("test")
    return SpanHearer(tracer, tracer.start_span("attempt"), content=False, redact=None)


def only(exported: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exported.get_finished_spans()
    return span


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_what_a_guard_refuses_is_an_event(hearer: SpanHearer, exported: InMemorySpanExporter) -> None:
    call = uuid4()
    hearer.on_chat_model_start({}, [[]], run_id=call, invocation_params={"model": "big", "temperature": 0.5})
    hearer.refused(call, Refusal())
    span = only(exported)
    assert (span.name, span.status.is_ok) == ("chat big", False)
    assert about(span)["gen_ai.request.temperature"] == 0.5
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})["waystation.guard.code"]) == ("guard.refused", "over_budget")


def test_what_nobody_ends_is_ended_with_the_attempt(hearer: SpanHearer, exported: InMemorySpanExporter) -> None:
    hearer.on_tool_start({"name": "slow"}, "", run_id=uuid4(), tool_call_id="c1")
    hearer.close()
    span = only(exported)
    assert about(span) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "slow",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
        "error.type": "cancelled",
    }


def test_a_question_to_a_human_is_no_error(hearer: SpanHearer, exported: InMemorySpanExporter) -> None:
    class GraphInterrupt(Exception): ...

    node = uuid4()
    metadata = {"langgraph_node": "ask", "langgraph_step": 1}
    hearer.on_chain_start(None, {}, run_id=node, name="ask", tags=["graph:step:1"], metadata=metadata)
    hearer.on_chain_error(GraphInterrupt(), run_id=node)
    span = only(exported)
    assert (span.name, "error.type" in about(span)) == ("node ask", False)
