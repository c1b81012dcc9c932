"""A rate in `langgraph.json` holds for a graph that nobody edited, on a real server, however its model is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from live_server import live_server_on
from waystation.config import Settings

GRAPH = """
from langchain_core.language_models import GenericFakeChatModel
from langgraph.graph import END, START, MessagesState, StateGraph


def model():
    return GenericFakeChatModel(messages=iter(["an answer"]), metadata={"waystation_target": "test/model"})


async def awaited(state: MessagesState):
    return {"messages": [await model().ainvoke(state["messages"])]}


def blocking(state: MessagesState):
    return {"messages": [model().invoke(state["messages"])]}


def graph_of(node):
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


awaiting = graph_of(awaited)
blocked = graph_of(blocking)
"""


@pytest.fixture(params=["redis", "postgres"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, make_database: Callable[[], str], redis_url: str
) -> Generator[str]:
    (tmp_path / "graph.py").write_text(GRAPH)
    guards = {"rates": [{"target": "test/*", "requests": 2, "seconds": 3600}], "rates_wait_s": 0}
    graphs = {"awaiting": "./graph.py:awaiting", "blocked": "./graph.py:blocked"}
    config = {"dependencies": ["."], "graphs": graphs, "waystation": {"guards": guards}}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    settings = Settings(n_jobs_per_worker=2, redis_uri=redis_url if request.param == "redis" else None)
    with live_server_on(make_database(), project=tmp_path, settings=settings) as server:
        yield server.url


def test_the_third_call_in_an_hour_is_refused(url: str) -> None:
    def run(assistant: str) -> Any:
        body = {"assistant_id": assistant, "input": {"messages": "hi"}}
        return httpx.post(f"{url}/runs/wait", json=body, timeout=60).json()

    for assistant in ("awaiting", "blocked"):
        assert run(assistant)["messages"][-1]["content"] == "an answer"
    for assistant in ("awaiting", "blocked"):
        told = json.dumps(run(assistant))
        assert "RateLimited" in told
        assert "test/model is at its limit" in told
