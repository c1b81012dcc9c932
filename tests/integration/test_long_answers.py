"""Streams and waits over a real socket: framing, heartbeats, clients that leave or do not read, a server that stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Request
from starlette.responses import Response

from live_http import served
from waystation.api.dependencies import no_content
from waystation.api.frame import Application
from waystation.api.long_answer import OpenStreams, ensure_room
from waystation.api.routing import Operation, Router
from waystation.api.server import ApiServer
from waystation.api.sse import EventStream, WaitingJSON, encode, failed, located, parse_modes
from waystation.errors import SlowReader
from waystation.events import End, Event, EventId
from waystation.services.own_address import OwnAddress

pytestmark = pytest.mark.anyio

Batch = Sequence[Event] | End


class Stage:
    """What the routes of these tests stream, and what they saw happen."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch | Exception] = asyncio.Queue()
        self.result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.left = asyncio.Event()
        self.source_closed = asyncio.Event()

    async def source(self) -> AsyncIterator[Batch]:
        try:
            while True:
                item = await self.batches.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.source_closed.set()

    async def on_leave(self) -> None:
        self.left.set()


router = Router(tags=["Test"])


@router.get("/stream")
async def stream(request: Request, beat: float = 5.0, patience: float = 30.0) -> Response:
    ensure_room(request)
    stage: Stage = request.app.state.stage
    headers = located("/threads/t/runs/r/stream", content="/threads/t/runs/r")
    return EventStream(
        stage.source(),
        with_ids=True,
        headers=headers,
        on_leave=stage.on_leave,
        heartbeat_s=beat,
        send_timeout_s=patience,
    )


@router.post("/wait")
async def wait(request: Request, beat: float = 0.05) -> Response:
    stage: Stage = request.app.state.stage
    return WaitingJSON(asyncio.shield(stage.result), on_leave=stage.on_leave, filler_s=beat)


@router.get("/failed")
async def failing() -> Response:
    return failed("HTTPException", "404: Run not found")


@router.get("/ping")
async def ping() -> Response:
    return no_content()


class Live:
    """A running server with its stage."""

    def __init__(self, app: Application, server: ApiServer, url: str, client: httpx.AsyncClient) -> None:
        self.app, self.server, self.url, self.client = app, server, url, client
        self.stage: Stage = app.state.stage


@asynccontextmanager
async def lifespan(app: Application) -> AsyncGenerator[None]:
    app.state.services = SimpleNamespace(settings=SimpleNamespace(max_body_bytes=2000), address=OwnAddress())
    app.state.streams = OpenStreams(limit=3, stopping=asyncio.get_running_loop().create_future())
    app.state.stage = Stage()
    yield


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    app = Application([r for r in router.routes if isinstance(r, Operation)], lifespan=lifespan)
    async with asyncio.timeout(90), served(app) as (server, url), httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield Live(app, server, url, client)


def event(counter: int, name: str = "values", data: bytes = b"{}", mode: str = "values") -> Event:
    return Event(EventId(1000, counter), name, data, mode)


async def no_streams_open(live: Live) -> None:
    async with asyncio.timeout(60):
        while live.app.state.streams.count:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0.01)


async def test_a_stream_is_framed_as_the_protocol_says(live: Live) -> None:
    live.stage.batches.put_nowait([event(0, "metadata", b'{"run_id":"r"}'), event(1, "values|child:1", b'{"n":1}')])
    live.stage.batches.put_nowait(End("success"))
    response = await live.client.get("/stream")
    assert response.content == (
        b'event: metadata\r\ndata: {"run_id":"r"}\r\nid: 1000-0\r\n\r\n'
        b'event: values|child:1\r\ndata: {"n":1}\r\nid: 1000-1\r\n\r\n'
    )
    headers = response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert headers["transfer-encoding"] == "chunked"
    assert (headers["location"], headers["content-location"]) == ("/threads/t/runs/r/stream", "/threads/t/runs/r")


async def test_the_head_comes_before_any_event(live: Live) -> None:
    async with asyncio.timeout(60), live.client.stream("GET", "/stream?beat=300") as response:
        assert response.status_code == 200


async def test_silence_is_filled_with_heartbeats(live: Live) -> None:
    async with live.client.stream("GET", "/stream?beat=0.05") as response:
        chunks = response.aiter_bytes()
        assert (await anext(chunks)).startswith(b": heartbeat\r\n\r\n")
        live.stage.batches.put_nowait([event(0)])
        seen = b""
        while b"id: 1000-0" not in seen:
            seen += await anext(chunks)
    await asyncio.wait_for(live.stage.left.wait(), 60)


