"""The graph loop: a thread with an event loop of its own where all user code runs.

The API's loop never runs a graph, a factory or an import of the user's. It asks the graph loop instead:

    API loop ── await host.call(fn) ──▶ graph loop: await fn(side) ──▶ catalog, checkpointer, store, the user's graphs

Everything in `GraphSide` belongs to the graph loop and may only be touched by functions running there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import uvloop
from langgraph.store.base import BaseStore

from waystation.catalog import Catalog
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.pool import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GraphSide:
    """What lives on the graph loop."""

    catalog: Catalog
    saver: PostgresCheckpointer
    store: BaseStore
    db: Database


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
    async def run(cls, opener: Opener) -> AsyncIterator[GraphHost]:
        """Start the thread, open its resources, yield the host.

        Raises:
            Whatever `opener` raises on the graph loop (a graph that does not import, a database that is away).
        """
        here = asyncio.get_running_loop()
        started: asyncio.Future[GraphHost] = here.create_future()
        stop = threading.Event()
        finished: asyncio.Future[None] = here.create_future()
        stopping: list[Callable[[], None]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            until = asyncio.Event()
            stopping.append(lambda: loop.call_soon_threadsafe(until.set))
            if stop.is_set():
                return
            async with opener() as side:
                here.call_soon_threadsafe(_settle, started, cls(loop, side), None)
                await until.wait()

        def body() -> None:
            error: BaseException | None = None
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(main())
            except BaseException as e:  # the thread's boundary: the error is handed to the loop that waits for it
                error = e
            with contextlib.suppress(RuntimeError):  # the waiting loop may be gone when the process is being torn down
                here.call_soon_threadsafe(_settle, started, None, error)
                here.call_soon_threadsafe(_settle, finished, None, error)

        thread = threading.Thread(target=body, name="waystation-graphs", daemon=True)
        thread.start()
        try:
            yield await asyncio.shield(started)
        finally:
            stop.set()
            for wake in stopping:
                with contextlib.suppress(RuntimeError):
                    wake()
            if not started.done():
                started.cancel()
            with contextlib.suppress(BaseException):
                await asyncio.shield(finished)

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


def _settle(future: asyncio.Future[T], value: T, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
