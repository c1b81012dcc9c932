"""One trace from a request through the queue to the worker, its nodes and its calls; and who is told of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from cli_servers import Client, Command, Project, is_alive, until
from otlp_collector import Collector, collecting

pytestmark = pytest.mark.timeout(300)  # several processes, each of which imports everything

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "req-7"}

CALLS = """
import logging
from typing import TypedDict
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    said: str

@tool
def double(n: int) -> int:
    "Twice as much."
    return 2 * n

async def think(state: State):
    logging.getLogger("mine").warning("thinking", extra={"mood": "good"})
    used = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    model = GenericFakeChatModel(messages=iter([AIMessage("a secret", usage_metadata=used)]))
    answer = await model.ainvoke("a question")
    return {"said": f"{answer.content} {await double.ainvoke({'n': 4})}"}

builder = StateGraph(State)
builder.add_node("think", think)
builder.add_edge(START, "think")
builder.add_edge("think", END)
graph = builder.compile()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    (made.folder / "calls.py").write_text(CALLS)
    graphs = {"steps": "./steps.py:graph", "calls": "./calls.py:graph"}
    (made.folder / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    return made


@pytest.fixture
def collector() -> Generator[Collector]:
    with collecting() as made:
        yield made


@contextmanager
def fleet(project: Project, environ: dict[str, str]) -> Generator[tuple[Command, Command]]:
    """An API and a worker, each a process of its own."""
    with (
        Command.running("serve", "--port", "0", "--host", "127.0.0.1", cwd=project.folder, environ=environ) as api,
        Command.running("worker", cwd=project.folder, environ=environ) as worker,
    ):
        worker.until_says("Worker started")
        yield api, worker


def environment(database_uri: str, collector: Collector) -> dict[str, str]:
    return {
        "DATABASE_URI": database_uri,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "3",
        "WAYSTATION_SWEEP_S": "0.3",
        "LOG_JSON": "true",
    }


def test_one_trace_over_api_queue_worker_and_calls(project: Project, database_uri: str, collector: Collector) -> None:
    # LangSmith's client would send to its cloud; without a key there is nothing to send, and it is told so.
    environ = environment(database_uri, collector) | {"LANGSMITH_TRACING": "true"}
    with fleet(project, environ) as (api, worker):
        with httpx.Client(base_url=api.url, headers=PARENT, timeout=60) as client:
            answer = client.post("/runs/wait", json={"assistant_id": "calls", "input": {}}).raise_for_status()
        assert answer.json()["said"] == "a secret 8"
        until(lambda: bool(collector.named("POST /runs/wait")), "the request's span has come")
        until(lambda: bool(collector.named("invoke_agent calls")), "the attempt's span has come")
        worker.until_says("LANGSMITH_API_KEY is not")
        assert "api.smith.langchain.com" not in worker.output
        (line,) = (json.loads(line) for line in worker.output.splitlines() if '"thinking"' in line)

    (request,) = collector.named("POST /runs/wait")
    (attempt,) = collector.named("invoke_agent calls")
    (queue,) = collector.named("queue calls")
    (node,) = collector.named("node think")
    (model,) = collector.named("chat generic-fake-chat-model")
    (tool,) = collector.named("execute_tool double")
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert request.parent_id == "b7ad6b7169203331"
    assert [attempt.parent_id, queue.parent_id] == [request.span_id] * 2
    assert node.parent_id == attempt.span_id
    assert [model.parent_id, tool.parent_id] == [node.span_id] * 2
    assert request.attributes["http.response.status_code"] == 200
    assert attempt.attributes["gen_ai.agent.name"] == "calls"
    assert attempt.attributes["waystation.run.outcome"] == "success"
    assert model.attributes["gen_ai.operation.name"] == "chat"
    assert (model.attributes["gen_ai.usage.input_tokens"], model.attributes["gen_ai.usage.output_tokens"]) == (7, 2)
    assert tool.attributes["gen_ai.tool.name"] == "double"
    assert {span.service for span in collector.spans} == {"waystation"}
    assert "secret" not in str(collector.spans)
    # What the node logs is found by all of them.
    assert line["trace_id"] == TRACE
    assert line["request_id"] == "req-7"
    assert line["run_id"] == attempt.attributes["waystation.run.id"]
    assert (line["attempt"], line["mood"], line["logger"], line["level"]) == (1, "good", "mine", "warning")


def test_an_attempt_after_a_crash_links_to_the_one_before(
    project: Project, database_uri: str, collector: Collector
) -> None:
    environ = environment(database_uri, collector) | {"OTEL_SERVICE_NAME": "mine"}
    with fleet(project, environ) as (api, worker):
        client = Client(api.url)
        client.http.headers.update(PARENT)
        thread, run = client.start({"wait_at": 2})
        project.until_step(2)
        until(lambda: bool(collector.named("node 1")), "the first step's span has come")
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: not is_alive(worker.pid), "the worker is dead")
        with psycopg.connect(database_uri) as conn:
            conn.execute("update run set lease_expires_at = now() where run_id = %s", [run])
        with Command.running("worker", cwd=project.folder, environ=environ):
            project.until_step(2, times=2)
            project.let_go()
            assert client.result(thread, run)["done"] == [1, 2, 3]
            until(lambda: bool(collector.named("invoke_agent steps")), "the attempt's span has come")
    (attempt,) = collector.named("invoke_agent steps")
    assert attempt.attributes["waystation.run.attempt"] == 2
    assert len(attempt.links) == 1
    assert (attempt.trace_id, attempt.service) == (TRACE, "mine")
    (first, *_) = [span.parent_id for span in collector.named("node 1")]
    assert attempt.links == [first]


def test_prompts_and_answers_are_shown_where_asked_for_and_redacted(
    project: Project, database_uri: str, collector: Collector
) -> None:
    (project.folder / "calls.py").write_text(CALLS.replace("a question", "ask ann@example.com"))
    asked = {"WAYSTATION_TRACE_CONTENT": "true", "WAYSTATION_TRACE_REDACT": "email"}
    langsmith = {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "k", "LANGSMITH_ENDPOINT": collector.url}
    environ = environment(database_uri, collector) | asked | langsmith
    arguments = ("serve", "--with-worker", "--port", "0", "--host", "127.0.0.1")
    with Command.running(*arguments, cwd=project.folder, environ=environ) as server:
        httpx.post(f"{server.url}/runs/wait", json={"assistant_id": "calls", "input": {}}, timeout=60)
        until(lambda: any("/runs" in path for path, *_ in collector.requests), "LangSmith's client has sent")
        server.signal(signal.SIGTERM)
        assert server.ended() == 0  # what was waiting has been sent
    (model,) = collector.named("chat generic-fake-chat-model")
    shown = model.attributes["gen_ai.input.messages"]
    assert "ask" in shown
    assert "ann@example.com" not in shown
    assert "a secret" in model.attributes["gen_ai.output.messages"]
    bodies = b"".join(body for path, _, body in collector.requests if "/runs" in path)
    assert b"a secret" in bodies
    assert b"ann@example.com" not in bodies
    assert json.loads(collector.named("execute_tool double")[0].attributes["gen_ai.tool.call.arguments"]) == {"n": 4}
