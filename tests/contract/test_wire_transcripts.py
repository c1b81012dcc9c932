"""The wire alone, against what the reference streamed: the same graphs, run in this process, give the same events."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, Final, cast

import orjson
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from contract.compare import TRANSCRIPTS, Difference, compare_exchange, read
from contract.fixture_graphs import fixture_graphs
from contract.normalise import Ids
from waystation.worker.wire import Wire, error_event, metadata_event

pytestmark = pytest.mark.anyio

SERVER_METADATA: Final = {
    "run_attempt": 1,
    "langgraph_version": "1.2.22",
    "langgraph_api_version": "0.16.7",
    "langgraph_plan": "enterprise",
    "langgraph_host": "self-hosted",
    "langgraph_api_url": "http://127.0.0.1:8201",
}
INTERNAL: Final = re.compile(r"configurable\.__(request_start_time_ms|after_seconds)__$")
RECORDED_MODES = [x for x in read(TRANSCRIPTS / "10-sse-modes.jsonl") if "/threads/" in x["request"]["path"]]
RECORDED_INTERRUPTS = read(TRANSCRIPTS / "12-interrupts.jsonl")


class InProcess:
    """Answers recorded run requests with the wire and a checkpointer in memory, thread by thread."""

    def __init__(self) -> None:
        self._saver = InMemorySaver()

    async def answer(self, request: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
        """What `runs/stream` or `runs/wait` answers; the run's id is taken from the recorded response."""
        body, thread_id = request["body"], request["path"].split("/")[2]
        run_id = response["headers"]["content-location"].split("/")[-1]
        wire = Wire(body.get("stream_mode", []), subgraphs=body.get("stream_subgraphs", False))
        events = [metadata_event(run_id, 1)]
        error = None
        try:
            async for some in wire.stream(
                fixture_graphs()[body["assistant_id"]],
                given(body),
                config=self._config(body, thread_id, run_id),
                interrupt_before=body.get("interrupt_before"),
                interrupt_after=body.get("interrupt_after"),
                durability="async",
            ):
                events += some
        except Exception as e:
            error = {"error": type(e).__name__, "message": str(e)}
            events.append(error_event(orjson.dumps(error)))
        if request["path"].endswith("/wait"):
            return {"body": {"__error__": error} if error else orjson.loads(wire.output() or b"null")}
        return {"events": [{"event": name, "data": orjson.loads(data)} for name, data, _ in events]}

    def _config(self, body: dict[str, Any], thread_id: str, run_id: str) -> RunnableConfig:
        graph_id = body["assistant_id"]
        ids = {"graph_id": graph_id, "run_id": run_id, "thread_id": thread_id, "assistant_id": assistant(graph_id)}
        auth: dict[str, Any] = {
            "langgraph_auth_user": None,
            "langgraph_auth_user_id": "",
            "langgraph_auth_permissions": [],
        }
        return {
            "configurable": {
                **auth,
                "langgraph_request_id": "33333333-3333-4333-8333-333333333333",
                "user_id": "",
                **ids,
                "__pregel_checkpointer": self._saver,
            },
            "metadata": {"created_by": "system", **ids, **SERVER_METADATA},
            "run_name": graph_id,
            "run_id": uuid.UUID(run_id),
            "recursion_limit": body.get("config", {}).get("recursion_limit", 25),
        }


def assistant(graph_id: str) -> str:
    return str(uuid.uuid5(uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), graph_id))


def given(body: dict[str, Any]) -> Any:
    """The graph's input, of a request's `input` and `command`."""
    command = body.get("command")
    if not command:
        return None if command is not None else body.get("input")
    return Command(
        resume=command.get("resume"), update=command.get("update"), goto=cast("Any", command.get("goto") or ())
    )


async def differences(host: InProcess, exchange: dict[str, Any], ids: Ids | None = None) -> list[Difference]:
    request, response = exchange["request"], exchange["response"]
    expected = {k: v for k, v in response.items() if k in ("events", "body")}
    ours = await host.answer(request, response)
    found = compare_exchange(exchange["step"], {"response": expected}, {"response": ours}, ids)
    return [difference for difference in found if not INTERNAL.search(difference.path)]


@pytest.mark.parametrize("exchange", RECORDED_MODES, ids=lambda x: x["step"].replace(" ", "_"))
async def test_a_run_streams_what_the_reference_streamed(exchange: dict[str, Any]) -> None:
    if exchange["response"]["status"] != 200:
        pytest.skip("the recording has no stream")
    assert await differences(InProcess(), exchange) == []


# Its `wait` lost the state of a graph with several interrupts; ours has both.
LOST_BY_THE_REFERENCE: dict[str, dict[str, Any]] = {"multi: wait": {"log": [], "n": 0}}


async def test_interrupts_and_resumes_are_told_as_the_reference_told_them() -> None:
    host, ids, compared = InProcess(), Ids(), 0
    for exchange in RECORDED_INTERRUPTS:
        path = exchange["request"]["path"]
        if exchange["response"]["status"] != 200 or not path.endswith(("/runs/wait", "/runs/stream")):
            continue
        exchange = json.loads(json.dumps(exchange))
        if lost := LOST_BY_THE_REFERENCE.get(exchange["step"]):
            exchange["response"]["body"].update(lost)
        translate_interrupt_ids(exchange["request"], ids)
        assert await differences(host, exchange, ids) == []
        compared += 1
    assert compared > 15


def translate_interrupt_ids(request: dict[str, Any], ids: Ids) -> None:
    command: dict[str, Any] = request["body"].get("command") or {}
    if isinstance(command.get("resume"), dict):
        command["resume"] = {ids.ours(theirs): value for theirs, value in command["resume"].items()}
