"""A whole graph under guards: every model and tool call below it is watched, whoever makes it.

    graph = guarded(builder.compile(), [Budget(Limit(0.5))])
    outer.add_node("agent", graph)                            or invoke, stream, deploy it as it is

What comes back is the graph itself, of the same class: its state, checkpoints, interrupts, streams and the namespaces
of its subgraphs are as before. Where a run is cancelled, the calls that were open are told of to the guards.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, TypeVar, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol

from waystation_guards.guarded.endings import with_endings
from waystation_guards.watching.config import attached, unwatched_parent
from waystation_guards.watching.watcher import Guard, Watcher

G = TypeVar("G", bound=Runnable[Any, Any])
Config = RunnableConfig | None

_NOTHING: Final = object()
_RUNNABLE: Final[Any] = Runnable


def guarded(graph: G, guards: Sequence[Guard], *, name: str | None = None) -> G:
    """The graph (or any other runnable) with guards over all calls below it; the one given is left as it is.

    `guards` are asked in order before each call. `name`: the new graph's; its own if there is none. Graphs that are
    guarded already, or used in guarded ones, stay so: all guards are asked, the inner ones last. A guard whose
    attribute `ends_runs` is true may end a run with a message (`guarded_endings`).

    Raises:
        TypeError: it is no runnable, or one that runs elsewhere (`RemoteGraph`): nothing of it can be seen from here.
    """
    if isinstance(graph, Pregel):
        ends = any(getattr(guard, "ends_runs", False) for guard in guards)
        made = copy.copy(cast("Any", with_endings(cast("Any", graph)) if ends else graph))
        made.__class__ = _guarded_class(type(made), tuple(guards))
        if name is not None:
            made.name = name
        return made
    if isinstance(graph, PregelProtocol) or not isinstance(cast("Any", graph), Runnable):
        raise TypeError(
            f"{type(cast('Any', graph)).__name__} cannot be guarded: a compiled graph or a runnable was expected"
        )
    if isinstance(graph, BaseChatModel):
        return _guarded_model(graph, guards, name)
    return _guarded_binding(tuple(guards))(bound=graph, config={"run_name": name} if name else {})


def _guarded_model(model: Any, guards: Sequence[Guard], name: str | None) -> Any:
    """A model of the same class, so that tools can be bound to it and it can be asked for structured output."""
    callbacks = model.callbacks
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.handlers
    watching = [*(callbacks or ()), *Watcher(guards).handlers]
    return model.model_copy(update={"callbacks": watching, **({"name": name} if name else {})})


def _guarded_class(graph: Any, guards: tuple[Guard, ...], *, whole: Callable[[Config], Config] = lambda it: it) -> Any:
    """The class with guards: of a graph, or of a binding. They are the class's, since both are copied by members.

    `whole` adds to a config what it inherits from its caller's, where the class does not do so by itself.
    """

    class Guarded(graph):
        def stream(self, input: Any, config: Config = None, **options: Any) -> Iterator[Any]:
            watcher, config = attached(whole(config), guards)
            parent: Any = super()
            try:
                stream: Iterator[Any] = parent.stream(input, config, **options)
                with unwatched_parent():
                    first = list(islice(stream, 1))
                yield from chain(first, stream)
            finally:
                watcher.close_blocking()

        async def astream(self, input: Any, config: Config = None, **options: Any) -> AsyncIterator[Any]:
            watcher, config = attached(whole(config), guards)
            parent: Any = super()
            stream: AsyncGenerator[Any] = parent.astream(input, config, **options)
            try:
                with unwatched_parent():
                    part = await anext(stream, _NOTHING)
                while part is not _NOTHING:
                    yield part
                    part = await anext(stream, _NOTHING)
            finally:
                try:
                    await stream.aclose()
                finally:
                    await watcher.close()

    Guarded.__name__, Guarded.__qualname__ = graph.__name__, graph.__qualname__
    return Guarded


class _Binding(RunnableBinding[Any, Any]):
    """Any other runnable. Batches, and inputs that arrive in pieces, come down to one call or one stream each."""

    batch = _RUNNABLE.batch
    abatch = _RUNNABLE.abatch
    batch_as_completed = _RUNNABLE.batch_as_completed
    abatch_as_completed = _RUNNABLE.abatch_as_completed
    transform = _RUNNABLE.transform
    atransform = _RUNNABLE.atransform


def _guarded_binding(guards: tuple[Guard, ...]) -> Any:
    streaming = _guarded_class(_Binding, guards, whole=ensure_config)

    class Guarded(streaming):
        def invoke(self, input: Any, config: Config = None, **options: Any) -> Any:
            watcher, config = attached(ensure_config(config), guards)
            try:
                parent: Any = super()
                return parent.invoke(input, config, **options)
            finally:
                watcher.close_blocking()

        async def ainvoke(self, input: Any, config: Config = None, **options: Any) -> Any:
            watcher, config = attached(ensure_config(config), guards)
            try:
                parent: Any = super()
                return await parent.ainvoke(input, config, **options)
            finally:
                await watcher.close()

    return Guarded
