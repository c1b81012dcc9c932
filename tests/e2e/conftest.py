"""A live server for the tests of this folder, and the official clients on it.

One server serves all tests of an xdist worker, which runs them one after the other: a test uses threads of its own and
leaves no run behind. A test that changes what others see (all runs, default assistants, settings) makes its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client

from live_server import Client, LiveServer, live_server_on, server_process
from waystation.config import Settings


@pytest.fixture(scope="session")
def live_server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    """The server that the tests of this worker share."""
    with server_process(make_database(), log=tmp_path_factory.mktemp("live") / "server.log") as server:
        yield server


@pytest.fixture
def own_server(database_uri: str) -> Generator[Callable[..., LiveServer]]:
    """Make a server of this test's own, with any settings: `own_server(bg_job_timeout_s=1)`."""
    with ExitStack() as running:

        def make(**settings: Any) -> LiveServer:
            return running.enter_context(live_server_on(database_uri, settings=Settings(**settings)))

        yield make


@pytest.fixture
async def sdk(live_server: LiveServer) -> AsyncGenerator[Client]:
    """The official client."""
    async with get_client(url=live_server.url) as client:
        yield client


@pytest.fixture
def sync_sdk(live_server: LiveServer) -> Generator[Client]:
    """The official client without async."""
    with get_sync_client(url=live_server.url) as client:
        yield client


@pytest.fixture
async def http(live_server: LiveServer) -> AsyncGenerator[httpx.AsyncClient]:
    """A plain HTTP client, for what the official one does not let through."""
    async with httpx.AsyncClient(base_url=live_server.url, timeout=60) as client:
        yield client


@pytest.fixture
async def thread_id(sdk: Client) -> str:
    """A fresh thread."""
    return (await sdk.threads.create())["thread_id"]
