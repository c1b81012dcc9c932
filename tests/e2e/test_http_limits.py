"""Limits of requests on real servers: two processes that share a Redis, every kind of client."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import RateLimitError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cli_servers import DEADLINE_S, Command, Project, until
from e2e.authorized import new_key
from services import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

LIMITS = {
    "limits": [
        {"per": "key", "rate": "20/hour", "routes": ["reads"], "name": "reads"},
        {"per": "user", "rate": "15/hour", "routes": ["writes"], "algorithm": "sliding_window", "name": "writes"},
        {"per": "tenant", "rate": "8/hour", "routes": ["runs"], "name": "runs", "rates": {"free": "1000/hour"}},
        {"per": "address", "rate": "100000/hour"},
    ],
    "open_streams": [{"per": "key", "limit": 2}],
}


@dataclass(frozen=True)
class Servers:
    """Two processes of one installation."""

    urls: tuple[str, str]
    database_uri: str
    commands: tuple[Command, Command]

    @property
    def uncounted(self) -> int:
        """How many requests were let through because Redis did not answer in time, as a slow machine's may not."""
        return sum(command.output.count("requests are not counted") for command in self.commands)

    def key(self, user: str, tenant: str = "default") -> str:
        """A new user's key."""
        return asyncio.run(new_key(self.database_uri, user, "user", tenant=tenant))


def configure(project: Project, http: dict[str, Any]) -> None:
    path = project.folder / "langgraph.json"
    config = json.loads(path.read_text())
    config["waystation"] = {"auth": {"api_keys": True}, "guards": {"http": http}}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def servers(
    make_database: Callable[[], str], valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Servers]:
    project = Project(tmp_path_factory.mktemp("limits") / "project")
    configure(project, LIMITS)
    uri = make_database()
    environ = {"DATABASE_URI": uri, "REDIS_URI": valkey.url, "REDIS_KEY_PREFIX": "http-limits-"}
    with ExitStack() as stack:
        started = [
            stack.enter_context(Command.running("serve", *more, "--port", "0", cwd=project.folder, environ=environ))
            for more in ((), ("--with-worker",))
        ]
        yield Servers((started[0].url, started[1].url), uri, (started[0], started[1]))


def crowd(servers: Servers, key: str, method: str, path: str, count: int) -> list[httpx.Response]:
    """Requests to both servers, many at the same time."""
    with httpx.Client(headers={"x-api-key": key}, timeout=DEADLINE_S) as http, ThreadPoolExecutor(16) as threads:

        def ask(number: int) -> httpx.Response:
            body: Any = {} if method == "POST" else None
            return http.request(method, servers.urls[number % 2] + path, json=body)

        return list(threads.map(ask, range(count)))


def counted_crowd(
    servers: Servers, user: str, method: str, path: str, count: int, *, tenant: str = "default"
) -> list[httpx.Response]:
    """The answers to a crowd of whose requests every one was counted; each time a new user's."""
    for attempt in range(10):
        before = servers.uncounted
        answers = crowd(servers, servers.key(f"{user}-{attempt}", tenant), method, path, count)
        if servers.uncounted == before:
            return answers
    raise AssertionError("Redis never answers in time")


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@pytest.mark.parametrize(
    ("path", "allowed"), [("/threads/search", 20), ("/threads", 15)], ids=["token bucket", "sliding window"]
)
def test_two_processes_together_let_through_exactly_what_is_allowed(servers: Servers, path: str, allowed: int) -> None:
    answers = counted_crowd(servers, f"crowd-{allowed}", "POST", path, 60)
    assert statuses(answers) == {200: allowed, 429: 60 - allowed}
    left = [int(one.headers["ratelimit-remaining"]) for one in answers if one.status_code == 200]
    assert all(0 <= one < allowed for one in left)
    for refused in (one for one in answers if one.status_code == 429):
        assert refused.json()["code"] == "too_many_requests"
        assert "try again in" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["ratelimit-remaining"] == "0"


def test_another_key_and_another_tenant_are_not_touched(servers: Servers) -> None:
    crowd(servers, servers.key("greedy"), "POST", "/threads/search", 30)
    for tenant in ("default", "elsewhere"):
        assert statuses(crowd(servers, servers.key("greedy", tenant), "POST", "/threads/search", 5)) == {200: 5}


def test_probes_and_metrics_are_never_limited(servers: Servers) -> None:
    for path in ("/ok", "/health", "/ready", "/metrics", "/info", "/openapi.json"):
        answers = crowd(servers, "none", "GET", path, 25)
        assert statuses(answers) == {200: 25}
        assert not any("ratelimit" in one.headers for one in answers)


def test_errors_carry_the_headers_too_and_unknown_paths_count_by_address(servers: Servers) -> None:
    key = servers.key("errors")
    answer = httpx.get(
        f"{servers.urls[0]}/threads/00000000-0000-0000-0000-000000000000",
        headers={"x-api-key": key},
        timeout=DEADLINE_S,
    )
    assert answer.status_code == 404
    assert answer.headers["ratelimit-policy"] == '"address";q=100000;w=3600, "reads";q=20;w=3600'
    assert answer.headers["ratelimit-limit"] == "20"
    for method, path in (("GET", "/nowhere"), ("POST", "/threads")):
        refused = httpx.request(method, servers.urls[0] + path, timeout=DEADLINE_S)
        assert refused.status_code == 401
        assert refused.headers["ratelimit-policy"] == '"address";q=100000;w=3600'


