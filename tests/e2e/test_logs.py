"""What a production process writes: one JSON object a line, of the same form whoever logs."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from cli_servers import Command, Project
from e2e.authorized import new_key

pytestmark = pytest.mark.timeout(200)

TRACE = "0af7651916cd43dd8448eb211c80319c"

TALKING = """
import logging
from typing import TypedDict
import structlog
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    fail: bool

async def talk(state: State):
    logging.getLogger("mine").warning("said", extra={"to": "ann@example.com"})
    structlog.get_logger("theirs").info("said too", n=1)
    if state.get("fail"):
        raise ValueError("no good")
    return {}

builder = StateGraph(State)
builder.add_node("talk", talk)
builder.add_edge(START, "talk")
builder.add_edge("talk", END)
graph = builder.compile()
"""


@pytest.fixture
def server(tmp_path: Path, database_uri: str) -> Generator[Command]:
    project = Project(tmp_path / "project")
    project.write(TALKING)
    environ = {
        "DATABASE_URI": database_uri,
        "WAYSTATION_ACCESS_LOG": "true",
        "WAYSTATION_LOG_REDACT": "email",
        "WAYSTATION_AUTH": '{"api_keys": true}',
    }
    arguments = ("serve", "--with-worker", "--port", "0", "--host", "127.0.0.1")
    with Command.running(*arguments, cwd=project.folder, environ=environ) as command:
        yield command


def lines(server: Command, event: str) -> list[dict[str, Any]]:
    """Lines of an event; whatever begins like one has to be an object."""
    found = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def test_every_line_has_its_fields(server: Command, database_uri: str) -> None:
    key = anyio.run(new_key, database_uri, "ann", "admin")
    headers = {"x-api-key": key, "x-request-id": "req-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        ask = {"assistant_id": "steps", "input": {"fail": True}}
        answer = client.post("/runs/wait", params={"token": "hidden-in-query"}, json=ask)
        assert answer.status_code == 200
        client.get("/health")
        httpx.get(f"{server.url}/threads/nothing", timeout=60)
    server.until_says('"status": 401')
    server.signal(signal.SIGTERM)
    assert server.ended() == 0

    (started,) = lines(server, "Application startup complete.")
    assert started.keys() == {"event", "level", "logger", "timestamp"}
    assert (started["logger"], started["level"]) == ("uvicorn.error", "info")

    (mine,), (theirs,) = lines(server, "said"), lines(server, "said too")
    (failed,) = lines(server, "run failed")
    own = {"request_id": "req-1", "trace_id": TRACE, "attempt": 1, "run_id": mine["run_id"]}
    for line in (mine, theirs, failed):
        assert line.items() >= own.items()
        assert line["thread_id"]
        assert line["timestamp"].endswith("Z")
    assert (mine["logger"], mine["level"], theirs["logger"], theirs["n"]) == ("mine", "warning", "theirs", 1)
    assert "ann@example.com" not in mine["to"]
    assert (failed["error"], "no good" in failed["exception"]) == ("ValueError", True)

    asked, refused = lines(server, "request")
    assert (
        asked.items()
        >= {
            "logger": "waystation.access",
            "method": "POST",
            "path": "/runs/wait",
            "route": "/runs/wait",
            "status": 200,
            "caller": "ann",
            "tenant": "default",
            "key": key.split("_")[1],
            "client": "127.0.0.1",
            "request_id": "req-1",
            "trace_id": TRACE,
        }.items()
    )
    assert asked["ms"] > 0
    assert asked["bytes"] == len(answer.content)
    assert (refused["path"], refused["status"], "caller" in refused) == ("/threads/nothing", 401, False)
    assert refused["request_id"]
    assert "hidden-in-query" not in server.output
    assert key not in server.output
