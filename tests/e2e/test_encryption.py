"""Encryption at rest, by keys and by handlers: what passes through the API stands nowhere in Postgres or Redis."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client

from eventually import eventually
from live_server import Client, LiveServer, live_server_on
from raw_storage import raw_redis, raw_tables
from waystation.config import Settings

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).parents[1] / "fixtures" / "projects" / "encrypted"
MARK = "the-secret-that-is-nowhere"
MODES = ["values", "updates", "messages", "custom", "tasks", "checkpoints", "debug"]
KEYS = {"langgraph_aes_key": "0123456789abcdef0123456789abcdef", "langgraph_aes_json_keys": ("secret",)}
PLAIN: dict[str, Any] = {}

Way = tuple[str, dict[str, Any]]
WAYS: dict[str, Way] = {"keys": ("langgraph.json", KEYS), "handlers": ("handlers.json", {})}


@contextmanager
def serving(database_uri: str, way: Way, **settings: Any) -> Generator[LiveServer]:
    given = Settings(n_jobs_per_worker=4, **(way[1] | settings))
    with live_server_on(database_uri, project=PROJECT / way[0], settings=given) as server:
        yield server


@pytest.fixture(params=WAYS)
async def sealed(request: pytest.FixtureRequest, database_uri: str) -> AsyncGenerator[Client]:
    """A client of a server that encrypts."""
    with serving(database_uri, WAYS[request.param]) as server:
        async with get_client(url=server.url) as client:
            yield client


async def use_everything(sdk: Client) -> dict[str, Any]:
    """Put the marker wherever a client can put it, and read all of it back."""
    thread = await sdk.threads.create(metadata={"secret": MARK, "public": "yes"})
    thread_id = thread["thread_id"]
    assert thread["metadata"]["secret"] == MARK
    asked = {"text": MARK, "asks": True}
    context = {"secret": MARK}
    metadata = {"secret": MARK}
    streamed = [
        part.event
        async for part in sdk.runs.stream(
            thread_id, "everywhere", input=asked, context=context, stream_mode=MODES, stream_resumable=True
        )
    ]
    assert {"custom", "values", "debug"} <= set(streamed)
    assert MARK in json.dumps((await sdk.threads.get(thread_id))["interrupts"])
    await sdk.runs.wait(thread_id, "everywhere", command={"resume": MARK}, metadata=metadata)
    await sdk.runs.wait(thread_id, "everywhere", input={"text": MARK, "fails": True, "asks": False}, raise_error=False)
    failed = await sdk.threads.get(thread_id)
    assert MARK in failed["error"]["message"]
    streamed = [p async for p in sdk.runs.stream(None, "everywhere", input={"text": MARK}, on_completion="keep")]
    assert MARK in json.dumps([part.data for part in streamed])
    await sdk.threads.update_state(thread_id, {"text": MARK})
    copy_id = (await sdk.threads.copy(thread_id))["thread_id"]
    assert (await sdk.threads.get(copy_id))["values"]["text"] == MARK
    assert (await sdk.threads.get_state(copy_id))["values"]["text"] == MARK
    later = await sdk.runs.create(
        thread_id, "everywhere", input={"text": MARK}, config={"tags": [MARK]}, after_seconds=3600
    )
    assert (await sdk.runs.get(thread_id, later["run_id"]))["kwargs"]["input"] == {"text": MARK}
    await sdk.store.put_item(["notes"], "own", {"text": MARK})
    assert (await sdk.store.get_item(["notes"], "own"))["value"] == {"text": MARK}
    cron = await sdk.crons.create("everywhere", schedule="0 0 1 1 *", input={"text": MARK}, metadata=metadata)
    return {"thread_id": thread_id, "copy_id": copy_id, "run_id": later["run_id"], "cron": cron}


def places_of(mark: str, kept: dict[str, bytes]) -> list[str]:
    return [name for name, content in kept.items() if mark.encode() in content]


@pytest.mark.parametrize("way", WAYS)
async def test_the_marker_stands_nowhere(way: str, database_uri: str, redis_url: str) -> None:
    with serving(database_uri, WAYS[way], redis_uri=redis_url, event_log="redis") as server:
        async with get_client(url=server.url) as sdk:
            await use_everything(sdk)
    tables, redis = await raw_tables(database_uri), await raw_redis(redis_url)
    assert places_of(MARK, tables | redis) == []
    assert any(":events" in name for name in redis)
    assert any(":end" in name for name in redis)


async def test_without_encryption_the_marker_is_found_everywhere(database_uri: str, redis_url: str) -> None:
    """What shows that the tests before this one would see it."""
    with serving(database_uri, ("langgraph.json", {}), redis_uri=redis_url, event_log="redis") as server:
        async with get_client(url=server.url) as sdk:
            await use_everything(sdk)
    tables, redis = await raw_tables(database_uri), await raw_redis(redis_url)
    assert set(places_of(MARK, tables)) >= {
        *("checkpoints", "checkpoint_blobs", "checkpoint_writes", "thread", "run", "event_chunk", "store", "cron"),
    }
    assert {name.rsplit(":", 1)[-1] for name in places_of(MARK, redis)} == {"events", "end"}
