"""A process that is about to stop: each answer tells the client to leave the connection, so that nobody is cut off."""

from __future__ import annotations

import asyncio
import http.client
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from api_services import api_services
from cli_servers import Client, Command, Project
from live_http import served
from waystation.api.frame import Application
from waystation.api.server import ApiServer
from waystation.app import create_app


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]

    @property
    def closes(self) -> int:
        return self.headers.count(("connection", "close"))


class Connection:
    """A client's connection, which it keeps as long as it may."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, method: str, path: str, *, headers: str = "", body: str = "", length: int | None = None) -> None:
        told = f"content-length: {len(body) if length is None else length}\r\ncontent-type: application/json\r\n"
        self.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}{told}\r\n{body}")

    def write(self, text: str) -> None:
        self._writer.write(text.encode())

    async def answer(self) -> Answer:
        async with asyncio.timeout(60):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = [line.split(": ", 1) for line in head[1:] if line]
            headers = [(name.lower(), value) for name, value in pairs]
            await self._reader.readexactly(int(dict(headers).get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers)

    async def ask(self, method: str, path: str, *, headers: str = "", body: str = "") -> Answer:
        self.send(method, path, headers=headers, body=body)
        return await self.answer()

    async def is_over(self) -> bool:
        """Whether the server has closed it, or does so before long."""
        async with asyncio.timeout(60):
            return await self._reader.read(1) == b""

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(server: ApiServer) -> AsyncGenerator[Connection]:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", server.bound_port))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def world(database_uri: str) -> AsyncGenerator[tuple[Application, ApiServer]]:
    app = create_app(lambda: api_services(database_uri))
    async with served(app) as (server, _):
        yield app, server


PREFLIGHT = "origin: https://a.example\r\naccess-control-request-method: POST\r\n"
REQUESTS = [
    ("GET", "/ok", "", "", 200),
    ("GET", "/ready", "", "", 503),
    ("POST", "/threads", "", "{}", 200),
    ("POST", "/threads/search", "", "{broken", 422),
    ("GET", "/nowhere", "", "", 404),
    ("OPTIONS", "/threads", PREFLIGHT, "", 200),
]


@pytest.mark.anyio
async def test_answers_while_draining_end_their_connections_and_no_others_do(database_uri: str) -> None:
    async with world(database_uri) as (app, server):
        async with connected(server) as kept:
            for method, path, headers, body, status in REQUESTS:
                before = await kept.ask(method, path, headers=headers, body=body)
                assert (before.status, before.closes) == (200 if path == "/ready" else status, 0), path
        app.start_draining()
        for method, path, headers, body, status in REQUESTS:
            async with connected(server) as one:
                answer = await one.ask(method, path, headers=headers, body=body)
                assert (answer.status, answer.closes) == (status, 1), path
                assert await one.is_over()


@pytest.mark.anyio
async def test_what_was_asked_before_and_is_answered_while_draining_is_told_too(database_uri: str) -> None:
    async with world(database_uri) as (app, server), connected(server) as early, connected(server) as idle:
        assert (await idle.ask("GET", "/ok")).closes == 0
        early.send("POST", "/threads", body="{", length=2)  # the rest is on its way
        assert (await idle.ask("GET", "/ok")).closes == 0  # and so has the server seen it
        app.start_draining()
        early.write("}")
        answer = await early.answer()
        assert (answer.status, answer.closes) == (200, 1)
        assert (await idle.ask("GET", "/ok")).closes == 1
        assert await early.is_over()
        assert await idle.is_over()


@pytest.mark.anyio
async def test_a_server_lets_go_when_its_clients_have_gone_or_time_is_over(database_uri: str) -> None:
    async with world(database_uri) as (app, server), connected(server) as kept:
        assert (await kept.ask("GET", "/ok")).closes == 0
        app.start_draining()
        letting_go = asyncio.create_task(server.let_go(at_most_s=600))
        await server.let_go(at_most_s=0.1)  # one connection is there, and nobody is kept for ever
        assert not letting_go.done()
        assert (await kept.ask("GET", "/ok")).closes == 1
        async with asyncio.timeout(60):
            await letting_go


@pytest.mark.timeout(300)
def test_a_process_that_drains_tells_clients_that_keep_connections(tmp_path: Path, database_uri: str) -> None:
    project, environ = Project(tmp_path / "project"), {"DATABASE_URI": database_uri}
    with Command.running("serve", "--with-worker", "--port", "0", cwd=project.folder, environ=environ) as server:
        kept = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        kept.request("GET", "/ok")
        with kept.getresponse() as answer:
            assert (answer.status, answer.getheader("connection")) == (200, None)
            answer.read()
        Client(server.url).start({"wait_at": 2})
        project.until_step(2)

        server.signal(signal.SIGTERM)
        server.until_says("Stopping")
        kept.request("GET", "/assistants/00000000-0000-0000-0000-000000000000")
        with kept.getresponse() as answer:
            assert (answer.status, answer.getheader("connection")) == (404, "close")
        project.let_go()
        assert server.ended() == 0
        kept.close()
