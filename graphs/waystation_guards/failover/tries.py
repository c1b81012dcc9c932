"""One try of one target: its pieces as they come, with a limit on the time to each, awaited or in a thread.

Each try is a run of its own for callbacks, below the failover's: budgets reserve and settle it, tracers show it.
Handlers that show streams are left out: callers see one message, the failover's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackManager, UsageMetadataCallbackHandler
from langchain_core.callbacks.manager import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tracers._streaming import _StreamingCallbackHandler  # the mark LangGraph itself goes by

from waystation_guards.errors import DeadlinePassed
from waystation_guards.failover.errors import Phase, TargetTimeout
from waystation_guards.failover.policy import Patience
from waystation_guards.failover.targets import Target

Piece = AIMessageChunk | AIMessage


@dataclass(frozen=True, slots=True)
class Question:
    """What targets are asked, and how: whole or as a stream, awaited or in threads."""

    messages: Sequence[BaseMessage]
    stop: list[str] | None
    params: Mapping[str, Any]
    streamed: bool
    awaited: bool


@dataclass(slots=True, eq=False)
class Try:
    """A try under way. It is closed by whoever made it, however it ends."""

    target: Target
    question: Question
    manager: AsyncCallbackManager
    patience: Patience
    deadline: float | None
    number: int
    is_probe: bool = False
    run_id: UUID = field(default_factory=uuid4)
    began: float = field(default_factory=monotonic)
    _pieces: AsyncIterator[Piece] | None = None
    _first: list[Piece] = field(default_factory=list[Piece])

    async def first(self) -> float:
        """Wait for the first piece that has something in it, or for the end. The seconds that it took.

        Raises:
            TargetTimeout: nothing came for too long.
            DeadlinePassed: so it has.
        """
        self._pieces = self._open()
        limit = self.patience.first_s if self.question.streamed else self.patience.whole_s
        phase = "first_token" if self.question.streamed else "whole"
        while (piece := await self._next(self.began, limit, phase)) is not None:
            self._first.append(piece)
            if piece.content or piece.tool_calls or getattr(piece, "tool_call_chunks", None):
                break
        return monotonic() - self.began

    async def pieces(self) -> AsyncIterator[Piece]:
        """All pieces, beginning with those that were waited for. Raises as `first`."""
        for piece in self._first:
            yield piece
        idle = self.patience.idle_s
        while (piece := await self._next(monotonic(), idle, "between_tokens")) is not None:
            yield piece

    async def close(self) -> None:
        """End it: what still runs is cancelled. Told to callbacks as cancelled, if it was not over."""
        if self._pieces is not None:
            await cast("Any", self._pieces).aclose()

    async def _next(self, began: float, limit_s: float | None, phase: Phase) -> Piece | None:
        assert self._pieces is not None
        at = None if limit_s is None else began + limit_s
        until = min((one for one in (at, self.deadline) if one is not None), default=None)
        loop = asyncio.get_running_loop()
        when = None if until is None else loop.time() + until - monotonic()
        limit = asyncio.timeout_at(when)
        try:
            async with limit:
                return await anext(self._pieces, None)
        except TimeoutError as error:
            if limit.expired() and until == self.deadline:
                raise DeadlinePassed("the deadline passed before a model answered") from error
            if limit.expired():
                raise TargetTimeout(f"{self.target.name} took too long to answer", phase=phase) from error
            raise

    def _open(self) -> AsyncIterator[Piece]:
        question = self.question
        if question.awaited:
            return self._streamed() if question.streamed else self._whole()
        return self._in_thread()

    async def _streamed(self) -> AsyncIterator[Piece]:
        question = self.question
        stream = self._runnable.astream(list(question.messages), self._config, stop=question.stop, **question.params)
        try:
            async for piece in stream:
                yield cast("Piece", piece)
        finally:
            await cast("Any", stream).aclose()

    async def _whole(self) -> AsyncIterator[Piece]:
        question = self.question
        try:
            yield cast(
                "Piece",
                await self._runnable.ainvoke(
                    list(question.messages), self._config, stop=question.stop, **question.params
                ),
            )
        except asyncio.CancelledError as error:
            await self._tell_cancelled(error)
            raise

    async def _in_thread(self) -> AsyncIterator[Piece]:
        """What blocks cannot be cancelled: a try that is given up ends by itself, and its thread with it."""
        thread, context, loop = ThreadPoolExecutor(1), copy_context(), asyncio.get_running_loop()
        pieces = self._blocking()
        try:
            while (piece := await loop.run_in_executor(thread, lambda: context.run(next, pieces, None))) is not None:
                yield piece
        finally:
            thread.submit(context.run, cast("Any", pieces).close)
            thread.shutdown(wait=False)

    def _blocking(self) -> Iterator[Piece]:
        question = self.question
        asked = list(question.messages)
        if question.streamed:
            yield from cast(
                "Iterator[Piece]",
                self._runnable.stream(asked, self._config, stop=question.stop, **question.params),
            )
        else:
            answer = self._runnable.invoke(asked, self._config, stop=question.stop, **question.params)
            yield cast("Piece", answer)

    @property
    def _runnable(self) -> Runnable[Any, Any]:
        return self.target.runnable

    @property
    def _config(self) -> RunnableConfig:
        return {
            "callbacks": self.manager,
            "run_id": self.run_id,
            "metadata": {"failover_target": self.target.name, "failover_try": self.number},
        }

    async def _tell_cancelled(self, error: asyncio.CancelledError) -> None:
        """LangChain tells callbacks of cancelled streams, and not of cancelled calls for a whole answer."""
        run: Callable[..., Any] = AsyncCallbackManagerForLLMRun
        manager = run(
            run_id=self.run_id,
            handlers=self.manager.handlers,
            inheritable_handlers=self.manager.inheritable_handlers,
            parent_run_id=self.manager.parent_run_id,
        )
        await manager.on_llm_error(error)


def manager_of(config: RunnableConfig, own: Any, parent: UUID | None) -> AsyncCallbackManager:
    """The callbacks of tries: a caller's and a model's `own`, without those that show streams or count answers."""
    found = AsyncCallbackManager.configure(
        config.get("callbacks"),
        own,
        inheritable_tags=config.get("tags"),
        inheritable_metadata=config.get("metadata") or {},
    )
    manager = found.copy()
    hidden = (_StreamingCallbackHandler, UsageMetadataCallbackHandler)
    kept = [handler for handler in manager.handlers if not isinstance(handler, hidden)]
    manager.set_handlers(kept, inherit=True)
    manager.parent_run_id = parent if parent is not None else manager.parent_run_id
    return manager
