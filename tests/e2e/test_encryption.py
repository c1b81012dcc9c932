"""Encryption at rest, by keys and by handlers: what passes through the API stands nowhere in Postgres or Redis."""

from __future__ import annotations

import json

import pytest

from api_services import api_services
from encryption_world import MARK, PROJECT, WAYS, client_of, places_of, serving, use_everything
from raw_storage import raw_redis, raw_tables
from waystation.config import Settings
from waystation_db import webhooks

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("way", WAYS)
async def test_the_marker_stands_nowhere(way: str, database_uri: str, redis_url: str) -> None:
    with serving(database_uri, WAYS[way], redis_uri=redis_url, event_log="redis") as server:
        async with client_of(server) as sdk:
            await use_everything(sdk)
    tables, redis = await raw_tables(database_uri), await raw_redis(redis_url)
    assert places_of(MARK, tables | redis) == []
    assert any(":events" in name for name in redis)
    assert any(":end" in name for name in redis)


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_webhook_tells_is_decrypted_to_be_sent(way: str, database_uri: str) -> None:
    with serving(database_uri, WAYS[way]) as server:
        async with client_of(server) as sdk:
            made = await use_everything(sdk)
    settings = Settings(database_uri=database_uri, n_jobs_per_worker=0, **WAYS[way][1])
    opening = api_services(database_uri, project=PROJECT / WAYS[way][0], settings=settings)
    async with opening as services, services.db.connection() as conn:
        await webhooks.replay_spent(conn, "default")
        await conn.execute("update webhook_delivery set due_at = '-infinity' where status = 'pending'")
        (delivery,) = await webhooks.claim(conn, limit=10, lease_s=60, relative=False)
    body = json.loads(delivery.payload)
    assert delivery.thread_id == made["thread_id"]
    assert (body["kwargs"]["input"]["text"], body["values"]["text"]) == (MARK, MARK)


async def test_without_encryption_the_marker_is_found_everywhere(database_uri: str, redis_url: str) -> None:
    """What shows that the tests before this one would see it."""
    with serving(database_uri, ("langgraph.json", {}), redis_uri=redis_url, event_log="redis") as server:
        async with client_of(server) as sdk:
            await use_everything(sdk)
    tables, redis = await raw_tables(database_uri), await raw_redis(redis_url)
    assert set(places_of(MARK, tables)) >= {
        *(
            "checkpoints",
            "checkpoint_blobs",
            "checkpoint_writes",
            "thread",
            "run",
            "event_chunk",
            "store",
            "cron",
            "webhook_delivery",
            "assistant",
            "assistant_version",
        ),
    }
    assert {name.rsplit(":", 1)[-1] for name in places_of(MARK, redis)} == {"events", "end"}
