"""Auth that cannot be used stops the start, with a message that says what to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_services import api_services
from live_http import served
from waystation.app import create_app
from waystation.catalog import read_project
from waystation.config import Settings
from waystation.errors import ConfigError

pytestmark = pytest.mark.anyio

GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph
class S(TypedDict, total=False):
    n: int
graph = StateGraph(S).add_node("a", lambda s: {"n": 1}).add_edge(START, "a").compile()
"""
GOOD = "from langgraph_sdk import Auth\nauth = Auth()\n@auth.authenticate\nasync def who(headers):\n    return 'me'\n"
WITHOUT = "from langgraph_sdk import Auth\nauth = Auth()\n"
JWT = {"issuer": "https://i.example", "audience": "a", "jwks": "jwks.json"}


def write(folder: Path, code: str = GOOD, *, path: str = "./auth.py:auth", **members: Any) -> Path:
    """A project with this auth module."""
    (folder / "agent.py").write_text(GRAPH)
    (folder / "auth.py").write_text(code)
    auth = {"path": path} if path else {}
    project = {"dependencies": ["."], "graphs": {"a": "./agent.py:graph"}, "auth": auth, **members}
    (folder / "langgraph.json").write_text(json.dumps(project))
    return folder


@pytest.mark.parametrize(
    ("code", "path", "members", "said"),
    [
        (GOOD, "./nowhere.py:auth", {}, "auth.path"),
        (GOOD, "./auth.py:other", {}, "other"),
        (GOOD, "auth", {}, "auth.path"),
        ("auth = {}", "./auth.py:auth", {}, "expected a langgraph_sdk.Auth, found a dict"),
        ("raise ValueError('no key')", "./auth.py:auth", {}, "no key"),
        (WITHOUT, "./auth.py:auth", {}, "no authenticate handler"),
        (GOOD.replace("(headers)", "(headers, token)"), "./auth.py:auth", {}, "'token'"),
        (GOOD, "./auth.py:auth", {"waystation": {"auth": {"jwt": JWT}}}, "exclude each other"),
        (GOOD, "", {"waystation": {"auth": {"default": "deny"}}}, "deny"),
        (GOOD, "", {"waystation": {"auth": {"jwt": JWT}}}, "jwks.json"),
        (GOOD, "", {"waystation": {"auth": {"jwt": {**JWT, "jwks": "http://i.example/jwks"}}}}, "https"),
        (GOOD, "", {"waystation": {"auth": {"jwt": {**JWT, "algorithms": ["HS256"]}}}}, "WAYSTATION_JWT_SECRET"),
        (GOOD, "", {"waystation": {"auth": {"jwt": {**JWT, "algorithms": ["RS256", "HS256"]}}}}, "HS256"),
        (
            GOOD,
            "",
            {"waystation": {"auth": {"jwt": {"issuer": "i", "audience": "a", "algorithms": ["HS256"]}}}},
            "WAYSTATION_JWT_SECRET",
        ),
        (GOOD, "./auth.py:auth", {"auth": {"path": "./auth.py:auth", "cache": {}}}, "cache_keys"),
    ],
)
async def test_what_cannot_be_used_stops_the_start(
    tmp_path: Path, database_uri: str, code: str, path: str, members: dict[str, Any], said: str
) -> None:
    project = write(tmp_path, code, path=path, **members)
    with pytest.raises(ConfigError, match=said):
        async with api_services(database_uri, project=project):
            pass


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"defualt": "deny"}, "defualt"),
        ({"default": "maybe"}, "default"),
        ({"jwt": {"issuer": "i", "audience": "a", "jwks": "f", "algoritms": ["RS256"]}}, "algoritms"),
        ({"jwt": {"issuer": "i", "audience": "a", "jwks": "f", "algorithms": ["none"]}}, "algorithms"),
        ({"jwt": {"issuer": "i", "jwks": "f"}}, "audience"),
        ({"jwt": {"issuer": "i", "audience": [], "jwks": "f"}}, "audience"),
        ({"jwt": {"issuer": "i", "audience": "a", "jwks": "f", "roles": {"x": "king"}}}, "roles.x"),
        ({"api_keys": "yes please"}, "api_keys"),
    ],
)
async def test_a_wrong_key_in_the_file_or_the_environment_is_named(
    tmp_path: Path, database_uri: str, own: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_project(write(tmp_path, path="", waystation={"auth": own}))
    settings = Settings(database_uri=database_uri, n_jobs_per_worker=0, auth=own)
    with pytest.raises(ConfigError, match=said):
        async with api_services(database_uri, project=write(tmp_path, path=""), settings=settings):
            pass


async def test_without_any_auth_there_is_no_gate(tmp_path: Path, database_uri: str) -> None:
    async with api_services(database_uri, project=write(tmp_path, path="")) as services:
        assert services.gate is None


async def test_denied_by_default_is_what_no_rule_allows(tmp_path: Path, database_uri: str) -> None:
    rule = "@auth.on.threads.create\nasync def create(ctx, value):\n    return None\n"
    project = write(tmp_path, GOOD + rule, waystation={"auth": {"default": "deny"}})
    app = create_app(lambda: api_services(database_uri, project=project))
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url) as http:
        made = await http.post("/threads", json={})
        assert made.status_code == 200
        assert (await http.get(f"/threads/{made.json()['thread_id']}")).status_code == 403
        assert (await http.post("/assistants/search", json={})).status_code == 403


async def test_a_plain_function_may_authenticate_and_read_the_body(tmp_path: Path, database_uri: str) -> None:
    code = WITHOUT + "def who(body, method, **rest):\n    return {'identity': body['metadata']['me'] + method}\n"
    rule = "async def own(ctx, value):\n    value['metadata']['owner'] = ctx.user.identity\n"
    code += rule + "auth.authenticate(who)\nauth.on.threads.create(own)\n"
    app = create_app(lambda: api_services(database_uri, project=write(tmp_path, code)))
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url) as http:
        made = await http.post("/threads", json={"metadata": {"me": "ann"}})
        assert made.json()["metadata"] == {"me": "ann", "owner": "annPOST"}
        assert (await http.post("/threads", content=b"{broken")).status_code == 401


async def test_the_document_says_what_is_asked_for(tmp_path: Path, database_uri: str) -> None:
    settings = Settings(database_uri=database_uri, n_jobs_per_worker=0, auth={"api_keys": True})
    app = create_app(lambda: api_services(database_uri, project=write(tmp_path, path=""), settings=settings))
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url) as http:
        document = (await http.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"ApiKey", "Bearer"}
    assert document["security"] == [{"ApiKey": []}, {"Bearer": []}]
    assert document["paths"]["/ok"]["get"]["security"] == []
    assert "401" in document["paths"]["/threads"]["post"]["responses"]


@pytest.mark.parametrize("header", [b"Bearer \xff\xfe", b"Bearer", b"Basic x", b"Bearer " + b"a" * 60_000, b"wsk_"])
async def test_odd_headers_are_refused_and_nothing_more(tmp_path: Path, database_uri: str, header: bytes) -> None:
    settings = Settings(database_uri=database_uri, n_jobs_per_worker=0, auth={"api_keys": True})
    app = create_app(lambda: api_services(database_uri, project=write(tmp_path, path=""), settings=settings))
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url) as http:
        for name in (b"authorization", b"x-api-key"):
            answer = await http.post("/threads", json={}, headers=[(name, header)])
            assert answer.status_code in (400, 401, 431), (name, answer.status_code)
        odd = b"wsk_" + "ü".encode() * 8 + b"_x"
        assert (await http.post("/threads", json={}, headers=[(b"x-api-key", odd)])).status_code == 401
