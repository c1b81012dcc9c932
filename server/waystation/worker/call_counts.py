"""Counts the calls of models and tools that an attempt makes, whoever makes them: LangChain tells callbacks of each.

Told of starts and ends only. Nodes are not looked at, and what streams costs one empty function per piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult

from waystation.telemetry import metrics
from waystation.telemetry.counting import MODELS, TOOLS
from waystation_guards.calls import WRAPPER, model_named


class CallCounts(BaseCallbackHandler):
    """The calls of one attempt. Any thread may make calls; each is told of by the one that makes it."""

    run_inline = True
    ignore_chain = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]  # properties there
    ignore_retriever = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    ignore_retry = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    ignore_custom_event = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self) -> None:
        self._models: dict[UUID, tuple[str, float]] = {}
        self._tools: dict[UUID, tuple[str, float]] = {}

    def close(self) -> None:
        """Count what nobody told the end of: LangChain does not tell of all calls that are cancelled."""
        for run_id in list(self._models):
            self._model_over(run_id, "cancelled")
        for run_id in list(self._tools):
            self._tool_over(run_id, "cancelled")

    def agreed(self, run_id: UUID) -> None:
        """The guards let the call through: it begins now. Whoever waited for its turn did not call yet."""
        for calls in (self._models, self._tools):
            if (call := calls.get(run_id)) is not None:
                calls[run_id] = (call[0], monotonic())

    def refused(self, run_id: UUID, error: Exception) -> None:
        """The guards refused it: nothing else is told of it."""
        self._model_over(run_id, "refused")
        self._tool_over(run_id, "refused")

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **told: Any) -> None:
        self.on_llm_start(serialized, messages, run_id=run_id, **told)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **told: Any) -> None:
        if not str(_params(told).get("_type", "")).startswith(WRAPPER):
            self._models[run_id] = (MODELS[model_named(_params(told), told.get("metadata") or {})], monotonic())

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if (model := self._model_over(run_id, "success")) is not None:
            _count_tokens(model, usage_of(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._model_over(run_id, "error" if isinstance(error, Exception) else "cancelled")

    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **told: Any) -> None:
        self._tools[run_id] = (TOOLS[tool_name(serialized, told)], monotonic())

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        self._tool_over(run_id, "error" if getattr(output, "status", None) == "error" else "success")

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._tool_over(run_id, tool_outcome(error))

    def _model_over(self, run_id: UUID, outcome: str) -> str | None:
        call = self._models.pop(run_id, None)
        if call is None:
            return None
        model, began_at = call
        metrics.MODEL_CALLS.labels(model, outcome).inc()
        metrics.MODEL_CALL_SECONDS.labels(model).observe(monotonic() - began_at)
        return model

    def _tool_over(self, run_id: UUID, outcome: str) -> None:
        call = self._tools.pop(run_id, None)
        if call is not None:
            tool, began_at = call
            metrics.TOOL_CALLS.labels(tool, outcome).inc()
            metrics.TOOL_CALL_SECONDS.labels(tool).observe(monotonic() - began_at)


def tool_outcome(error: BaseException) -> str:
    """How a tool that raised ended: a question to a human is no error."""
    if type(error).__name__ in ("GraphInterrupt", "ParentCommand"):
        return "interrupted"
    return "error" if isinstance(error, Exception) else "cancelled"


def tool_name(serialized: Any, told: Mapping[str, Any]) -> str:
    """The tool's name."""
    described = cast("Mapping[str, Any]", serialized or {})
    return str(described.get("name") or told.get("name") or "")


def usage_of(response: LLMResult) -> Mapping[str, Any]:
    """The tokens that the provider counted; empty where it says nothing, or where a cache answered for nothing."""
    for generations in response.generations:
        for one in generations:
            used = getattr(one.message, "usage_metadata", None) if isinstance(one, ChatGeneration) else None
            if used and used.get("total_cost") != 0:
                return cast("Mapping[str, Any]", used)
    return {}


def _count_tokens(model: str, used: Mapping[str, Any]) -> None:
    details = cast("Mapping[str, int]", used.get("input_token_details") or {})
    counted = {
        "input": used.get("input_tokens"),
        "output": used.get("output_tokens"),
        "cached": details.get("cache_read"),
    }
    for kind, count in counted.items():
        if count:
            metrics.MODEL_TOKENS.labels(model, kind).inc(count)


def _params(told: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", told.get("invocation_params") or {})
