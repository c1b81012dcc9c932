"""A project's own web application beside the API: its routes, lifespan, errors, sockets and description."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from cli_servers import Command
from live_server import server_process
from webapp_project import WEBAPP, webapp_client, webapp_project


@pytest.fixture(scope="module")
def client(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx.Client]:
    folder = webapp_project(tmp_path_factory.mktemp("webapp"))
    with (
        server_process(make_database(), log=folder / "log", project=folder) as server,  # its modules are its own
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def run(client: httpx.Client, payload: dict[str, Any], **headers: str) -> dict[str, Any]:
    body = {"assistant_id": "echo", "input": payload}
    return client.post("/runs/wait", json=body, headers=headers).raise_for_status().json()


def test_its_routes_answer_on_the_loop_of_its_lifespan_and_see_what_that_yielded(client: httpx.Client) -> None:
    answer = client.get("/mine/7").raise_for_status().json()

    assert answer == {
        "item": 7,
        "pool": "a pool",
        "same_loop": True,
        "thread": "waystation-graphs",  # with the graphs, and not on the API's loop
        "url": f"{client.base_url}/mine/7",
        "user": None,
    }


def test_graphs_use_what_the_lifespan_opened(client: httpx.Client) -> None:
    assert run(client, {})["opened"] == "a pool"


def test_a_body_reaches_its_route_and_is_checked_by_it(client: httpx.Client) -> None:
    assert client.post("/mine", json={"colour": "red" * 100_000}).json() == {"colour": "red" * 100_000}
    wrong = client.post("/mine", json={})
    assert wrong.status_code == 422
    assert wrong.json()["detail"][0]["loc"] == ["body", "colour"]


def test_its_streams_arrive_whole(client: httpx.Client) -> None:
    assert client.get("/numbers").text == "0\n1\n2\n"


def test_its_exception_handlers_answer_its_errors_and_leave_ours_alone(client: httpx.Client) -> None:
    refused = client.get("/refused")
    assert (refused.status_code, refused.json()) == (409, {"refused": "/refused"})
    assert client.get("/gone").json() == {"detail": "gone for good"}
    ours = client.get("/threads/no-uuid")
    assert (ours.status_code, ours.json()["detail"]) == (422, "Invalid thread ID: must be a UUID")


def test_an_error_nobody_handles_is_a_500_that_tells_nothing(client: httpx.Client) -> None:
    broken = client.get("/broken")
    assert broken.status_code == 500
    assert "secret" not in broken.text
    assert client.get("/mine/1").status_code == 200


def test_an_unknown_path_is_404_in_json(client: httpx.Client) -> None:
    unknown = client.get("/nobody/has/this")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})


def test_its_routes_win_against_the_api_but_not_against_what_machines_ask(client: httpx.Client) -> None:
    assert client.post("/threads/count", json={}).json() == 42
    assert client.get("/threads/special").json() == "special"
    assert client.get("/ok").json() == {"ok": True, "services": {}}
    assert client.post("/threads", json={}).status_code == 200
    assert client.put("/threads").status_code == 405


def test_sockets_are_answered(client: httpx.Client) -> None:
    url = f"ws://{client.base_url.netloc.decode()}/talk"
    with connect(url) as socket:
        socket.send("hello")
        assert socket.recv() == "HELLO"


def test_sockets_of_the_api_stay_the_apis(client: httpx.Client) -> None:
    thread = client.post("/threads", json={}).json()["thread_id"]
    url = f"ws://{client.base_url.netloc.decode()}/threads/{thread}/stream/events"
    with connect(url) as socket:
        socket.send('{"id": 1, "method": "nobody.knows", "params": {}}')
        assert '"id":1' in str(socket.recv()).replace(" ", "")


def test_our_description_has_its_routes_and_keeps_names_apart(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()

    assert "/mine/{item}" in document["paths"]
    assert "/threads/{thread_id}" in document["paths"]
    assert document["info"]["title"] == "Waystation"
    body = document["paths"]["/mine"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/CustomHealth"}
    assert document["components"]["schemas"]["CustomHealth"]["properties"].keys() == {"colour"}
    assert "ok" in document["components"]["schemas"]["Health"]["properties"]
    assert document["paths"]["/ok"]["get"]["tags"] == ["System"]
    assert "/mine/{item}" in client.get("/docs").text


def test_any_page_may_call_its_routes_by_default(client: httpx.Client) -> None:
    answer = client.get("/mine/1", headers={"origin": "https://app.example"})
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]


def test_its_requests_are_counted_under_one_name(client: httpx.Client) -> None:
    client.get("/mine/1")
    assert 'route="custom",status="200"' in client.get("/metrics").text


def test_below_a_prefix_its_addresses_have_it_and_its_redirects_are_its_own(database_uri: str, tmp_path: Path) -> None:
    with webapp_client(database_uri, tmp_path, mount_prefix="/api") as client:
        assert client.get("/api/mine/7").json()["url"] == f"{client.base_url}/api/mine/7"
        assert client.get("/api/moved").headers["location"] == "/elsewhere"
        assert client.get("/api/openapi.json").json()["servers"] == [{"url": "/api"}]
        assert client.get("/mine/7").status_code == 404
        assert client.get("/ok").json() == client.get("/api/ok").json() == {"ok": True, "services": {}}
        assert client.get("/api/threads/special").json() == "special"
        thread = client.post("/api/threads", json={}).json()["thread_id"]
        created = client.post(f"/api/threads/{thread}/runs", json={"assistant_id": "echo", "input": {}})
        assert created.headers["content-location"].startswith(f"/api/threads/{thread}/runs/")


def test_its_lifespan_is_left_when_the_server_stops(database_uri: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    os.environ["WAYSTATION_TEST_JOURNAL"] = str(journal)
    try:
        with webapp_client(database_uri, tmp_path) as client:
            client.get("/mine/1").raise_for_status()
            assert not journal.exists()
    finally:
        del os.environ["WAYSTATION_TEST_JOURNAL"]
    assert journal.read_text() == "left"


@pytest.mark.parametrize(
    ("app", "environ", "said"),
    [
        ("./nope.py:app", {}, r"http\.app \(\./nope\.py:app\) cannot be loaded: \S+nope\.py does not exist"),
        (f"{WEBAPP}/webapp_routes.py:apps", {}, r"has no 'apps'; did you mean 'app'\?"),
        (f"{WEBAPP}/webapp_graph.py:graph", {}, r"expected a Starlette or FastAPI application, found a StateGraph"),
        ("./wrong.py:app", {}, r"wrong\.py, line 2: ValueError: not today"),
        (
            f"{WEBAPP}/webapp_routes.py:app",
            {"WAYSTATION_TEST_LIFESPAN": "fail"},
            r"http\.app \(\S+\) does not start: \S+webapp_routes\.py, line 22: RuntimeError: no such host",
        ),
    ],
)
def test_an_application_that_cannot_be_served_stops_the_start_with_the_reason(
    database_uri: str, tmp_path: Path, app: str, environ: dict[str, str], said: str
) -> None:
    (tmp_path / "wrong.py").write_text('"""Wrong."""\nraise ValueError("not today")\n')
    webapp_project(tmp_path, app=None, top={"http": {"app": app}})
    settings = {"DATABASE_URI": database_uri, **environ}
    with Command.running("serve", "--port", "0", cwd=tmp_path, environ=settings) as command:
        command.until_says(said)
        assert command.ended() == 3
