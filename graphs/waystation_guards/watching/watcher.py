"""Watches every model and tool call below a config, whoever makes it, and lets guards refuse it beforehand.

    config = watched(config, [budget, limiter])            in a node, for a whole graph, or by a server for a graph that
    await graph.ainvoke(input, config)                     nobody edited

    model call ─▶ before_model of each guard, in order ─▶ the provider ─▶ after_model of each, in reverse
                   └─ a refusal raises out of the call; guards that had agreed are told `not made`

LangChain tells callbacks of every call, also of those inside tools, subgraphs, retries and fallbacks. It does not tell
of all calls whose task is cancelled: those end with their task, or with `Watcher.close`, with what had been streamed
until then. Where several watchers are asked about one call, a refusal of one is told to those that had agreed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Protocol, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from waystation_guards.blocking import at_home, finished, wait_for
from waystation_guards.watching.callbacks import CallHandler
from waystation_guards.watching.calls import Made, ModelCall, ToolCall, home_of, is_cache_hit, usage_of

__all__ = ["Guard", "Made", "ModelCall", "ToolCall", "Watcher", "is_cache_hit", "usage_of", "watched"]

log = logging.getLogger(__name__)


class Guard(Protocol):
    """What watches calls. Each method may be called for many calls at the same time."""

    async def before_model(self, call: ModelCall) -> None:
        """Raise a GuardError to keep the call from being made."""
        ...

    async def after_model(self, call: ModelCall, made: Made) -> None: ...

    async def before_tool(self, call: ToolCall) -> None:
        """Raise a GuardError to keep the call from being made."""
        ...

    async def after_tool(self, call: ToolCall, made: Made) -> None: ...


class Watcher:
    """The guards of one run (or of one program), and the calls that are open. Any thread may make calls."""

    def __init__(
        self,
        guards: Sequence[Guard],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        config: RunnableConfig | None = None,
        around: Sequence[Watcher] = (),
        run: str = "",
    ) -> None:
        """`loop`: where the guards' ports live, where the ports do not say so themselves; None where they live
        anywhere. `config`: whose the calls are that are made outside of any graph. `around`: watchers that hear of the
        calls through this one, the outermost first; they are asked before it. `run`: what stands for the run where
        the program gives it no id; that of the watchers around it, or one of its own."""
        self.guards = tuple(guards)
        self.loop = loop
        self.config = config
        self.around = tuple(around)
        self.run = around[0].run if around else run or uuid4().hex
        self.handlers: list[BaseCallbackHandler] = [CallHandler(self)]
        """The callbacks to put into a config."""
        self._open: dict[UUID, ModelCall | ToolCall] = {}
        self._tasks: dict[asyncio.Task[Any], set[UUID]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()

    async def close(self) -> None:
        """End the calls that nobody told the end of: their tasks were cancelled. Never raises for a guard's trouble."""
        if self._open or self._ending:
            await finished(self._close())

    def close_blocking(self) -> None:
        """`close`, in a thread."""
        if self._open:
            homes = [home_of(call, self.loop) for call in list(self._open.values())]
            wait_for(self._close(), next((home for home in homes if home is not None), None))

    async def before(self, run_id: UUID, call: ModelCall | ToolCall) -> None:
        """Ask the guards, in order. Raises what the first one refuses with."""
        with self._lock:
            if run_id in self._open:
                return
            self._open[run_id] = call
        for number, guard in enumerate(self.guards):
            try:
                await (guard.before_model(call) if isinstance(call, ModelCall) else guard.before_tool(call))
            except BaseException as error:
                with self._lock:
                    self._open.pop(run_id, None)
                call.error = error
                await _after(self.guards[:number], call, "not made")
                raise

    async def after(self, run_id: UUID, made: Made, **outcome: Any) -> None:
        """Tell the guards how a call ended; once."""
        with self._lock:
            call = self._open.pop(run_id, None)
        if call is None:
            return
        for name, value in outcome.items():
            if hasattr(call, name):
                setattr(call, name, value)
        await _after(self.guards, call, made)

    async def ask(self, run_id: UUID, call: ModelCall | ToolCall) -> None:
        """`before`, on the loop where the guards' ports live. Whoever cancels this task ends the call."""
        call = self._known(run_id) or call
        try:
            for other in self.around:
                await other.ask(run_id, call)
            await at_home(self.before(run_id, call), home_of(call, self.loop))
        except BaseException:
            for other in _agreed_before(run_id):
                await other.tell(run_id, "not made")
            raise
        _agree(run_id, self)
        self._end_with(asyncio.current_task(), run_id)

    def ask_in_thread(self, run_id: UUID, call: ModelCall | ToolCall) -> None:
        """`before`, for a call that blocks."""
        call = self._known(run_id) or call
        try:
            for other in self.around:
                other.ask_in_thread(run_id, call)
            wait_for(self.before(run_id, call), home_of(call, self.loop))
        except BaseException:
            for other in _agreed_before(run_id):
                other.tell_in_thread(run_id, "not made")
            raise
        _agree(run_id, self)

    async def tell(self, run_id: UUID, made: Made, **outcome: Any) -> None:
        """`after`, on the loop where the guards' ports live."""
        try:
            if (call := self._open.get(run_id)) is not None:
                await at_home(self.after(run_id, made, **outcome), home_of(call, self.loop))
        finally:
            for other in reversed(self.around):
                await other.tell(run_id, made, **outcome)

    def tell_in_thread(self, run_id: UUID, made: Made, **outcome: Any) -> None:
        """`after`, for a call that blocks."""
        try:
            if (call := self._open.get(run_id)) is not None:
                wait_for(self.after(run_id, made, **outcome), home_of(call, self.loop))
        finally:
            for other in reversed(self.around):
                other.tell_in_thread(run_id, made, **outcome)

    def streamed(self, run_id: UUID, how: str, chars: int) -> None:
        """Count what came of a call that is open; `how` it is told of. What has nothing in it counts nothing."""
        call = self._open.get(run_id)
        if chars and isinstance(call, ModelCall):
            call.streamed(f"{how} {id(self)}", chars)

    def _known(self, run_id: UUID) -> ModelCall | ToolCall | None:
        """The call as other watchers were asked about it: what guards keep about a call, they keep in one place."""
        others = (*self.around, *_agreed_before(run_id))
        return next((other._open[run_id] for other in others if run_id in other._open), None)

    def is_open(self, run_id: UUID) -> bool:
        return run_id in self._open

    async def _close(self) -> None:
        with self._lock:
            left = list(self._open)
        for run_id in left:
            try:
                await self.tell(run_id, "cancelled")
            except Exception:  # the other calls have to end too, and what ended the run is what its caller should see
                log.exception("a guard could not be told of the end of a call")
        if self._ending:
            await asyncio.wait(self._ending)

    def _end_with(self, task: asyncio.Task[Any] | None, run_id: UUID) -> None:
        if task is None:
            return
        if task not in self._tasks:
            self._tasks[task] = set()
            task.add_done_callback(self._task_ended)
        self._tasks[task].add(run_id)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        calls = self._tasks.pop(task, set[UUID]())
        if not task.cancelled():  # a stream may go on in another task than the one that began it
            return
        for run_id in calls:
            if self.is_open(run_id):
                ending = task.get_loop().create_task(self.tell(run_id, "cancelled"))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)


