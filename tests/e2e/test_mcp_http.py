"""MCP's HTTP: who may call, what may be answered, and what is refused."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_services import api_services
from eventually import eventually
from live_http import served
from live_server import E2E, Client
from waystation.app import create_app
from waystation.config import Settings

pytestmark = pytest.mark.anyio

BOTH = {"accept": "application/json, text/event-stream"}
MODERN_META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def ask(http: httpx.AsyncClient, method: str, /, **params: Any) -> httpx.Response:
    headers = {**BOTH, **params.pop("headers", {})}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return await http.post("/mcp", json=body, headers=headers)


def modern(method: str, **headers: str) -> dict[str, str]:
    return {**BOTH, "mcp-protocol-version": "2026-07-28", "mcp-method": method, **headers}


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:6274", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://inspector.localhost", True),
        ("https://evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
async def test_only_pages_of_this_machine_may_call(http: httpx.AsyncClient, origin: str, allowed: bool) -> None:
    answer = await ask(http, "ping", headers={"origin": origin})
    assert answer.status_code == (200 if allowed else 403)


async def test_the_project_names_other_pages_that_may(database_uri: str, tmp_path: Path) -> None:
    async with project_served(
        database_uri, tmp_path, waystation={"mcp": {"allowed_origins": ["https://a.test"]}}
    ) as http:
        assert (await ask(http, "ping", headers={"origin": "https://a.test"})).status_code == 200
        assert (await ask(http, "ping", headers={"origin": "https://b.test"})).status_code == 403


async def test_both_protocols_can_be_switched_off(database_uri: str, tmp_path: Path) -> None:
    async with project_served(database_uri, tmp_path, http={"disable_mcp": True, "disable_a2a": True}) as http:
        assert (await ask(http, "ping")).status_code == 404
        assert (await http.post("/mcp/", json={})).status_code == 404
        assert (await http.post("/a2a/steps", json={})).status_code == 404
        assert (await http.get("/.well-known/agent-card.json?assistant_id=steps")).status_code == 404


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json, text/event-stream", "application/json"),
        ("application/json", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("*/*", "application/json"),
        ("application/*;q=0.8", "application/json"),
    ],
)
async def test_the_answer_is_of_a_kind_that_the_client_takes(http: httpx.AsyncClient, accept: str, kind: str) -> None:
    for method, params in (("ping", {}), ("tools/call", {"name": "steps", "arguments": {"n": 0}})):
        answer = await ask(http, method, headers={"accept": accept}, **params)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        text = answer.text.split("data: ")[1] if kind == "text/event-stream" else answer.text
        assert "error" not in json.loads(text)


async def test_what_is_no_request_is_refused(http: httpx.AsyncClient) -> None:
    assert (await ask(http, "ping", headers={"accept": "text/html"})).status_code == 400
    bodies: list[Any] = [
        [],
        [{"jsonrpc": "2.0", "id": 1, "method": "ping"}],
        7,
        "x",
        None,
        {},
        {"jsonrpc": "2.0", "id": 1},
    ]
    ids: list[Any] = [None, [], {}, True]
    bodies += [{"jsonrpc": "2.0", "id": id, "method": "ping"} for id in ids]
    bodies += [{"jsonrpc": "1.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 1, "method": 7}]
    for body in bodies:
        answer = await http.post("/mcp", content=json.dumps(body), headers=BOTH)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["code"] == -32600
    for raw in (b"{", b"", b"\xff", b'{"a": NaN}', b"[" * 5000 + b"]" * 5000):
        answer = await http.post("/mcp", content=raw, headers=BOTH)
        assert (answer.status_code, answer.json()) == (400, {"error": "Invalid JSON"})


async def test_wrong_parameters_are_named(http: httpx.AsyncClient) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("tools/call", {}, "name"),
        ("tools/call", {"name": 7}, "name"),
        ("tools/call", {"name": "steps", "arguments": [1]}, "arguments"),
        ("tools/call", {"name": "steps", "arguments": "n"}, "arguments"),
        ("tools/list", {"cursor": 7}, "cursor"),
        ("initialize", {}, "protocolVersion"),
    ]
    for method, params, named in wrong:
        answer = await ask(http, method, **params)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (200, -32602)
        assert named in error["message"], error
    answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": [1]})
    assert answer.json()["error"]["code"] == -32602
    for method in ("prompts/list", "resources/read", "server/discover", "dance", "x" * 5000):
        error = (await ask(http, method)).json()["error"]
        assert error["code"] in (-32601, -32602)
        assert len(error["message"]) < 500


async def test_get_and_delete_say_that_they_are_not_offered(http: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE", "PUT"):
        answer = await http.request(method, "/mcp", headers={"accept": "text/event-stream", "mcp-session-id": "x"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_the_version_asked_for_is_agreed_on(http: httpx.AsyncClient) -> None:
    for asked, agreed in (
        *((version, version) for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")),
        ("1999-01-01", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ):
        client = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        answer = await ask(http, "initialize", **client)
        assert answer.json()["result"]["protocolVersion"] == agreed
        assert answer.headers["mcp-session-id"]
    for version in ("1999-01-01", "x" * 1000):
        answer = await ask(http, "ping", headers={"mcp-protocol-version": version})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32022)


async def test_a_request_without_handshake_has_to_be_complete(http: httpx.AsyncClient) -> None:
    answer = await ask(http, "tools/list", headers=modern("tools/list"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
    answer = await ask(http, "tools/list", headers=modern("tools/call"), _meta=MODERN_META)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    for wrong in (modern("tools/call"), modern("tools/call", **{"mcp-name": "other"})):
        answer = await ask(http, "tools/call", headers=wrong, _meta=MODERN_META, name="steps", arguments={"n": 0})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    answer = await ask(http, "ping", headers=modern("ping"), _meta=MODERN_META)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
    right = modern("tools/call", **{"mcp-name": "steps"})
    answer = await ask(http, "tools/call", headers=right, _meta=MODERN_META, name="steps", arguments={"n": 0})
    result = answer.json()["result"]
    assert result["structuredContent"] == {"log": ["a", "b"], "n": 2}
    assert result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "Waystation"


async def test_only_the_session_that_made_a_call_can_cancel_it(http: httpx.AsyncClient, sdk: Client) -> None:
    thread_id, session = str(uuid.uuid4()), {"mcp-session-id": uuid.uuid4().hex}
    meta = {"waystation/thread_id": thread_id}
    call = {"name": "slow", "arguments": {"n": 400, "delay": 0.05}, "_meta": meta}
    calling = asyncio.create_task(ask(http, "tools/call", headers=session, **call))

    async def status() -> str | None:
        found = await sdk.threads.search(ids=[thread_id], select=["status"])
        return found[0]["status"] if found else None

    async def runs() -> bool:
        return await status() == "busy"

    async def cancel(**headers: str) -> None:
        notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "_meta": meta}}
        answer = await http.post("/mcp", json=notice, headers={**BOTH, **headers})
        assert (answer.status_code, answer.content) == (202, b"")

    await eventually(runs)
    for other in ({}, {"mcp-session-id": uuid.uuid4().hex}, {"mcp-session-id": "x" * 300}):
        await cancel(**other)
    assert await status() == "busy"
    await cancel(**session)
    result = (await calling).json()["result"]
    assert result["isError"]
    assert result["content"][0]["text"].startswith("Cancelled")


async def test_two_calls_of_one_number_both_work(http: httpx.AsyncClient) -> None:
    session = {"mcp-session-id": uuid.uuid4().hex}
    for params in ({}, {"_meta": {"waystation/thread_id": str(uuid.uuid4())}}):
        for _ in range(2):
            answer = await ask(http, "tools/call", headers=session, name="steps", arguments={"n": 0}, **params)
            assert "error" not in answer.json(), answer.text
            assert not answer.json()["result"]["isError"]


@asynccontextmanager
async def project_served(database_uri: str, folder: Path, **keys: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a server whose project has these keys."""
    graphs = E2E.parents[2] / "contract" / "fixtures" / "basic" / "graphs.py"
    config = {"dependencies": [str(graphs.parent)], "graphs": {"steps": f"{graphs}:steps"}, **keys}
    (folder / "langgraph.json").write_text(json.dumps(config))
    settings = Settings(database_uri=database_uri)
    app = create_app(lambda: api_services(database_uri, project=folder, settings=settings))
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client
