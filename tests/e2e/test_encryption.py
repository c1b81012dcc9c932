"""Encryption at rest, by keys and by handlers: what passes through the API stands nowhere in Postgres or Redis."""

from __future__ import annotations

import pytest

from encryption_world import MARK, WAYS, client_of, places_of, serving, use_everything
from raw_storage import raw_redis, raw_tables

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


async def test_without_encryption_the_marker_is_found_everywhere(database_uri: str, redis_url: str) -> None:
    """What shows that the tests before this one would see it."""
    with serving(database_uri, ("langgraph.json", {}), redis_uri=redis_url, event_log="redis") as server:
        async with client_of(server) as sdk:
            await use_everything(sdk)
    tables, redis = await raw_tables(database_uri), await raw_redis(redis_url)
    assert set(places_of(MARK, tables)) >= {
        *("checkpoints", "checkpoint_blobs", "checkpoint_writes", "thread", "run", "event_chunk", "store", "cron"),
    }
    assert {name.rsplit(":", 1)[-1] for name in places_of(MARK, redis)} == {"events", "end"}