def watched(config: RunnableConfig | None, guards: Sequence[Guard]) -> RunnableConfig:
    """The config with callbacks that ask these guards before every call below it.

    Guards of the config's own callbacks stay; `guarded` has an order between them, and ends what is cancelled.
    """
    handlers = Watcher(guards, config=config).handlers
    return merge_configs(config, {"callbacks": cast("Any", handlers)})


async def _after(guards: Sequence[Guard], call: ModelCall | ToolCall, made: Made) -> None:
    failed: BaseException | None = None
    for guard in reversed(guards):
        try:
            await (guard.after_model(call, made) if isinstance(call, ModelCall) else guard.after_tool(call, made))
        except asyncio.CancelledError as error:
            failed = error
        except Exception as error:  # one guard's trouble must not keep the others from hearing of the end
            failed = failed or error
    if failed is not None:
        raise failed


_agreed: ContextVar[tuple[UUID, tuple[Watcher, ...]] | None] = ContextVar("waystation_guards_agreed", default=None)
"""The watchers that let the newest call of this context through; another may still refuse it."""


def _agreed_before(run_id: UUID) -> tuple[Watcher, ...]:
    agreed = _agreed.get()
    return agreed[1] if agreed is not None and agreed[0] == run_id else ()


def _agree(run_id: UUID, watcher: Watcher) -> None:
    _agreed.set((run_id, (*_agreed_before(run_id), watcher)))
