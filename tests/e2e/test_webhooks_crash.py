"""A process that is killed between the end of a run and its webhook: another one sends it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli_servers import Command
from eventually import eventually
from receivers import never_answers, receiver

pytestmark = pytest.mark.anyio

GRAPH = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    n: int

graph = StateGraph(State).add_node("a", lambda state: {"n": 1}).add_edge(START, "a").add_edge("a", END).compile()
"""


def project(folder: Path) -> Path:
    config = {
        "dependencies": ["."],
        "graphs": {"steps": "./graph.py:graph"},
        "webhooks": {"url": {"disable_loopback": False}},
    }
    (folder / "langgraph.json").write_text(json.dumps(config))
    (folder / "graph.py").write_text(GRAPH)
    return folder


async def test_a_webhook_outlives_the_process_that_was_sending_it(database_uri: str, tmp_path: Path) -> None:
    folder = project(tmp_path)
    serve = ("serve", "--with-worker", "--host", "127.0.0.1", "--port", "0")
    # What is being sent is taken to be lost half a minute after its time is over; the first process is given none.
    environ = {"DATABASE_URI": database_uri, "WAYSTATION_WEBHOOK_TIMEOUT_S": "0.5", "WAYSTATION_WEBHOOK_RETRY_S": "0.5"}
    stuck = environ | {"WAYSTATION_WEBHOOK_TIMEOUT_S": "30"}
    async with receiver(never_answers) as it:
        with Command.running(*serve, cwd=folder, environ=stuck) as first:
            url = await asyncio.to_thread(lambda: first.url)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                body: dict[str, Any] = {"assistant_id": "steps", "input": {}, "webhook": it.url}
                assert (await client.post("/runs/wait", json=body)).json() == {"n": 1}
            [begun] = await it.until(1)
            first.signal(signal.SIGKILL)
        port = it.port
    async with receiver() as again:
        with Command.running(*serve, cwd=folder, environ=environ) as second:
            url = await asyncio.to_thread(lambda: second.url)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                [waiting] = (await client.get("/webhooks/deliveries")).json()
                assert (waiting["status"], waiting["attempts"], port != again.port) == ("pending", 1, True)
                # Its lease would run out in a minute; asking for it is the same and quicker.
                await client.post(f"/webhooks/deliveries/{waiting['delivery_id']}/replay")

                async def is_tried_again() -> bool:
                    return (await client.get("/webhooks/deliveries")).json()[0]["attempts"] >= 2

                await eventually(is_tried_again)
            assert begun.body["run_id"] == waiting["run_id"]
            second.signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.ended) == 0