def test_all_runs_of_a_batch_count(servers: Servers) -> None:
    key = servers.key("batch", "batch")
    with httpx.Client(base_url=servers.urls[0], headers={"x-api-key": key}, timeout=DEADLINE_S) as http:
        run: dict[str, Any] = {"assistant_id": "steps", "input": {}}
        body = [run] * 5
        assert http.post("/runs/batch", json=body).status_code == 200
        refused = http.post("/runs/batch", json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert http.post("/runs", json=run).status_code == 200


def test_a_closed_stream_makes_room_on_the_other_process(servers: Servers) -> None:
    key = servers.key("streams", "free")
    headers = {"x-api-key": key}
    with httpx.Client(headers=headers, timeout=DEADLINE_S) as http, ExitStack() as streams:
        thread = http.post(f"{servers.urls[0]}/threads", json={}).json()["thread_id"]
        follow = [f"{url}/threads/{thread}/stream" for url in servers.urls]
        with streams:
            for url in follow:
                assert streams.enter_context(http.stream("GET", url)).status_code == 200
            refused = http.get(follow[0])
            assert refused.status_code == 429
            assert refused.json()["detail"] == "Too many open streams: this key may have 2 at a time"
            assert int(refused.headers["retry-after"]) > 0
            with (
                connect(
                    f"{servers.urls[1].replace('http', 'ws')}/threads/{thread}/stream/events",
                    additional_headers=headers,
                    open_timeout=DEADLINE_S,
                ) as socket,
                pytest.raises(ConnectionClosed) as closed,
            ):
                socket.recv(timeout=DEADLINE_S)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4429
        # A client's leaving is noticed within a moment, at the latest when the next heartbeat cannot be sent.
        until(lambda: _is_admitted(http, follow[0]), "a closed stream has made room")


def _is_admitted(http: httpx.Client, url: str) -> bool:
    with http.stream("GET", url) as answer:
        return answer.status_code == 200


def test_commands_on_a_socket_count_as_requests(servers: Servers) -> None:
    key = servers.key("socket", "socket-tenant")
    headers = {"x-api-key": key}
    thread = httpx.post(f"{servers.urls[0]}/threads", json={}, headers=headers, timeout=DEADLINE_S).json()["thread_id"]
    address = f"{servers.urls[0].replace('http', 'ws')}/threads/{thread}/stream/events"
    answers: list[dict[str, Any]] = []
    with connect(address, additional_headers=headers, open_timeout=DEADLINE_S) as socket:
        for number in range(9):  # the tenant may start eight runs
            socket.send(json.dumps({"id": number, "method": "state.get", "params": {}}))
            answers.append(json.loads(socket.recv(timeout=DEADLINE_S)))
    assert "429: Too many requests to runs" in json.dumps(answers[8])
    assert not any("429" in json.dumps(one) for one in answers[:8])


def test_openais_clients_are_refused_in_their_own_shape(servers: Servers) -> None:
    answers = counted_crowd(servers, "openai", "GET", "/v1/models", 21, tenant="openai-tenant")
    (refused,) = [one for one in answers if one.status_code == 429]
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["retry-after"]


def test_pages_may_read_the_headers(servers: Servers) -> None:
    headers = {"x-api-key": servers.key("page"), "origin": "https://page.example"}
    exposed = httpx.post(f"{servers.urls[0]}/threads/search", json={}, headers=headers, timeout=DEADLINE_S).headers[
        "access-control-expose-headers"
    ]
    assert {"retry-after", "ratelimit", "ratelimit-policy"} <= {name.strip() for name in exposed.split(",")}


def test_operations_say_that_they_may_refuse(servers: Servers) -> None:
    document = httpx.get(f"{servers.urls[0]}/openapi.json", timeout=DEADLINE_S).json()
    described = document["paths"]["/threads"]["post"]["responses"]["429"]
    assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(described["headers"])
    assert described["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorDetail"}
    openai = document["paths"]["/v1/models"]["get"]["responses"]["429"]
    assert openai["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/OpenAIError"}
    assert "429" not in document["paths"]["/ok"]["get"]["responses"]


async def test_the_official_client_raises_what_can_be_waited_for(servers: Servers) -> None:
    key = await new_key(servers.database_uri, "sdk", "user")
    async with get_client(url=servers.urls[0], api_key=key) as client:
        for _ in range(20):
            await client.threads.search()
        with pytest.raises(RateLimitError) as refused:
            await client.threads.search()
    # It does not try again by itself: whoever uses it reads when to.
    assert refused.value.status_code == 429
    assert int(refused.value.response.headers["retry-after"]) > 0


def test_a_policy_that_makes_no_sense_stops_the_start(tmp_path: Path, database_uri: str) -> None:
    project = Project(tmp_path / "project")
    configure(project, {"limits": [{"per": "key", "rate": "fast"}]})
    with Command.running("serve", "--port", "0", cwd=project.folder, environ={"DATABASE_URI": database_uri}) as server:
        server.until_says(r"waystation\.guards\.http\.limits\.0\.rate is 'fast': should be an amount and a time")
        assert server.ended() != 0
