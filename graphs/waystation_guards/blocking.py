"""Waiting for a port from code that blocks: the ports are asynchronous and live on one loop, or on any."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from waystation_guards.errors import GuardUnavailable

T = TypeVar("T")


def wait_for(work: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop | None) -> T:
    """Block this thread until the work is done on its home, or on a loop of its own where it has none.

    Raises:
        GuardUnavailable: this thread is the home's own, or the home has ended: waiting would never end.
    """
    here = _running_loop()
    if home is None and here is None:
        return asyncio.run(work)
    if home is None:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(copy_context().run, asyncio.run, work).result()
    if home is here or not home.is_running():
        work.close()
        raise GuardUnavailable(
            "a model or tool was called without await in an async node, where its guards cannot be asked: "
            "await it, or make the node a plain function"
        )
    return asyncio.run_coroutine_threadsafe(work, home).result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
