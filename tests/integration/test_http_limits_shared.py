"""Limits of requests over what processes share: Redis, Postgres where there is none, and neither for a moment."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services import Valkey
from waystation.auth import Principal
from waystation.catalog import read_project
from waystation.config import Settings
from waystation.errors import TooManyRequests, Unavailable
from waystation.guarding.http_limit_rules import Window
from waystation.guarding.http_limit_scope import LIMITED
from waystation.guarding.http_limit_windows import windows_in_redis
from waystation.guarding.http_limits import HttpLimits
from waystation.services.http_limits import open_http_limits
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio

STREAMS = frozenset(("reads", "streams"))

Open = Callable[..., Any]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that answer late are not away; those that are killed are found out at once."""
    monkeypatch.setattr("waystation.events.redis_pipe._ANSWER_S", 30.0)
    monkeypatch.setattr("waystation.guarding.postgres_state.ANSWER_S", 30.0)
    monkeypatch.setattr("waystation.guarding.http_limit_windows.ANSWER_S", 30.0)


@pytest.fixture
def process(tmp_path: Path, db: Database) -> Open:
    """Opens the limits as a process does."""

    @asynccontextmanager
    async def opened(http: dict[str, Any], redis: str | None, *, alone: bool = False) -> AsyncGenerator[HttpLimits]:
        config = {"dependencies": ["."], "graphs": {"g": "./g.py:g"}, "waystation": {"guards": {"http": http}}}
        (tmp_path / "langgraph.json").write_text(json.dumps(config))
        settings = Settings(redis_uri=redis)
        async with open_http_limits(settings, read_project(tmp_path), db, alone=alone) as limits:
            assert limits is not None
            yield limits

    return opened


async def ask(limits: HttpLimits, caller: Principal | None = None) -> dict[bytes, bytes] | None:
    """The headers of an answer, None for a refusal."""
    scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
    try:
        await limits.admit(scope, caller, frozenset(("reads",)))
    except TooManyRequests:
        return None
    return dict(scope[LIMITED])


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
async def test_processes_that_share_a_redis_let_through_what_one_would(
    process: Open, redis_url: str, algorithm: str
) -> None:
    http = {"limits": [{"per": "tenant", "rate": "25/hour", "algorithm": algorithm}]}
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(process(http, redis_url)) for _ in range(4)]
        answers = await asyncio.gather(*(ask(processes[number % 4]) for number in range(120)))
    let_through = [one for one in answers if one is not None]
    assert len(let_through) == 25
    if algorithm == "token_bucket":
        assert sorted(int(one[b"ratelimit-remaining"]) for one in let_through) == list(range(25))


async def test_without_a_redis_processes_share_their_buckets_in_postgres(process: Open) -> None:
    http = {"limits": [{"per": "tenant", "rate": "7/hour"}]}
    async with process(http, None) as one, process(http, None) as other:
        answers = await asyncio.gather(*(ask((one, other)[number % 2]) for number in range(30)))
    assert sum(one is not None for one in answers) == 7


async def test_a_process_that_is_alone_counts_in_memory(process: Open) -> None:
    http = {
        "limits": [
            {"per": "tenant", "rate": "3/hour"},
            {"per": "user", "rate": "3/hour", "algorithm": "sliding_window"},
        ]
    }
    async with process(http, None, alone=True) as limits:
        assert [bool(await ask(limits)) for _ in range(5)] == [True, True, True, False, False]


async def test_places_of_open_streams_are_shared_and_given_back(process: Open, redis_url: str) -> None:
    http = {"open_streams": [{"per": "tenant", "limit": 3}]}
    async with process(http, redis_url) as one, process(http, redis_url) as other:
        scopes: list[dict[str, Any]] = []
        outcomes: Counter[str] = Counter()

        async def stream(limits: HttpLimits) -> None:
            scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
            try:
                await limits.admit(scope, None, STREAMS)
                scopes.append(scope)
                outcomes["open"] += 1
            except TooManyRequests:
                outcomes["refused"] += 1

        await asyncio.gather(*(stream((one, other)[number % 2]) for number in range(12)))
        assert outcomes == {"open": 3, "refused": 9}
        for scope in scopes:
            await one.leave(scope)
        await stream(other)
        assert outcomes["open"] == 4


async def test_a_request_that_is_cancelled_while_it_takes_a_place_leaves_none(process: Open, redis_url: str) -> None:
    http = {"open_streams": [{"per": "tenant", "limit": 1}]}
    async with process(http, redis_url) as limits:
        for turns in range(12):
            scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
            task = asyncio.ensure_future(limits.admit(scope, None, STREAMS))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await limits.leave(scope)
        scope = {"client": ("192.0.2.1", 1)}
        await limits.admit(scope, None, STREAMS)


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
async def test_while_redis_is_away_the_project_decides(
    process: Open, make_redis: Callable[[], Valkey], algorithm: str
) -> None:
    server = make_redis()
    limit = {"limits": [{"per": "tenant", "rate": "2/hour", "algorithm": algorithm}]}
    async with process(limit, server.url) as opened, process({**limit, "fail": "closed"}, server.url) as closed:
        assert await ask(opened)
        server.kill()
        scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
        for _ in range(5):
            await opened.admit(scope, None, frozenset(("reads",)))
        with pytest.raises(Unavailable):
            await closed.admit(scope, None, frozenset(("reads",)))
        assert LIMITED not in scope


async def test_a_window_tells_when_there_is_room_again(redis_url: str) -> None:
    windows, window = windows_in_redis(redis_url, key_prefix=""), Window("w", 5, 600)
    try:
        for _ in range(5):
            assert await windows.take(window)
        level = await windows.level(window)
        assert (level.left, await windows.take(window)) == (0, False)
        assert 500 < level.wait_s <= 601
        await windows.take(window, -2)
        assert (await windows.level(window)).left == 2
    finally:
        await windows.close()


async def test_windows_lie_below_the_prefix_of_the_installation(valkey: Valkey, redis_url: str) -> None:
    windows = windows_in_redis(redis_url, key_prefix="mine:")
    try:
        assert await windows.take(Window("w", 5, 60))
    finally:
        await windows.close()
    with valkey.client() as client:
        found: Any = client.keys()  # pyright: ignore[reportUnknownMemberType]  # redis leaves its kwargs untyped
    assert found
    assert all(b"mine:waystation:http" in key for key in found)


def test_a_redis_on_a_socket_is_asked_by_the_same_client() -> None:
    windows = windows_in_redis("unix:///nowhere/redis.sock", key_prefix="")
    assert windows.client == "redis"
