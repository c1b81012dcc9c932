"""Research plans questions, answers them in parallel workers and reports on exactly those."""

# pyright: reportUnknownMemberType=false
# LangGraph's graph methods are generic in parameters that it leaves open.

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from offline_model import OfflineChatModel
from offline_rules import NOTICE
from research import build_graph, gather

pytestmark = pytest.mark.anyio


def topic(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


async def test_every_question_of_the_plan_is_in_the_report() -> None:
    state = await build_graph(OfflineChatModel()).ainvoke(topic("Research leases and checkpoints and streams"))

    assert state["questions"] == [f"What is meant by {part}?" for part in ("leases", "checkpoints", "streams")]
    assert [finding["question"] for finding in state["findings"]] == state["questions"]
    report = str(state["messages"][-1].text)
    assert report.startswith(NOTICE)
    assert report.count(NOTICE) == 1
    assert [line for line in report.splitlines() if line.startswith("## ")] == [f"## {q}" for q in state["questions"]]


async def test_workers_run_in_one_superstep() -> None:
    graph = build_graph(OfflineChatModel())
    tasks = [chunk async for chunk in graph.astream(topic("Research leases and streams"), stream_mode="debug")]
    steps = {chunk["step"] for chunk in tasks if chunk["type"] == "task" and chunk["payload"]["name"] == "worker"}

    assert len(steps) == 1


async def test_progress_is_streamed_from_the_graph_and_from_its_workers() -> None:
    graph = build_graph(OfflineChatModel())
    stream: Any = graph.astream(topic("Research leases and streams"), stream_mode="custom", subgraphs=True)
    progress = [(bool(namespace), event["stage"]) async for namespace, event in stream]

    assert progress[0] == (False, "plan")
    assert progress[-1] == (False, "report")
    assert sorted(progress[1:-1]) == [(True, "note"), (True, "note"), (True, "search"), (True, "search")]


async def test_a_second_topic_on_the_thread_reports_only_on_itself() -> None:
    graph = build_graph(OfflineChatModel())
    graph.checkpointer = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke(topic("Research leases and streams"), config)

    state = await graph.ainvoke(topic("Research fencing and budgets"), config)

    assert [finding["question"] for finding in state["findings"]] == [
        "What is meant by fencing?",
        "What is meant by budgets?",
    ]
    assert len(state["messages"]) == 4


async def test_the_number_of_workers_is_bounded() -> None:
    state = await build_graph(OfflineChatModel()).ainvoke(topic("Research " + ", ".join("abcdefghijkl")))

    assert 1 <= len(state["findings"]) <= 5


def test_findings_are_gathered_until_a_new_plan_begins() -> None:
    one, two = {"question": "a", "note": "1"}, {"question": "b", "note": "2"}

    assert gather([one], [two]) == [one, two]  # type: ignore[list-item, arg-type] # plain dicts, as after a load
    assert gather([one], None) == []  # type: ignore[list-item]
