"""Puts a watcher's callbacks into a config, so that watchers around it are asked first, and each is asked once.

LangChain keeps callbacks in no order, and leaves those that come after a refusal unawaited. So of watchers inside each
other only the innermost has callbacks in the config; it passes on what it hears to those around it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from waystation_guards.watching.callbacks import CallHandler
from waystation_guards.watching.watcher import Guard, Watcher


def attached(
    config: RunnableConfig | None, guards: Sequence[Guard], *, run: str = ""
) -> tuple[Watcher, RunnableConfig]:
    """A watcher inside those of the config and of the running node, and the config with its callbacks instead.

    `run`: what stands for the run where the program gives it no id.
    """
    around = [*_watchers(_running()), *_watchers(config)]
    watcher = Watcher(guards, config=config, around=list(dict.fromkeys(around)), run=run)
    callbacks = _without_watchers((config or {}).get("callbacks"))
    if isinstance(callbacks, BaseCallbackManager):
        for handler in watcher.handlers:
            callbacks.add_handler(handler, inherit=True)
    else:
        callbacks = [*callbacks, *watcher.handlers]
    return watcher, cast("RunnableConfig", {**(config or {}), "callbacks": callbacks})


@contextmanager
def watching_here(guards: Sequence[Guard], *, run: str = "") -> Generator[Watcher]:
    """Guards over what is called in the running node from here on, by whomever. The caller closes the watcher."""
    before = var_child_runnable_config.get()
    watcher, config = attached(before, guards, run=run)
    var_child_runnable_config.set(config)
    try:
        yield watcher
    finally:
        var_child_runnable_config.set(before)


@contextmanager
def watching_in(config: RunnableConfig, guards: Sequence[Guard], *, run: str = "") -> Generator[Watcher]:
    """Guards over what is called with this very config, as tools are: it has the callbacks until this ends."""
    before = config.get("callbacks")
    watcher, made = attached(config, guards, run=run)
    config["callbacks"] = made.get("callbacks")
    try:
        yield watcher
    finally:
        config["callbacks"] = before


@contextmanager
def unwatched_parent() -> Generator[None]:
    """While LangGraph merges the running node's callbacks into a config: without those that the config stands for."""
    before = _running()
    if not _watchers(before):
        yield
        return
    callbacks = _without_watchers(before.get("callbacks"))
    var_child_runnable_config.set(cast("RunnableConfig", {**before, "callbacks": callbacks}))
    try:
        yield
    finally:
        var_child_runnable_config.set(before)


def _running() -> RunnableConfig:
    return var_child_runnable_config.get() or {}


def _watchers(config: RunnableConfig | None) -> list[Watcher]:
    """The watchers whose callbacks a config has, and those around them: the outermost first."""
    handlers = [one for one in _handlers((config or {}).get("callbacks")) if isinstance(one, CallHandler)]
    found = cast("list[Watcher]", list(dict.fromkeys(one.watcher for one in handlers)))
    return [one for watcher in found for one in (*watcher.around, watcher)]


def _handlers(callbacks: Any) -> Sequence[BaseCallbackHandler]:
    return callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or ()


def _without_watchers(callbacks: Any) -> BaseCallbackManager | list[BaseCallbackHandler]:
    """A copy of them."""
    if not isinstance(callbacks, BaseCallbackManager):
        return [one for one in callbacks or () if not isinstance(one, CallHandler)]
    copied = callbacks.copy()
    for handler in _handlers(callbacks):
        if isinstance(handler, CallHandler):
            copied.remove_handler(handler)
    return copied
