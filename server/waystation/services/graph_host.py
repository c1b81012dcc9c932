"""The graph loop: a thread with an event loop of its own where all user code runs.

The API's loop never runs a graph, a factory or an import of the user's. It asks the graph loop instead:

    API loop ── await host.call(fn) ──▶ graph loop: await fn(side) ──▶ catalog, checkpointer, store, the user's graphs

Everything in `GraphSide` belongs to the graph loop and may only be touched by functions running there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import structlog
import uvloop
from langgraph_sdk import Auth

from waystation.catalog import Catalog
from waystation.guarding.kill import KillSwitch
from waystation.guarding.watch import Guards
from waystation.services.http_app import HttpApp
from waystation.services.priorities import Assign
from waystation.telemetry.tracing import Tracing
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.pool import Database
from waystation_db.store import PostgresStore

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GraphSide:
    """What lives on the graph loop."""

    catalog: Catalog
    saver: PostgresCheckpointer
    store: PostgresStore
    db: Database
    updates: asyncio.Semaphore
    """State updates hold a connection while the user's code runs: so many at a time, and the runs have the others."""
    http_app: HttpApp | None = None
    """The project's own web application, in a process that serves it."""
    auth: Auth | None = None
    """What the project says of who may come and do what, likewise."""
    priority: Assign | None = None
    """The project's function that says which threads' runs start first."""
    kills: KillSwitch | None = None
    """What the kill switch has stopped."""
    guards: Guards | None = None
    """The guards of runs that execute here."""
    tracing: Tracing | None = None
    """Where runs are traced to."""


Opener = Callable[[], AbstractAsyncContextManager[GraphSide]]


class GraphHost:
    """Runs the graph loop's thread and carries calls to it.

    Made by `async with GraphHost.run(opener)`: leaving the block cancels what still runs there and closes its
    resources.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, side: GraphSide) -> None:
        self.loop = loop
        self.side = side

    @classmethod
    @contextlib.asynccontextmanager
    async def run(cls, opener: Opener) -> AsyncGenerator[GraphHost]:
        """Start the thread, open its resources, yield the host.

        Raises:
            Whatever `opener` raises on the graph loop (a graph that does not import, a database that is away).
        """
        here = asyncio.get_running_loop()
        opened: asyncio.Future[GraphHost] = here.create_future()
        ended: asyncio.Future[None] = here.create_future()
        loop = uvloop.new_event_loop()
        leave = asyncio.Event()

        async def main() -> None:
            async with opener() as side:
                here.call_soon_threadsafe(_resolve, opened, cls(loop, side))
                await leave.wait()

        def body() -> None:
            error = _run_to_the_end(loop, main())
            with contextlib.suppress(RuntimeError):  # the waiting loop may be gone when the process is torn down
                here.call_soon_threadsafe(_end, opened, ended, error)

        threading.Thread(target=body, name="waystation-graphs", daemon=True).start()
        try:
            yield await asyncio.shield(opened)
        finally:
            with contextlib.suppress(RuntimeError):  # its loop is closed already when opening failed
                loop.call_soon_threadsafe(leave.set)
            await asyncio.shield(ended)

    async def call(self, fn: Callable[[GraphSide], Awaitable[T]]) -> T:
        """Run `fn(side)` on the graph loop and return its result here. Cancelling this cancels it there."""

        async def there() -> T:
            return await fn(self.side)

        if asyncio.get_running_loop() is self.loop:
            return await there()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self.loop))

    def soon(self, fn: Callable[[], object]) -> None:
        """Call `fn` on the graph loop as soon as possible; from any thread."""
        self.loop.call_soon_threadsafe(fn)


def _run_to_the_end(loop: asyncio.AbstractEventLoop, main: Coroutine[None, None, None]) -> BaseException | None:
    """Run the loop until `main` is done. A node that raises SystemExit throws it through the loop: the loop goes on."""
    asyncio.set_event_loop(loop)
    task = loop.create_task(main)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt):
            log.warning("user code asked the process to exit; only its own run ends")
        except BaseException as error:  # the thread's boundary: handed to the loop that waits for it
            return _closed(loop, error)
    return _closed(loop, None)


def _closed(loop: asyncio.AbstractEventLoop, error: BaseException | None) -> BaseException | None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    with contextlib.suppress(SystemExit, KeyboardInterrupt):
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1))
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return error


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _end(opened: asyncio.Future[GraphHost], ended: asyncio.Future[None], error: BaseException | None) -> None:
    if not opened.done():
        opened.set_exception(error or RuntimeError("the graph loop ended before it was up"))
    elif error is not None:
        log.error("the graph loop broke off", exc_info=error)
    if not ended.done():
        ended.set_result(None)
