"""A project's middleware around the API, who comes first, and what it may not do to the rest."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli_servers import Client, Command, until
from live_server import server_process
from webapp_project import WEBAPP, webapp_client, webapp_project

pytestmark = pytest.mark.timeout(400)  # some start a process, which imports everything

AUTH = {"path": f"{WEBAPP}/webapp_auth.py:auth", "disable_studio_auth": True}
ALICE = {"authorization": "Bearer alice"}


@pytest.fixture(scope="module")
def client(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx.Client]:
    folder = webapp_project(tmp_path_factory.mktemp("webapp"), app="webapp_shielded")
    with (
        server_process(make_database(), log=folder / "log", project=folder) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def test_it_stands_around_the_operations_of_the_api(client: httpx.Client) -> None:
    info = client.get("/info")
    assert (info.status_code, info.headers["x-shield"]) == (200, "/info")
    stopped = client.post("/threads", json={}, headers={"x-stop": "1"})
    assert (stopped.status_code, stopped.json()) == (418, {"stopped": "/threads"})


def test_it_stands_around_the_projects_own_routes(client: httpx.Client) -> None:
    assert client.get("/mine/3").headers["x-shield"] == "/mine/3"
    assert client.get("/mine/3", headers={"x-stop": "1"}).status_code == 418


def test_errors_of_the_api_pass_through_it_as_answers(client: httpx.Client) -> None:
    wrong = client.post("/threads/search", json={"limit": "many"})
    assert (wrong.status_code, wrong.headers["x-shield"]) == (422, "/threads/search")
    assert "limit" in wrong.json()["detail"]
    assert client.put("/threads").status_code == 405


def test_probes_do_not_pass_through_it(client: httpx.Client) -> None:
    for path in ("/ok", "/health", "/ready"):
        assert client.get(path, headers={"x-stop": "1"}).status_code == 200, path


def test_runs_stream_through_it_event_by_event(client: httpx.Client) -> None:
    body: dict[str, Any] = {"assistant_id": "echo", "input": {}, "stream_mode": ["updates", "values"]}
    with client.stream("POST", "/runs/stream", json=body) as answer:
        events = [line for line in answer.iter_lines() if line.startswith("event: ")]
    assert answer.headers["x-shield"] == "/runs/stream"
    assert answer.headers["content-location"].startswith("/runs/")
    assert events[0] == "event: metadata"
    assert events.count("event: updates") == 2


def test_requests_behind_it_are_counted_by_their_operation(client: httpx.Client) -> None:
    client.post("/threads/search", json={}).raise_for_status()
    assert 'method="POST",route="/threads/search",status="200"' in client.get("/metrics").text


@contextmanager
def held(client: httpx.Client, go: Path) -> Generator[list[httpx.Response]]:
    """A run holds the loop of the graphs; its answer is there when the block is left."""
    answers: list[httpx.Response] = []
    body = {"assistant_id": "echo", "input": {"hold_until": str(go)}}
    running = threading.Thread(target=lambda: answers.append(client.post("/runs/wait", json=body)), name="held")
    running.start()
    try:
        until(go.with_name(f"{go.name}.held").exists, "the loop is held")
        yield answers
    finally:
        go.touch()
        running.join()


def test_a_node_that_holds_the_loop_of_the_graphs_keeps_probes_answering(client: httpx.Client, tmp_path: Path) -> None:
    with held(client, tmp_path / "go") as answers:
        assert client.get("/ok").status_code == 200
        assert answers == []
    assert answers[0].status_code == 200


def test_behind_a_loop_that_is_held_for_long_the_answer_is_503(
    database_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webapp_client(database_uri, tmp_path, app="webapp_shielded") as client:
        with held(client, tmp_path / "go") as answers, monkeypatch.context() as patched:
            patched.setattr("waystation.api.custom_app.TAKEN_S", 0.3)
            refused = client.get("/info")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert answers[0].status_code == 200
        assert client.get("/info").status_code == 200


def test_middleware_that_fails_is_a_500_that_tells_nothing(client: httpx.Client) -> None:
    failed = client.get("/info", headers={"x-fail": "1"})
    assert failed.status_code == 500
    assert "secret" not in failed.text
    assert client.get("/info").status_code == 200


def test_an_answer_cut_off_by_the_stop_is_not_closed_as_if_it_were_whole(database_uri: str, tmp_path: Path) -> None:
    webapp_project(tmp_path, app="webapp_shielded")
    environ = {"DATABASE_URI": database_uri, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "4"}
    with Command.running("serve", "--with-worker", "--port", "0", cwd=tmp_path, environ=environ) as server:
        client = Client(server.url).http
        thread = client.post("/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "echo", "input": {"sleep_s": 60}, "stream_resumable": True}
        with client.stream("POST", f"/threads/{thread}/runs/stream", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("event: metadata")
            server.signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert server.ended() == 0


@pytest.mark.parametrize(("order", "seen"), [("middleware_first", "nobody"), ("auth_first", "alice")])
def test_who_comes_first_is_the_projects_choice(database_uri: str, tmp_path: Path, order: str, seen: str) -> None:
    with webapp_client(
        database_uri, tmp_path, app="webapp_shielded", middleware_order=order, top={"auth": AUTH}
    ) as client:
        without = client.post("/threads/search", json={})
        assert without.status_code == 401
        assert ("x-shield" in without.headers) == (order == "middleware_first")
        found = client.post("/threads/search", json={}, headers=ALICE)
        assert (found.status_code, found.headers["x-seen-user"]) == (200, seen)
        assert client.get("/info").headers["x-seen-user"] == "nobody"


@pytest.mark.parametrize("order", ["middleware_first", "auth_first"])
@pytest.mark.parametrize("app", ["webapp_routes", "webapp_shielded"])
def test_own_routes_ask_for_credentials_where_the_project_says_so(
    database_uri: str, tmp_path: Path, app: str, order: str
) -> None:
    keys: dict[str, Any] = {"enable_custom_route_auth": True, "middleware_order": order}
    with webapp_client(database_uri, tmp_path, app=app, top={"auth": AUTH}, **keys) as client:
        without = client.get("/mine/1")
        assert (without.status_code, without.json()["detail"]) == (401, "no token")
        assert client.get("/mine/1", headers=ALICE).json()["user"] == "alice"


def test_own_routes_are_open_by_default(database_uri: str, tmp_path: Path) -> None:
    with webapp_client(database_uri, tmp_path, top={"auth": AUTH}) as client:
        assert client.get("/mine/1").json()["user"] is None
        assert client.post("/threads", json={}).status_code == 401


def test_a_cors_middleware_of_the_project_takes_the_place_of_ours(database_uri: str, tmp_path: Path) -> None:
    with webapp_client(database_uri, tmp_path, app="webapp_cors") as client:
        for path in ("/mine/1", "/info"):
            good = client.get(path, headers={"origin": "https://good.example"})
            assert good.headers.get_list("access-control-allow-origin") == ["https://good.example"], path
            assert (
                "access-control-allow-origin" not in client.get(path, headers={"origin": "https://e.example"}).headers
            )
        asks = {"origin": "https://good.example", "access-control-request-method": "POST"}
        assert client.options("/threads", headers=asks).status_code == 200


def test_rules_of_the_configuration_win_against_its_cors_middleware(database_uri: str, tmp_path: Path) -> None:
    rules = {"allow_origins": ["https://config.example"]}
    with webapp_client(database_uri, tmp_path, app="webapp_cors", cors=rules) as client:
        answer = client.get("/mine/1", headers={"origin": "https://config.example"})
        assert answer.headers.get_list("access-control-allow-origin") == ["https://config.example"]
        answer = client.get("/mine/1", headers={"origin": "https://good.example"})
        assert "access-control-allow-origin" not in answer.headers
