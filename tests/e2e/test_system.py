"""A live API process: health, readiness, information, metrics, documentation."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from api_services import BASIC, api_services
from live_http import served
from services import Valkey
from waystation.app import create_app
from waystation.config import Settings
from waystation.services import Services
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def live(
    database_uri: str, *, project: Path = BASIC, settings: Settings | None = None
) -> AsyncGenerator[httpx.AsyncClient]:
    @asynccontextmanager
    async def services() -> AsyncGenerator[Services]:
        async with api_services(database_uri, project=project, settings=settings) as opened:
            yield opened

    app = create_app(services)
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
async def client(database_uri: str) -> AsyncIterator[httpx.AsyncClient]:
    async with live(database_uri) as client:
        yield client


async def test_health(client: httpx.AsyncClient) -> None:
    for path in ("/ok", "/", "/ok?check_db=1"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (200, {"ok": True, "services": {}}), path
    assert (await client.head("/ok")).status_code == 200
    assert (await client.get("/ok/")).status_code == 404
    assert (await client.get("/health")).json() == {"ok": True}
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "services": {"postgres": "up", "graphs": "up"}})


async def test_default_assistants_are_there_when_the_server_answers(client: httpx.AsyncClient) -> None:
    response = await client.post("/assistants/search", json={"metadata": {"created_by": "system"}, "limit": 100})
    assert {"agent", "echo", "nested"} <= {assistant["graph_id"] for assistant in response.json()}


async def test_info_says_what_this_server_is(client: httpx.AsyncClient) -> None:
    info = (await client.get("/info")).json()
    assert info["flags"]["assistants"] is True
    assert info["host"]["kind"] == "self-hosted"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", info["langgraph_py_version"])


async def test_metrics_count_requests_by_route_and_not_by_id(client: httpx.AsyncClient) -> None:
    for n in (1, 2):
        await client.get(f"/assistants/00000000-0000-0000-0000-00000000000{n}")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    line = 'waystation_http_requests_total{method="GET",route="/assistants/{assistant_id}",status="404"} '
    counts = [float(found.removeprefix(line)) for found in response.text.splitlines() if found.startswith(line)]
    assert counts
    assert counts[0] >= 2
    assert "00000000-0000" not in response.text
    for name in ("waystation_queue_pending_runs", "waystation_event_loop_lag_seconds", "waystation_streams_open"):
        assert name in response.text
    assert (await client.get("/metrics?format=xml")).headers["content-type"].startswith("text/plain")


async def test_metrics_as_json(client: httpx.AsyncClient) -> None:
    figures = (await client.get("/metrics?format=json")).json()
    assert figures["queue"] == {
        "n_pending": 0,
        "pending_runs_wait_time_max_secs": None,
        "pending_runs_wait_time_med_secs": None,
        "pending_unblocked_runs_wait_time_max_secs": None,
        "n_running": 0,
    }
    assert set(figures["workers"]) == {"max", "active", "available"}
    assert all(set(item) == {"method", "path", "status", "count"} for item in figures["api"]["http_requests_total"])


async def test_the_documentation_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "/assistants/{assistant_id}/graph" in page.text
    assert not re.findall(r"<script|https?://|@import|url\(", page.text)
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    anchors = set(re.findall(r'href="#([^"]+)"', page.text))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page.text))
    for path, item in document["paths"].items():
        assert path in page.text
        for operation in item.values():
            assert operation["summary"], path


OPENAI = {"$ref": "#/components/schemas/OpenAIError"}
OURS = {"$ref": "#/components/schemas/ErrorDetail"}
TWO_SHAPES = {
    ("/threads/{thread_id}/commands", "400"),  # that of the event streaming protocol, too
    *((path, "422") for path in ("/store/items", "/store/items/search", "/store/namespaces")),  # the bare text, too
}


def may_be(schema: object, path: str, status: str, tags: list[str]) -> bool:
    """Whether an error's body is described as what the clients of this operation know."""
    if "OpenAI" in tags:
        return schema == OPENAI
    return schema == OURS or bool({"MCP", "A2A"}.intersection(tags)) or (path, status) in TWO_SHAPES


async def test_every_error_in_the_document_has_the_shape_of_errors(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for status, response in operation["responses"].items():
                if status.startswith("4"):
                    schema = response.get("content", {}).get("application/json", {}).get("schema")
                    assert may_be(schema, path, status, operation["tags"]), (method, path, status)
    streams = [path for path, item in document["paths"].items() if path.endswith("/stream") for _ in item]
    assert streams
    for path in streams:
        for operation in document["paths"][path].values():
            assert set(operation["responses"]["200"]["content"]) == {"text/event-stream"}, path
    assert "HTTPValidationError" not in json.dumps(document)


async def test_without_postgres_it_lives_and_is_not_ready(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    postgres = make_postgres()
    await migrate(postgres.conninfo)
    async with live(postgres.conninfo) as client:
        assert (await client.get("/ready")).status_code == 200
        await asyncio.to_thread(postgres.halt)
        ready, ok, checked, health, numbers, search = await asyncio.gather(
            client.get("/ready"),
            client.get("/ok"),
            client.get("/ok?check_db=1"),
            client.get("/health"),
            client.get("/metrics"),
            client.post("/assistants/search", json={}),
        )
        assert (ready.status_code, ready.json()["services"]["postgres"]) == (503, "down")
        assert (ok.status_code, health.status_code, numbers.status_code) == (200, 200, 200)
        assert (checked.status_code, search.status_code) == (503, 503)
        assert int(search.headers["retry-after"]) > 0
        await asyncio.to_thread(postgres.revive)
        async with asyncio.timeout(60):
            while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110 - seen from outside only
                await asyncio.sleep(0.1)


async def test_losing_redis_is_shown_and_takes_nobody_out_of_service(
    database_uri: str, make_redis: Callable[[], Valkey]
) -> None:
    redis = make_redis()
    settings = Settings(database_uri=database_uri, redis_uri=redis.url, n_jobs_per_worker=0)
    async with live(database_uri, settings=settings) as client:
        assert (await client.get("/ready")).json()["services"]["redis"] == "up"
        await asyncio.to_thread(redis.kill)
        response = await client.get("/ready")
        assert (response.status_code, response.json()["services"]["redis"]) == (200, "down")


async def test_the_project_can_take_operations_away(database_uri: str, tmp_path: Path) -> None:
    shutil.copytree(BASIC, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "langgraph.json").read_text())
    config["http"] = {"disable_meta": True, "disable_assistants": True}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    async with live(database_uri, project=tmp_path) as client:
        assert (await client.get("/ok")).json() == {"ok": True}
        assert (await client.get("/ready")).status_code == 200
        for path in ("/info", "/metrics", "/docs", "/openapi.json", "/assistants/agent/graph"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.post("/threads/search", json={})).status_code == 200
