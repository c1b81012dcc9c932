"""The listening connection: everybody gets what was said, or is told that something may be missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from waystation_db.embedded import EmbeddedPostgres
from waystation_db.errors import DatabaseUnavailable
from waystation_db.listen import Gap, Listener, Notification, Subscription

pytestmark = pytest.mark.anyio


async def _notify(uri: str, channel: str, *payloads: str) -> None:
    async with await psycopg.AsyncConnection.connect(uri) as conn:
        for payload in payloads:
            await conn.execute("select pg_notify(%s, %s)", (channel, payload))


async def _next(subscription: Subscription) -> Notification | Gap:
    async with asyncio.timeout(60):
        return await anext(subscription)


async def test_every_subscriber_gets_its_channels_in_order(empty_database_uri: str) -> None:
    async with Listener(empty_database_uri, ["a", "B c"]) as listener:
        with listener.subscribe() as both, listener.subscribe("B c") as one:
            await _notify(empty_database_uri, "a", "1")
            await _notify(empty_database_uri, "B c", "2", "3")
            expected = [Notification("a", "1"), Notification("B c", "2"), Notification("B c", "3")]
            assert [await _next(both) for _ in expected] == expected
            assert [await _next(one) for _ in expected[1:]] == expected[1:]


async def test_subscriber_from_before_the_start_is_told_to_look(empty_database_uri: str) -> None:
    listener = Listener(empty_database_uri, ["a"])
    with listener.subscribe() as early:
        async with listener:
            assert await _next(early) == Gap()


async def test_reconnect_is_told_as_a_gap_and_listening_goes_on(
    make_postgres: Callable[[], EmbeddedPostgres], caplog: pytest.LogCaptureFixture
) -> None:
    server = make_postgres()
    async with Listener(server.conninfo, ["a"]) as listener:
        with listener.subscribe() as subscription:
            await asyncio.to_thread(server.restart_immediate)
            assert await _next(subscription) == Gap()
            assert listener.is_connected
            await _notify(server.conninfo, "a", "after")
            assert await _next(subscription) == Notification("a", "after")
    assert "listening connection" in caplog.text


async def test_slow_reader_gets_one_gap_and_no_memory_grows(empty_database_uri: str) -> None:
    async with Listener(empty_database_uri, ["a"]) as listener:
        with listener.subscribe(limit=10) as slow, listener.subscribe() as quick:
            await _notify(empty_database_uri, "a", *map(str, range(25)))
            await _notify(empty_database_uri, "a", "last")
            while await _next(quick) != Notification("a", "last"):
                pass
            seen = [await _next(slow)]
            while seen[-1] != Notification("a", "last"):
                seen.append(await _next(slow))
    assert seen[0] == Gap()
    assert seen.count(Gap()) == 1
    assert len(seen) <= 11


async def test_close_ends_the_iteration_of_waiting_and_later_readers(empty_database_uri: str) -> None:
    listener = await Listener(empty_database_uri, ["a"]).open()

    async def read() -> list[Notification | Gap]:
        with listener.subscribe() as subscription:
            return [item async for item in subscription]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await listener.close()
    async with asyncio.timeout(60):
        assert await reading == []
        assert await read() == []
    assert not listener.is_connected


async def test_channel_nobody_listens_on_is_refused(empty_database_uri: str) -> None:
    listener = Listener(empty_database_uri, ["a"])
    with pytest.raises(ValueError, match="nobody listens on b"), listener.subscribe("b"):
        pass


async def test_open_fails_in_time_without_a_server() -> None:
    with pytest.raises(DatabaseUnavailable):
        await Listener("postgresql://127.0.0.1:1/none", ["a"]).open(timeout_s=0.2)
