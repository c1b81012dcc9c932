"""Runs a failover for callers that block: its steps on a loop of their own, in a thread beside the caller's.

Targets are asked with their blocking methods there, so that a client that lives on another loop is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar, cast

from waystation_guards.errors import GuardUnavailable

T = TypeVar("T")


def blocking_result(work: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop | None) -> T:
    """Block until the work is done. Raises as `stepped`."""

    async def once() -> AsyncIterator[T]:
        yield await work

    try:
        for result in stepped(once(), home):
            return result
    finally:
        work.close()
    raise AssertionError("work that yields nothing")


def stepped(source: AsyncIterator[T], home: asyncio.AbstractEventLoop | None) -> Iterator[T]:
    """What an asynchronous iterator yields, each item when it is asked for.

    Raises:
        GuardUnavailable: this thread is that of the loop where the guards' ports live, and blocking it would never end.
    """
    if home is not None and home is _running_loop():
        raise GuardUnavailable(
            "a failover was called without await in an async node, where its breakers cannot be asked: "
            "await it, or make the node a plain function"
        )
    loop, context = asyncio.new_event_loop(), copy_context()

    async def step() -> tuple[bool, T | None]:
        try:
            return True, await anext(source)
        except StopAsyncIteration:
            return False, None

    async def close() -> None:
        await cast("AsyncGenerator[T, None]", source).aclose()

    with ThreadPoolExecutor(1) as thread:
        try:
            while True:
                more, item = thread.submit(context.run, loop.run_until_complete, step()).result()
                if not more:
                    return
                yield cast("T", item)
        finally:
            thread.submit(context.run, loop.run_until_complete, close()).result()
            thread.submit(loop.close).result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
