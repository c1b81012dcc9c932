"""What `http` says besides the application: headers that graphs see, switches, CORS, the prefix."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from waystation.api.headers import HeaderRules
from waystation.app import is_served, operations
from waystation.catalog.keys import HeaderKeys, HttpKeys
from webapp_project import webapp_client

SENT = {"x-tenant-id": "acme", "x-tenant-name": "Acme", "x-tenant-secret": "s", "x-other": "o", "x-api-key": "k"}


def headers_seen(client: httpx.Client, **body: Any) -> dict[str, str]:
    asked: dict[str, Any] = {"assistant_id": "echo", "input": {}, **body}
    return client.post("/runs/wait", json=asked, headers=SENT).raise_for_status().json()["headers"]


def test_graphs_see_the_headers_that_the_project_names(database_uri: str, tmp_path: Path) -> None:
    rules = {"includes": ["x-tenant-*", "X-Api-Key"], "excludes": ["*secret"]}
    with webapp_client(database_uri, tmp_path, app=None, configurable_headers=rules) as client:
        assert headers_seen(client) == {"x-tenant-name": "Acme"}
        spoofed = {"configurable": {"x-tenant-name": "Mallory", "x-own": "1"}}
        assert headers_seen(client, config=spoofed) == {"x-tenant-name": "Acme", "x-own": "1"}


@pytest.mark.parametrize("rules", [None, {}, {"excludes": ["x-other"]}, {"includes": None}])
def test_graphs_see_no_headers_otherwise(database_uri: str, tmp_path: Path, rules: object) -> None:
    with webapp_client(database_uri, tmp_path, app=None, configurable_headers=rules) as client:
        assert headers_seen(client) == {}


def rules_of(*includes: str, excludes: tuple[str, ...] = ()) -> HeaderRules:
    rules = HeaderRules.of(HeaderKeys(includes=includes, excludes=excludes))
    assert rules is not None
    return rules


def test_patterns_know_the_asterisk_and_nothing_else() -> None:
    raw = [(b"x-a", b"1"), (b"X-A", b"2"), (b"x.a", b"3"), (b"x-abc", b"4"), (b"x-service-key", b"5")]
    assert rules_of("x.a").choose(raw) == {"x.a": "3"}
    assert rules_of("x-a").choose(raw) == {"x-a": "1, 2"}
    assert rules_of("*", excludes=("*b*", "x.*")).choose(raw) == {"x-a": "1, 2"}


SWITCHES = {
    "disable_assistants": {"Assistants"},
    "disable_threads": {"Threads", "Thread state"},
    "disable_runs": {"Runs", "Stateless runs", "Crons", "Thread events"},
    "disable_store": {"Store"},
    "disable_mcp": {"MCP"},
    "disable_a2a": {"A2A"},
    "disable_webhooks": {"Webhooks"},
}


@pytest.mark.parametrize(("switch", "tags"), SWITCHES.items())
def test_a_switch_takes_a_family_of_operations_away_and_nothing_else(switch: str, tags: set[str]) -> None:
    http = HttpKeys.model_validate({switch: True})
    gone = [one for one in operations() if not is_served(one, http)]

    assert {str(tag) for one in gone for tag in one.tags} == tags
    assert all(tags.isdisjoint(one.tags) for one in operations() if is_served(one, http))


def test_what_is_switched_off_is_404_and_not_described(database_uri: str, tmp_path: Path) -> None:
    with webapp_client(database_uri, tmp_path, app=None, disable_assistants=True, disable_mcp=True) as client:
        for path in ("/assistants/search", "/assistants", "/mcp"):
            assert client.post(path, json={}).status_code == 404, path
        paths = client.get("/openapi.json").json()["paths"]
        assert not [path for path in paths if path.startswith(("/assistants", "/mcp"))]
        assert client.get("/info").json()["flags"]["assistants"] is False


def test_without_meta_only_health_is_left_and_asks_nobody(database_uri: str, tmp_path: Path) -> None:
    with webapp_client(database_uri, tmp_path, app=None, disable_meta=True) as client:
        for path in ("/info", "/metrics", "/docs", "/openapi.json", "/"):
            assert client.get(path).status_code == 404, path
        assert client.get("/ok?check_db=1").json() == {"ok": True}


def test_a_failed_request_is_logged_with_the_headers_that_the_project_names(
    database_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = {"includes": ["x-*"], "excludes": ["x-tenant-secret"]}
    with webapp_client(database_uri, tmp_path, logging_headers=rules) as client, caplog.at_level(logging.ERROR):
        assert client.get("/broken", headers=SENT).status_code == 500
    records = [vars(record) for record in caplog.records if record.name == "waystation.api.frame"]
    assert records[0]["headers"] == {"x-tenant-name": "Acme", "x-other": "o"}
    assert records[0]["path"] == "/broken"


def test_cors_rules_of_the_project_replace_the_default_wholly(database_uri: str, tmp_path: Path) -> None:
    rules = {"allow_origins": ["https://app.example"], "expose_headers": ["x-pagination-total"]}
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with webapp_client(database_uri, tmp_path, app=None, cors=rules) as client:
        refused = client.options("/threads", headers=asks)
        assert (refused.status_code, refused.text) == (400, "Disallowed CORS method")
        assert refused.headers["access-control-allow-methods"] == "GET"
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        stranger = client.options("/threads", headers={**asks, "origin": "https://evil.example"})
        assert (stranger.status_code, stranger.text) == (400, "Disallowed CORS origin, method")
        assert "access-control-allow-origin" not in stranger.headers
        found = client.post("/threads/search", json={}, headers={"origin": "https://app.example"})
        assert found.headers["access-control-allow-origin"] == "https://app.example"
        assert found.headers["access-control-expose-headers"] == "x-pagination-total"
        assert "Origin" in found.headers["vary"]


def test_ui_is_404(database_uri: str, tmp_path: Path) -> None:
    with webapp_client(database_uri, tmp_path, app=None, top={"ui": {"card": "./card.tsx"}}) as client:
        assert client.get("/ui/echo/entrypoint.js").status_code == 404
        assert client.post("/ui/echo", json={"name": "card"}).status_code == 404
