"""The HTTP clients of providers' SDKs: made once per process and timeouts, and used by all models of all runs.

Connections are kept for the next run. LangChain's own clients are kept too, but break as soon as a second event loop
uses them (`asyncio.run` in a thread, a sync node, a test): these have connections for each loop, which close with it.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Final
from weakref import WeakKeyDictionary

_MOST: Final = 1000
_KEPT: Final = 100
_KEPT_S: Final = 60.0
"""Connections per process and client, those kept idle, and for how long: the SDKs' own numbers, but for longer than
their 5 s, as tools work between two calls."""


@dataclass(frozen=True, slots=True)
class HttpTimes:
    """Timeouts of the HTTP client in seconds: to connect, and for a silence while an answer is read."""

    connect_s: float
    read_s: float


@dataclass(frozen=True, slots=True)
class HttpClients:
    """A client for calls that block and one for those that are awaited."""

    blocking: Any
    awaited: Any


@lru_cache(maxsize=64)
def http_clients(sdk: str, times: HttpTimes) -> HttpClients:
    """The clients for an SDK (`openai` or `anthropic`), which must be installed. Shared: nobody closes them."""
    package: Any = import_module(sdk)
    library = _library(sdk)
    timeout = http_timeout(sdk, times)
    transport = _per_loop(library)
    awaited = package.DefaultAsyncHttpxClient(timeout=timeout, mounts={"all://": transport})
    blocking = package.DefaultHttpxClient(timeout=timeout, limits=_limits(library))
    atexit.register(blocking.close)
    return HttpClients(blocking, awaited)


def http_timeout(sdk: str, times: HttpTimes) -> Any:
    """The timeouts as the SDK's HTTP library has them."""
    return _library(sdk).Timeout(times.read_s, connect=times.connect_s, pool=times.connect_s)


def _library(sdk: str) -> Any:
    """`httpx` or `httpx2`, whichever the installed SDK is made with."""
    package: Any = import_module(sdk)
    base = next(cls for cls in package.DefaultHttpxClient.__mro__ if cls.__name__ == "Client")
    return import_module(base.__module__.partition(".")[0])


def _limits(library: Any) -> Any:
    return library.Limits(max_connections=_MOST, max_keepalive_connections=_KEPT, keepalive_expiry=_KEPT_S)


def _per_loop(library: Any) -> Any:
    base: Any = library.AsyncBaseTransport
    context = library.create_ssl_context()  # reads the certificates, which takes longer than all of the rest

    class PerLoop(base):
        """Requests go over connections of the loop that they are awaited on."""

        def __init__(self) -> None:
            self._of: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
            self._lock = threading.Lock()

        async def handle_async_request(self, request: Any) -> Any:
            loop = asyncio.get_running_loop()
            kept = self._of.get(loop)
            if kept is None:
                transport = library.AsyncHTTPTransport(verify=context, limits=_limits(library))
                closing = _until_loop_ends(transport)
                await anext(closing)
                with self._lock:
                    kept = self._of[loop] = (transport, closing)
            return await kept[0].handle_async_request(request)

    return PerLoop()


async def _until_loop_ends(transport: Any) -> AsyncGenerator[None]:
    """Once begun, closes the transport when its loop shuts down: loops end the generators that are still open."""
    try:
        yield
    finally:
        await transport.aclose()
