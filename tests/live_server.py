"""A whole server with a real port, for clients that must not share its loop: in a process of its own, or in a thread.

The process is what users start, and what clients with threads or dice of their own need. The thread is cheaper to start
and takes settings as they are.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvloop

from live_http import served
from ports import free_port
from waystation.app import create_app
from waystation.catalog import read_project
from waystation.config import Settings
from waystation.process import open_process
from waystation.services import Services

E2E = Path(__file__).parent / "fixtures" / "projects" / "e2e"
"""The graphs that the wire contract was recorded with, and some more."""

Client = Any
"""The official clients, sync or async; their own types leave parameters open, which strict checking does not bear."""

START_S = 110


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A server that is up, API and worker in one."""

    url: str


@contextmanager
def server_process(database_uri: str, *, log: Path, project: Path = E2E) -> Generator[LiveServer]:
    """`waystation serve --with-worker` until the block is left. Its output goes to `log`."""
    port = str(free_port())
    command = [sys.executable, "-m", "waystation.cli", "serve", "--with-worker", "-c", str(project / "langgraph.json")]
    environment = {**os.environ, "DATABASE_URI": database_uri, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", port], stdout=output, stderr=output, env=environment
        )
    try:
        _await_ready(f"http://127.0.0.1:{port}", process, log)
        yield LiveServer(f"http://127.0.0.1:{port}")
        assert process.poll() is None, f"the server ended:\n{_end_of(log)}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(f"{url}/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        is_hopeless = process.poll() is not None or time.monotonic() > deadline
        assert not is_hopeless, f"the server does not come up:\n{_end_of(log)}"
        time.sleep(0.05)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-8000:]


@contextmanager
def live_server_on(
    database_uri: str, *, project: Path = E2E, settings: Settings | None = None
) -> Generator[LiveServer]:
    """Serve from a thread until the block is left. Its settings' own `database_uri` is replaced."""
    given = settings or Settings(n_jobs_per_worker=6)
    given = given.model_copy(update={"database_uri": database_uri, "postgres_pool_max_size": 8})
    _log_briefly()
    life = _Life(given, project)
    thread = threading.Thread(target=life.run, name="live-server")
    thread.start()
    try:
        yield LiveServer(life.await_url())
    finally:
        life.end()
        thread.join()


def _log_briefly() -> None:
    """As the server's processes do: structlog's own tracebacks with all locals take a second each."""
    render = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, render]
    )


class _Life:
    """One server from its start to its end; `run` is its thread."""

    def __init__(self, settings: Settings, project: Path) -> None:
        self._settings = settings
        self._project = project
        self._known = threading.Event()
        self._url: str | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None

    def run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._known.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with served(create_app(self._services), grace_s=2) as (_, url):
            self._url = url
            self._known.set()
            await self._over.wait()

    @asynccontextmanager
    async def _services(self) -> AsyncGenerator[Services]:
        async with open_process(self._settings, read_project(self._project), alone=True) as process:
            yield process.services

    def await_url(self) -> str:
        if not self._known.wait(START_S):
            raise TimeoutError("the server does not come up")
        if self._url is None:
            raise RuntimeError("the server did not come up") from self._failure
        return self._url

    def end(self) -> None:
        if self._loop is not None and self._over is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._over.set)
