"""Requests that wait at the same moment are answered together: one round trip for all readers of a process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Answers `ask` through `answer_all`, one batch in flight at a time, in the order in which they came.

    `answer_all` returns one answer for each item; an exception in place of an answer is raised where that item was
    asked for, one that it raises goes to the whole batch.
    """

    def __init__(self, answer_all: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, limit: int) -> None:
        self._answer_all = answer_all
        self._limit = limit
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: T) -> R:
        """The answer to `item`. Cancelling the wait leaves the question on its way."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Wait until everything asked so far is answered."""
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limit))]
                answers = await self._answers([item for item, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    _settle(future, answer)
        finally:
            self._task = None

    async def _answers(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            return await self._answer_all(items)
        except Exception as error:  # it belongs to those who asked, and they get it
            return [error] * len(items)


def _settle(future: asyncio.Future[R], answer: R | Exception) -> None:
    if future.done():  # whoever asked was cancelled
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
