"""A thread's events and commands on a WebSocket: subscriptions, order, closing."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from e2e.event_streams import start, until
from live_server import LiveServer

pytestmark = pytest.mark.anyio

WITHIN_S = 60


class Socket:
    """One socket of a client that speaks the protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self._id = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's answer; events that come before it are kept."""
        self._id += 1
        await self.connection.send(json.dumps({"id": self._id, "method": method, "params": params}))
        while True:
            message = await self.receive()
            if message.get("id") == self._id:
                return message

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(WITHIN_S):
            message = json.loads(await self.connection.recv())
        if message["type"] == "event":
            self.events.append(message)
        return message

    async def until(self, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """All events so far, the last one being the first that is wanted."""
        while not self.events or not is_last(self.events[-1]):
            await self.receive()
        return self.events


@asynccontextmanager
async def socket_of(server: LiveServer, thread_id: str) -> AsyncGenerator[Socket]:
    url = server.url.replace("http", "ws", 1)
    async with connect(f"{url}/threads/{thread_id}/stream/events") as connection:
        yield Socket(connection)


def ended(event: dict[str, Any]) -> bool:
    return event["method"] == "lifecycle" and event["params"]["data"]["event"] in ("completed", "failed")


async def test_commands_and_events_share_a_socket(live_server: LiveServer) -> None:
    async with socket_of(live_server, str(uuid.uuid4())) as socket:
        subscribed = await socket.ask("subscription.subscribe", channels=["lifecycle", "values"])
        assert subscribed["meta"] == {"applied_through_seq": 0}
        started = await socket.ask("run.start", assistant_id="steps", input={"n": 0})
        assert uuid.UUID(started["result"]["run_id"])
        events = await socket.until(ended)
        assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
        tree = await socket.ask("agent.getTree")
        assert tree["result"]["tree"] == {"namespace": [], "status": "completed", "graph_name": "steps"}
        assert tree["meta"] == {"applied_through_seq": 5}


async def test_nothing_is_sent_before_a_subscription(live_server: LiveServer, http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    await until(http, thread_id)
    async with socket_of(live_server, thread_id) as socket:
        assert (await socket.ask("state.get", namespace=[]))["type"] == "success"
        assert socket.events == []


async def test_each_subscription_gets_what_it_asks_for(live_server: LiveServer, http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    await until(http, thread_id)
    async with socket_of(live_server, thread_id) as socket:
        first = await socket.ask("subscription.subscribe", channels=["lifecycle"])
        assert [event["seq"] for event in await socket.until(ended)] == [1, 5]
        await socket.ask("subscription.subscribe", channels=["values"], since=3)
        assert [event["seq"] for event in await socket.until(lambda event: event["method"] == "values")] == [1, 5, 4]
        gone = await socket.ask("subscription.unsubscribe", subscription_id=first["result"]["subscription_id"])
        assert gone["result"] == {}
        await start(http, "steps", {"n": 0}, thread_id=thread_id)
        events = await socket.until(lambda event: event["seq"] == 9)
        assert [event["seq"] for event in events] == [1, 5, 4, 7, 8, 9]
        again = await socket.ask("subscription.unsubscribe", subscription_id="x")
        assert again["error"] == "no_such_subscription"


async def test_an_event_that_several_subscriptions_want_is_sent_once(live_server: LiveServer) -> None:
    async with socket_of(live_server, str(uuid.uuid4())) as socket:
        for channels in (["lifecycle", "values"], ["values"], ["lifecycle"]):
            await socket.ask("subscription.subscribe", channels=channels)
        await socket.ask("run.start", assistant_id="steps", input={"n": 0})
        assert [event["seq"] for event in await socket.until(ended)] == [1, 2, 3, 4, 5]


async def test_the_socket_and_the_stream_tell_the_same(live_server: LiveServer, http: httpx.AsyncClient) -> None:
    thread_id = str(uuid.uuid4())
    async with socket_of(live_server, thread_id) as socket:
        await socket.ask("subscription.subscribe", channels=["lifecycle", "values", "messages", "tools", "custom"])
        ask = {"messages": [{"role": "user", "content": "add 2 3"}]}
        await socket.ask("run.start", assistant_id="agent_all", input=ask)
        events = await socket.until(ended)
    streamed = await until(http, thread_id, channels=["lifecycle", "values", "messages", "tools", "custom"])
    assert events == [event.data for event in streamed]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ("{not json", "invalid_argument"),
        ("", "invalid_argument"),
        (b"\xff\xfe", "invalid_argument"),
        ("[]", "invalid_argument"),
        ('{"id": "a", "method": "run.start"}', "invalid_argument"),
        ('{"id": 1, "method": "run.start"}', "invalid_argument"),
        ('{"id": 1, "method": "run.dance"}', "unknown_command"),
        ('{"id": 1, "method": "subscription.subscribe", "params": {"channels": ["colour"]}}', "invalid_argument"),
        ('{"id": 1, "method": "subscription.subscribe"}', "invalid_argument"),
        ('{"id": 1, "method": "subscription.reconnect", "params": {"run_id": "x"}}', "invalid_argument"),
        ('{"id":1,"method":"agent.getTree","params":' + '{"a":' * 300 + "1" + "}" * 300 + "}", "invalid_argument"),
    ],
)
async def test_a_broken_frame_is_answered_and_the_socket_stays_open(
    live_server: LiveServer, sent: str | bytes, error: str
) -> None:
    async with socket_of(live_server, str(uuid.uuid4())) as socket:
        await socket.connection.send(sent)
        refusal = await socket.receive()
        assert (refusal["type"], refusal["error"]) == ("error", error)
        assert (await socket.ask("agent.getTree"))["error"] == "no_such_run"


async def test_what_is_no_thread_closes_the_socket_for_good(live_server: LiveServer) -> None:
    async with socket_of(live_server, "abc") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4422


async def test_other_paths_take_no_socket(live_server: LiveServer) -> None:
    for path in ("/threads", "/threads/x/stream", "/threads/x/stream/events/more", "/ok"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(live_server.url.replace("http", "ws", 1) + path)
        assert 400 <= refused.value.response.status_code < 500


async def test_as_many_sockets_as_streams_are_served(own_server: Callable[..., LiveServer]) -> None:
    server = own_server(max_stream_readers=2)
    async with socket_of(server, str(uuid.uuid4())) as one, socket_of(server, str(uuid.uuid4())) as two:
        assert (await one.ask("agent.getTree"))["type"] == (await two.ask("agent.getTree"))["type"] == "error"
        async with socket_of(server, str(uuid.uuid4())) as three:
            with pytest.raises(ConnectionClosed) as closed:
                await three.connection.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
