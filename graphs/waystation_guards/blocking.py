"""Waiting for a port: ports are asynchronous and live on one loop (a server's), or on any (in memory).

    wait_for(work, ports.loop)             from code that blocks: a sync node, hook or callback
    await at_home(work, ports.loop)        on any loop
    await finished(work)                   of what must not be left half done

Either way the work sees the caller's context: LangGraph's config, the stream's writer.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from waystation_guards.errors import GuardUnavailable

T = TypeVar("T")


def wait_for(work: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop | None) -> T:
    """Block this thread until the work is done on its home, or on a spare loop where it has none.

    Raises:
        GuardUnavailable: this thread is the home's own, or the home has ended: waiting would never end.
    """
    here = _running_loop()
    if home is None:
        home = _spare.loop()
        if home is here:  # work of this very loop that blocks it
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(copy_context().run, asyncio.run, work).result()
    if home is here or not home.is_running():
        work.close()
        raise GuardUnavailable(
            "a model or tool was called without await in an async node, where its guards cannot be asked: "
            "await it, or make the node a plain function"
        )
    return asyncio.run_coroutine_threadsafe(work, home).result()


async def at_home(work: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop | None) -> T:
    """Await it on its home, or here where it has none. Cancelling the caller cancels the work.

    Raises:
        GuardUnavailable: the home has ended.
    """
    if home is None or home is asyncio.get_running_loop():
        return await work
    if not home.is_running():
        work.close()
        raise GuardUnavailable("the loop on which the guards' ports live has ended")
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Await what has to be done to its end: a cancellation of the caller is raised when it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # seen: the cancellation goes first
    raise cancelled


class _SpareLoop:
    """A loop in a thread of its own, started when first somebody blocks for ports that live on no loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():  # a fork takes no threads along
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                thread = threading.Thread(target=self._loop.run_forever, name="waystation guards", daemon=True)
                thread.start()
                atexit.register(_stop, self._loop, thread)
            return self._loop


_spare = _SpareLoop()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(1.0)
    if not loop.is_running():
        loop.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