async def test_a_wait_is_filled_with_newlines_and_is_json(live: Live) -> None:
    async with live.client.stream("POST", "/wait") as response:
        chunks = response.aiter_bytes()
        assert set(await anext(chunks)) == set(b"\n")
        live.stage.result.set_result(b'{"n": 1}')
        rest = b"".join([chunk async for chunk in chunks])
    assert rest.strip() == b'{"n": 1}'
    assert response.headers["content-type"] == "application/json"
    assert not live.stage.left.is_set()


@pytest.mark.parametrize(("method", "path"), [("GET", "/stream?beat=300"), ("POST", "/wait?beat=300")])
async def test_leaving_is_noticed_though_nothing_flows(live: Live, method: str, path: str) -> None:
    async with live.client.stream(method, path):
        pass
    await asyncio.wait_for(live.stage.left.wait(), 60)
    await no_streams_open(live)


async def test_a_stream_that_ended_was_not_left(live: Live) -> None:
    live.stage.batches.put_nowait(End("success"))
    await live.client.get("/stream")
    await no_streams_open(live)
    assert not live.stage.left.is_set()
    assert live.stage.source_closed.is_set()


@pytest.mark.parametrize("error", [SlowReader("behind"), RuntimeError("secret")])
async def test_a_source_that_breaks_drops_the_connection(live: Live, error: Exception) -> None:
    live.stage.batches.put_nowait([event(0)])
    live.stage.batches.put_nowait(error)
    with pytest.raises(httpx.RemoteProtocolError):
        await live.client.get("/stream")
    assert not live.stage.left.is_set()
    assert (await live.client.get("/ping")).status_code == 204


async def test_a_client_that_does_not_read_is_dropped_and_has_not_left(live: Live) -> None:
    address = urlsplit(live.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
    writer.write(b"GET /stream?beat=0.05&patience=0.3 HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    for i in range(200):
        live.stage.batches.put_nowait([event(i, data=b'"' + b"x" * 100_000 + b'"')])
    await asyncio.wait_for(live.stage.source_closed.wait(), 60)
    assert not live.stage.left.is_set()
    assert live.stage.batches.qsize() > 100, "most events must have stayed where they were"
    await no_streams_open(live)
    writer.close()


async def test_a_stopping_server_drops_streams_at_once_so_that_clients_come_back(live: Live) -> None:
    async with live.client.stream("GET", "/stream") as response:
        chunks = response.aiter_bytes()
        live.stage.batches.put_nowait([event(0)])
        await anext(chunks)
        live.server.stop()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)
    assert not live.stage.left.is_set()


async def test_readers_beyond_the_limit_are_refused(live: Live) -> None:
    async with (
        live.client.stream("GET", "/stream"),
        live.client.stream("GET", "/stream"),
        live.client.stream("GET", "/stream"),
    ):
        response = await live.client.get("/stream")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")


async def test_an_error_before_anything_is_an_event(live: Live) -> None:
    response = await live.client.get("/failed")
    assert response.status_code == 200
    assert response.content == (
        b'event: error\r\ndata: {"error":"HTTPException","message":"404: Run not found"}\r\n\r\n'
    )


def test_ids_come_only_when_asked_for_and_other_modes_not_at_all() -> None:
    batch = [event(0), event(1, "updates", mode="updates"), event(2, "messages", mode="messages-tuple")]
    assert b"".join(encode(batch, with_ids=False)) == (
        b"event: values\r\ndata: {}\r\n\r\nevent: updates\r\ndata: {}\r\n\r\nevent: messages\r\ndata: {}\r\n\r\n"
    )
    only = b"".join(encode(batch, with_ids=True, modes=frozenset({"updates"})))
    assert only == b"event: updates\r\ndata: {}\r\nid: 1000-1\r\n\r\n"


def test_a_name_cannot_forge_fields() -> None:
    forged = b"".join(encode([event(0, "values|a\r\ndata: 1\n\nevent: b")], with_ids=False))
    assert forged.count(b"\r\n") == 3
    assert forged.count(b"\n") == 3


def test_modes_are_read_repeated_and_joined() -> None:
    assert parse_modes(None) is None
    assert parse_modes([""]) is None
    assert parse_modes(["values", "updates,custom "]) == {"values", "updates", "custom"}


def test_events_leave_in_chunks_that_a_reader_can_be_given_one_by_one() -> None:
    sizes = [10, 40_000, 20_000, 30_000, 500_000, 10]
    batch = [event(n, data=b'"%s"' % (b"x" * size)) for n, size in enumerate(sizes)]
    chunks = list(encode(batch, with_ids=True))
    assert [chunk for chunk in chunks if len(chunk) > 66_000] == [batch[4].data]
    assert any(chunk is batch[4].data for chunk in chunks), "copied"
    assert b"".join(chunks) == b"".join(b"".join(encode([one], with_ids=True)) for one in batch)
    assert len(chunks) < len(batch) + 2
