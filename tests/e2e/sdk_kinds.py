"""Both kinds of the official Python client behind one way of writing: what awaits, and what each call was given.

A scenario is written for the async client. `Blocking` makes the sync one look the same: every step runs on a thread of
its own. `recorded` keeps the names of the arguments of every public method that is called, so that a table's claim
about what it exercises can be checked.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from live_server import Client

RESOURCES = ("assistants", "crons", "http", "runs", "store", "threads")
STREAM_PARTS = ("agent", "output", "run", "values")
"""What belongs to a thread's stream and has methods of its own."""

WITHIN_S = 60
Calls = dict[str, set[str]]
_WRAPPED = ("langgraph_sdk._sync", "langchain_core.language_models.chat_model_stream")
_END = object()


# what was called ------------------------------------------------------------------------------------------------------
def recorded(client: Client) -> Calls:
    """From now on, the names of the arguments given to each public method, by its path such as `runs.create`."""
    calls: Calls = defaultdict(set)
    for resource in RESOURCES:
        _record(getattr(client, resource), f"{resource}.", calls)
    for name in ("aclose", "close"):
        if hasattr(client, name):
            setattr(client, name, _recording(getattr(client, name), name, calls))
    return calls


def _record(of: Any, prefix: str, calls: Calls) -> None:
    kind = cast("type[Any]", type(of))
    for name in public_names(kind):
        if inspect.isroutine(inspect.getattr_static(kind, name)):
            setattr(of, name, _recording(getattr(of, name), prefix + name, calls))


def _recording(method: Callable[..., Any], path: str, calls: Calls) -> Callable[..., Any]:
    """The method; it also sends a header and a query parameter that no route knows: neither may ever matter."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **given: Any) -> Any:
        extra = {"headers": {"x-surface": path}, "params": {"surface": "1"}}
        given = {name: value for name, value in extra.items() if name in signature.parameters} | given
        calls[path] |= signature.bind(*args, **given).arguments.keys()
        made = method(*args, **given)
        if path == "threads.stream":
            _record_stream(made, calls)
        return made

    return call


def _record_stream(stream: Any, calls: Calls) -> None:
    _record(stream, "stream.", calls)
    for part in STREAM_PARTS:
        if part in vars(stream):
            _record(vars(stream)[part], f"stream.{part}.", calls)


def public_names(of: Any) -> set[str]:
    """What a user may use of an object or a class."""
    return {name for name in dir(of) if not name.startswith("_")}


# what does not await --------------------------------------------------------------------------------------------------
class Blocking:
    """Something of the sync client, written as if it were of the async one.

    It is looked up, called, awaited or iterated when somebody awaits or iterates, once, and on another thread.
    """

    def __init__(self, get: Callable[[], Any]) -> None:
        self._once = functools.cache(get)

    def __getattr__(self, name: str) -> Blocking:
        return Blocking(lambda: getattr(self._once(), name))

    def __getitem__(self, key: Any) -> Blocking:
        return Blocking(lambda: self._once()[key])

    def __call__(self, *args: Any, **given: Any) -> Blocking:
        return Blocking(lambda: self._once()(*args, **given))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._read().__await__()

    async def _read(self) -> Any:
        return _again(await asyncio.to_thread(self._once))

    async def __aenter__(self) -> Any:
        entered = await asyncio.to_thread(lambda: self._once().__enter__())
        return Blocking(lambda: entered)

    async def __aexit__(self, *raised: Any) -> None:
        await asyncio.to_thread(lambda: self._once().__exit__(*raised))

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._items()

    async def _items(self) -> AsyncGenerator[Any]:
        items: Iterator[Any] = await asyncio.to_thread(lambda: iter(self._once()))
        while (item := await asyncio.to_thread(next, items, _END)) is not _END:
            yield _again(item)


def _again(found: Any) -> Any:
    if type(found) is tuple:
        return tuple(_again(part) for part in cast("tuple[Any, ...]", found))
    return Blocking(lambda: found) if type(found).__module__.startswith(_WRAPPED) else found


def bare(thing: Any) -> Any:
    """The SDK's own object, for attributes that are there without waiting."""
    return thing._once() if isinstance(thing, Blocking) else thing  # pyright: ignore[reportPrivateUsage]


# reading --------------------------------------------------------------------------------------------------------------
async def all_of(source: Any) -> list[Any]:
    """Everything that comes."""
    async with asyncio.timeout(WITHIN_S):
        return [item async for item in source]


async def until(source: Any, is_last: Callable[[Any], bool]) -> list[Any]:
    """What comes, up to the item that is the last to be read. Some streams of the async client come after a wait."""
    source = await source if asyncio.iscoroutine(source) else source
    found: list[Any] = []
    async with asyncio.timeout(WITHIN_S), aclosing(aiter(source)) as items:
        async for item in items:
            found.append(item)
            if is_last(item):
                break
    return found


@asynccontextmanager
async def first_of(source: Any) -> AsyncGenerator[Any]:
    """The first item, while an async source is read on: what belongs to the item comes that way, too."""
    first = asyncio.get_running_loop().create_future()

    async def read() -> None:
        async for item in source:
            if not first.done():
                first.set_result(item)
            if isinstance(source, Blocking):
                return  # the sync client reads on when its items are asked

    task = asyncio.create_task(read())
    try:
        async with asyncio.timeout(WITHIN_S):
            yield await first
    finally:
        task.cancel()
        await asyncio.wait([task])
