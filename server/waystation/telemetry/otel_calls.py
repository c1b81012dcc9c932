"""Spans of an attempt's nodes and of its calls of models and tools, from LangChain's callbacks; names and attributes
are those of OpenTelemetry's conventions for generative AI. Prompts, arguments and answers only where asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from waystation.telemetry.tracing import Redact
from waystation_guards.calls import model_named

_ASKED: Final = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "seed": "seed"}
_QUESTIONS: Final = frozenset({"GraphInterrupt", "GraphBubbleUp", "ParentCommand", "GraphDrained"})
"""What LangGraph raises that is no error."""
_MOST_CONTENT: Final = 64_000


class SpanHearer(BaseCallbackHandler):
    """The callbacks of one attempt (`tracing.CallHearer`). Any thread may make calls."""

    run_inline = True

    def __init__(self, tracer: Tracer, attempt: Span, *, content: bool, redact: Redact | None) -> None:
        self._tracer = tracer
        self._attempt = attempt
        self._content = content
        self._redact = redact
        self._spans: dict[UUID, Span] = {}
        self._within: dict[UUID, Span] = {}
        self._began: dict[UUID, float] = {}

    def close(self) -> None:
        """End what nobody told the end of: LangChain does not tell of all calls that are cancelled."""
        for run_id in list(self._spans):
            self._end(run_id, "cancelled")
        self._within.clear()

    def agreed(self, run_id: UUID) -> None:
        if run_id in self._began:
            self._began[run_id] = time.monotonic()

    def refused(self, run_id: UUID, error: Exception) -> None:
        """A guard refused the call: nothing else is told of it."""
        if (span := self._spans.get(run_id)) is not None:
            about = {"waystation.guard.code": str(getattr(error, "code", "")), "error.type": type(error).__name__}
            span.add_event("guard.refused", about)
            self._end(run_id, type(error).__name__)

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **told: Any,
    ) -> None:
        about = metadata or {}
        node = about.get("langgraph_node")
        if node and told.get("name") == node and any(tag.startswith("graph:step:") for tag in tags or ()):
            attributes = {
                "waystation.node": str(node),
                "waystation.step": int(about.get("langgraph_step") or 0),
                "waystation.namespace": str(about.get("langgraph_checkpoint_ns") or ""),
            }
            self._start(run_id, parent_run_id, f"node {node}", SpanKind.INTERNAL, attributes)
        else:
            self._within[run_id] = self._parent(parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        self._within.pop(run_id, None)
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._within.pop(run_id, None)
        self._failed(run_id, error)

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Sequence[Sequence[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **told: Any,
    ) -> None:
        self._model(run_id, parent_run_id, "chat", told)
        if self._content and (span := self._spans.get(run_id)) is not None and messages:
            span.set_attribute("gen_ai.input.messages", self._shown([_message(one) for one in messages[0]]))

    def on_llm_start(
        self, serialized: Any, prompts: Sequence[str], *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        self._model(run_id, parent_run_id, "text_completion", told)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        began_at = self._began.pop(run_id, None)
        if began_at is not None and (span := self._spans.get(run_id)) is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", time.monotonic() - began_at)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        span = self._spans.get(run_id)
        if span is not None:
            found = [one for some in response.generations for one in some if isinstance(one, ChatGeneration)]
            if found:
                span.set_attributes(_answered(found[0].message))
            if found and self._content:
                span.set_attribute("gen_ai.output.messages", self._shown([_message(one.message) for one in found]))
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._failed(run_id, error)

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        described = cast("Mapping[str, Any]", serialized or {})
        name = str(described.get("name") or told.get("name") or "")
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
        }
        if told.get("tool_call_id"):
            attributes["gen_ai.tool.call.id"] = str(told["tool_call_id"])
        if self._content:
            attributes["gen_ai.tool.call.arguments"] = self._shown(told.get("inputs") or input_str)
        self._start(run_id, parent_run_id, f"execute_tool {name}", SpanKind.INTERNAL, attributes)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        if self._content and (span := self._spans.get(run_id)) is not None:
            span.set_attribute("gen_ai.tool.call.result", self._shown(getattr(output, "content", output)))
        self._end(run_id, "ToolError" if getattr(output, "status", None) == "error" else None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._failed(run_id, error)

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        self._within[run_id] = self._parent(parent_run_id)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **_: Any) -> None:
        self._within.pop(run_id, None)

    def _model(self, run_id: UUID, parent_run_id: UUID | None, operation: str, told: Mapping[str, Any]) -> None:
        params = cast("Mapping[str, Any]", told.get("invocation_params") or {})
        metadata = cast("Mapping[str, Any]", told.get("metadata") or {})
        model = model_named(params, metadata)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": str(metadata.get("ls_provider") or "unknown"),
            "gen_ai.request.model": model,
        }
        for name, attribute in _ASKED.items():
            value = params.get(name) if params.get(name) is not None else metadata.get(f"ls_{name}")
            if isinstance(value, int | float):
                attributes[f"gen_ai.request.{attribute}"] = value
        self._began[run_id] = time.monotonic()
        self._start(run_id, parent_run_id, f"{operation} {model}", SpanKind.CLIENT, attributes)

    def _start(self, run_id: UUID, parent_run_id: UUID | None, name: str, kind: SpanKind, about: Any) -> None:
        within = trace.set_span_in_context(self._parent(parent_run_id))
        self._spans[run_id] = self._tracer.start_span(name, within, kind=kind, attributes=about)

    def _parent(self, run_id: UUID | None) -> Span:
        if run_id is None:
            return self._attempt
        return self._spans.get(run_id) or self._within.get(run_id) or self._attempt

    def _failed(self, run_id: UUID, error: BaseException) -> None:
        kind = type(error).__name__
        if kind in _QUESTIONS:
            self._end(run_id)
            return
        span = self._spans.get(run_id)
        if span is not None and self._content:
            span.set_attribute("exception.message", self._shown(str(error)))
        self._end(run_id, kind if isinstance(error, Exception) else "cancelled")

    def _end(self, run_id: UUID, error: str | None = None) -> None:
        self._began.pop(run_id, None)
        span = self._spans.pop(run_id, None)
        if span is None:
            return
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _shown(self, value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        text = text[:_MOST_CONTENT]
        return text if self._redact is None else self._redact(text)


def _answered(message: BaseMessage) -> dict[str, Any]:
    """What an answer tells of itself."""
    told: Mapping[str, Any] = message.response_metadata
    used = cast("Mapping[str, Any]", getattr(message, "usage_metadata", None) or {})
    details = cast("Mapping[str, Any]", used.get("input_token_details") or {})
    found = {
        "gen_ai.response.id": told.get("id") or message.id,
        "gen_ai.response.model": told.get("model_name") or told.get("model"),
        "gen_ai.usage.input_tokens": used.get("input_tokens"),
        "gen_ai.usage.output_tokens": used.get("output_tokens"),
        "gen_ai.usage.cache_read.input_tokens": details.get("cache_read"),
    }
    reason = told.get("finish_reason") or told.get("stop_reason")
    answers: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    return answers if reason is None else {**answers, "gen_ai.response.finish_reasons": [str(reason)]}


def _message(message: BaseMessage) -> dict[str, Any]:
    roles = {"human": "user", "ai": "assistant"}
    parts: list[dict[str, Any]] = [{"type": "text", "content": message.text}] if message.text else []
    parts += [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["args"]}
        for call in getattr(message, "tool_calls", ()) or ()
    ]
    return {"role": roles.get(message.type, message.type), "parts": parts}
