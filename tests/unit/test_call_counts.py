"""Calls of models and tools are counted, whatever becomes of them, and labels have a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tools import tool
from prometheus_client import REGISTRY

from waystation.telemetry.counting import Names
from waystation.worker.call_counts import CallCounts

pytestmark = pytest.mark.anyio


@tool
def halve(n: int) -> float:
    """Half of it."""
    return n / 2 if n else 1 / n


def counted(name: str, **labels: str) -> Callable[[], float]:
    """What was added since."""
    before = REGISTRY.get_sample_value(name, labels) or 0
    return lambda: (REGISTRY.get_sample_value(name, labels) or 0) - before


async def test_tools_are_counted_by_what_became_of_them() -> None:
    good = counted("waystation_tool_calls_total", tool="halve", outcome="success")
    bad = counted("waystation_tool_calls_total", tool="halve", outcome="error")
    config: Any = {"callbacks": [CallCounts()]}
    await halve.ainvoke({"n": 2}, config)
    halve.invoke({"n": 4}, config)
    with pytest.raises(ZeroDivisionError):
        await halve.ainvoke({"n": 0}, config)
    assert (good(), bad()) == (2, 1)


async def test_tokens_are_counted_by_model_and_kind() -> None:
    kinds = {kind: counted("waystation_model_tokens_total", model="tiny", kind=kind) for kind in ("input", "output")}
    calls = counted("waystation_model_calls_total", model="tiny", outcome="success")
    counts, run_id = CallCounts(), uuid4()
    counts.on_chat_model_start({}, [[]], run_id=run_id, invocation_params={"model": "tiny"})
    used: Any = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    answer = ChatGeneration(message=AIMessage("so", usage_metadata=used))
    counts.on_llm_end(LLMResult(generations=[[answer]]), run_id=run_id)
    assert {kind: count() for kind, count in kinds.items()} == {"input": 7, "output": 5}
    assert calls() == 1


async def test_streamed_models_are_counted_once() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    labels = {"model": "generic-fake-chat-model", "outcome": "success"}
    calls = counted("waystation_model_calls_total", **labels)
    async for _ in model.astream("hi", {"callbacks": [CallCounts()]}):
        pass
    assert calls() == 1


async def test_what_nobody_ends_is_cancelled_at_the_end() -> None:
    cancelled = counted("waystation_tool_calls_total", tool="slow", outcome="cancelled")
    counts = CallCounts()
    counts.on_tool_start({"name": "slow"}, "", run_id=uuid4())
    counts.close()
    counts.close()
    assert cancelled() == 1


def test_models_that_only_pass_calls_on_are_not_counted() -> None:
    counts, run_id = CallCounts(), uuid4()
    calls = counted("waystation_model_calls_total", model="waystation-guards-cached", outcome="success")
    counts.on_chat_model_start({}, [[]], run_id=run_id, invocation_params={"_type": "waystation-guards-cached"})
    counts.on_llm_end(LLMResult(generations=[[]]), run_id=run_id)
    assert calls() == 0


def test_names_beyond_the_bound_are_other() -> None:
    names = Names(2)
    assert [names[name] for name in ("a", "b", "c", "a", "", "x" * 200)] == ["a", "b", "other", "a", "other", "other"]


@pytest.mark.parametrize("name", ["half a pair \ud800", "two\nlines", "\x1b[31m"])
def test_a_name_that_no_scrape_can_show_is_other(name: str) -> None:
    assert Names(2)[name] == "other"
