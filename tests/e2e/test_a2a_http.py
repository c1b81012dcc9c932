"""A2A's HTTP: the card, what is refused and how, and what the official client never sends."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from api_services import api_services
from live_http import served
from live_server import E2E
from waystation.app import create_app
from waystation.config import Settings

pytestmark = pytest.mark.anyio

MESSAGE = {"role": "user", "parts": [{"kind": "text", "text": "hello"}], "messageId": "m1"}


async def rpc(http: httpx.AsyncClient, method: str, params: Any, *, agent: str = "chat", **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}
    answer = await http.post(f"/a2a/{agent}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_is_no_request_is_a_protocol_error(http: httpx.AsyncClient) -> None:
    for raw in (b"{", b"", b"\xff", b'{"a": NaN}', b"[" * 5000 + b"]" * 5000):
        answer = await http.post("/a2a/chat", content=raw)
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32700)
    bodies: list[Any] = [
        [],
        7,
        None,
        {},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "1.0", "id": 1, "method": "tasks/get"},
    ]
    for body in bodies:
        answer = await http.post("/a2a/chat", content=json.dumps(body))
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32600)
    for method in ("dance", "", "message/", "x" * 5000):
        assert (await rpc(http, method, {}))["error"]["code"] == -32601


async def test_wrong_parameters_are_named(http: httpx.AsyncClient) -> None:
    wrong: list[tuple[str, Any, str]] = [
        ("message/send", {}, "message"),
        ("message/send", {"message": 7}, "message"),
        ("message/send", {"message": {**MESSAGE, "messageId": None}}, "messageId"),
        ("message/send", {"message": {**MESSAGE, "messageId": ""}}, "messageId"),
        ("message/send", {"message": {**MESSAGE, "role": "agent"}}, "role"),
        ("message/send", {"message": {**MESSAGE, "parts": []}}, "parts"),
        ("message/send", {"message": {**MESSAGE, "parts": [{"kind": "dance"}]}}, "parts"),
        ("message/send", {"message": {**MESSAGE, "contextId": "mine"}}, "contextId"),
        ("message/send", {"message": MESSAGE, "configuration": {"historyLength": -1}}, "historyLength"),
        (
            "message/send",
            {"message": {**MESSAGE, "parts": [{"kind": "file", "file": {"bytes": "%%"}}]}},
            "base64",
        ),
        ("tasks/get", {}, "id"),
        ("tasks/get", {"id": "a:b", "historyLength": "x"}, "istory"),
        ("SendMessage", {"message": {"messageId": "m", "parts": "x"}}, "parts"),
        ("SendMessage", {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}}, "role"),
        ("SendMessage", {"message": {"parts": [{"text": "x"}]}}, "messageId"),
        ("SendMessage", {"message": {"messageId": "m", "parts": [{"data": [1]}]}}, "data"),
        ("GetTask", {"id": 7}, "id"),
    ]
    for method, params, named in wrong:
        error = (await rpc(http, method, params))["error"]
        assert error["code"] == -32602, (method, params, error)
        assert named in error["message"], error
    assert (await rpc(http, "message/send", [1]))["error"]["code"] == -32602


async def test_push_extended_cards_and_lists_are_said_not_to_be_there(http: httpx.AsyncClient) -> None:
    hook = {"message": MESSAGE, "configuration": {"pushNotificationConfig": {"url": "https://example.com"}}}
    assert (await rpc(http, "message/send", hook))["error"]["code"] == -32003
    for action in ("set", "get", "list", "delete"):
        assert (await rpc(http, f"tasks/pushNotificationConfig/{action}", {}))["error"]["code"] == -32003
    assert (await rpc(http, "agent/getAuthenticatedExtendedCard", {}))["error"]["code"] == -32007
    assert (await rpc(http, "ListTasks", {}))["error"]["code"] == -32004


async def test_a_version_that_nobody_speaks_is_refused(http: httpx.AsyncClient) -> None:
    params = {"id": f"{uuid.uuid4()}:{uuid.uuid4()}"}
    for version, code in (("0.3", -32001), ("1.0", -32001), ("1.5", -32001), ("7.0", -32009), ("x", -32009)):
        assert (await rpc(http, "tasks/get", params, **{"a2a-version": version}))["error"]["code"] == code


async def test_a_history_can_be_of_the_task_alone(http: httpx.AsyncClient) -> None:
    first = (await rpc(http, "message/send", {"message": MESSAGE}))["result"]
    second = {"message": {**MESSAGE, "messageId": "m2", "contextId": first["contextId"]}}
    task = (await rpc(http, "message/send", second, **{"LangGraph-A2A-History-Scope": "task"}))["result"]
    assert task["history"][0]["messageId"] == "m2"
    assert len(task["history"]) == 2
    whole = (await rpc(http, "tasks/get", {"id": task["id"]}))["result"]
    assert len(whole["history"]) == 4


async def test_large_numbers_in_data_stay_as_they_are(http: httpx.AsyncClient) -> None:
    message = {**MESSAGE, "parts": [{"kind": "data", "data": {"anything": {"n": 2**53 + 1, "none": None}}}]}
    task = (await rpc(http, "message/send", {"message": message}, agent="echo"))["result"]
    assert task["artifacts"][0]["parts"][1]["data"]["anything"] == {"n": 2**53 + 1, "none": None}


async def test_a_client_cannot_pass_a_run_off_as_part_of_another_task(http: httpx.AsyncClient) -> None:
    first = (await rpc(http, "message/send", {"message": MESSAGE}))["result"]
    run_id = first["id"].split(":")[1]
    message = {**MESSAGE, "messageId": "m2", "contextId": first["contextId"]}
    second = await rpc(http, "message/send", {"message": message, "metadata": {"a2a_task_id": run_id, "mine": 1}})
    assert second["result"]["id"] != first["id"]
    thread_id, second_run = second["result"]["id"].split(":")
    run = (await http.get(f"/threads/{thread_id}/runs/{second_run}")).json()
    assert run["metadata"]["mine"] == 1
    assert "a2a_task_id" not in run["metadata"]


async def test_the_card_survives_odd_hosts_and_names_the_schemes_of_auth(
    http: httpx.AsyncClient, database_uri: str, tmp_path: Any
) -> None:
    for host in ("elsewhere.example:99999", "", "a b", "[::1"):
        answer = await http.get("/.well-known/agent-card.json?assistant_id=chat", headers={"host": host})
        assert answer.status_code in (200, 400), host
    graphs = E2E.parents[2] / "contract" / "fixtures" / "basic" / "graphs.py"
    schemes = {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}
    auth: dict[str, Any] = {"openapi": {"components": {"securitySchemes": schemes}, "security": [{"key": []}]}}
    config: dict[str, Any] = {
        "dependencies": [str(graphs.parent)],
        "graphs": {"steps": f"{graphs}:steps"},
        "auth": auth,
    }
    config["http"] = {"mount_prefix": "/under"}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    settings = Settings(database_uri=database_uri)
    app = create_app(lambda: api_services(database_uri, project=tmp_path, settings=settings))
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url, timeout=60) as client:
        card = (await client.get("/under/.well-known/agent-card.json?assistant_id=steps")).json()
    assert (card["securitySchemes"], card["security"]) == (schemes, [{"key": []}])
    assert card["url"].startswith(f"{url}/under/a2a/")
    assert card["defaultInputModes"] == ["application/json"]
