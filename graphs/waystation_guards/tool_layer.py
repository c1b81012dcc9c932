"""Results of tools, kept for graphs that nobody edited.

    install()                               once in a process, where a policy asks for it
    with remembered(ToolCache(...)): …      all tools that are called in this context, in its tasks and their threads

    tool.arun ─▶ rules here? ─ no ─▶ as ever
                  └ yes ─▶ does a rule name the tool? ─▶ may it be called without asking anybody? ─▶ the kept result, or
                                                                                                 the call, which is kept

It stands on the two public calls of `BaseTool` that everything else comes down to (`run` and `arun`, through `invoke`
and `ainvoke`: so do tool nodes and agents). A hit makes no call: callbacks hear of none, and no budget counts it. So
permissions are looked at before: a call that they refuse or ask about goes by the cache, and on to them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.tools import BaseTool

from waystation_guards.caching.tools import ToolCache, ToolUse, injected
from waystation_guards.calls import CallSite, current_config
from waystation_guards.permissions.permissions import ToolGuard
from waystation_guards.watching.callbacks import CallHandler
from waystation_guards.watching.watcher import Watcher

_RESULTS: ContextVar[ToolCache | None] = ContextVar("waystation_guards_results", default=None)
_ORIGINAL: dict[str, Callable[..., Any]] = {}
_CALLBACKS_AT: Final = 3
"""The place of `callbacks` among the positional arguments after the tool's input."""


def install() -> None:
    """Make tools ask for kept results when they are called. Doing it again does nothing. A call without rules costs one
    look at a context variable."""
    if _ORIGINAL:
        return
    for name, made in (("run", _run), ("arun", _arun)):
        original = getattr(BaseTool, name)
        _ORIGINAL[name] = original
        setattr(BaseTool, name, wraps(original)(made))


@contextmanager
def remembered(results: ToolCache | None) -> Generator[None]:
    """Keep the results of all tools in this context that the cache has rules for; None keeps none."""
    before = _RESULTS.get()
    _RESULTS.set(results)
    try:
        yield
    finally:
        _RESULTS.set(before)


def _run(self: Any, tool_input: Any, *given: Any, **named: Any) -> Any:
    results, original = _RESULTS.get(), _ORIGINAL["run"]
    use = None if results is None else _use(results, self, tool_input, given, named)
    if results is None or use is None:
        return original(self, tool_input, *given, **named)
    return results.run(use, named.get("tool_call_id"), lambda: original(self, tool_input, *given, **named))


async def _arun(self: Any, tool_input: Any, *given: Any, **named: Any) -> Any:
    results, original = _RESULTS.get(), _ORIGINAL["arun"]
    use = None if results is None else _use(results, self, tool_input, given, named)
    if results is None or use is None:
        return await original(self, tool_input, *given, **named)
    return await results.arun(use, named.get("tool_call_id"), lambda: original(self, tool_input, *given, **named))


def _use(
    results: ToolCache, tool: BaseTool, tool_input: Any, given: tuple[Any, ...], named: Mapping[str, Any]
) -> ToolUse | None:
    """The call as the cache sees it; None where no rule names the tool, or somebody has a say in the call."""
    if results.rule_of(tool.name) is None:
        return None
    is_bare = named.get("tool_call_id") is None
    if is_bare and (tool.handle_tool_error or tool.handle_validation_error):
        return None  # such a tool's error is a text like any other
    here = current_config()
    arguments = _shown(tool, tool_input)
    use = results.use_of(tool.name, arguments, here or named.get("config"), bare=is_bare, what=(tool.description,))
    callbacks = given[_CALLBACKS_AT] if len(given) > _CALLBACKS_AT else named.get("callbacks")
    if callbacks is None and here is not None:
        callbacks = here.get("callbacks")
    told = arguments if isinstance(tool_input, dict) else {}
    return None if use is None or _has_a_say(callbacks, use.site, tool.name, told) else use


def _shown(tool: BaseTool, tool_input: Any) -> dict[str, Any]:
    """The arguments that the model gave, without those that LangGraph puts in."""
    if not isinstance(tool_input, dict):
        return {"": tool_input}
    hidden = injected(tool)
    seen = cast("dict[str, Any]", cast("Any", tool)._filter_injected_args(tool_input))
    return {name: value for name, value in seen.items() if name not in hidden}


def _has_a_say(callbacks: Any, site: CallSite, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether permissions that watch over the call refuse it, or have somebody asked."""
    return any(
        guard.permissions.judge(name, arguments, roles=site.roles).effect != "allow" for guard in _judges(callbacks)
    )


def _judges(callbacks: Any) -> Iterator[ToolGuard]:
    handlers: list[Any] = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else list(callbacks or ())
    for handler in handlers:
        watcher = handler.watcher if isinstance(handler, CallHandler) else None
        if isinstance(watcher, Watcher):
            for one in (*watcher.around, watcher):
                yield from (guard for guard in one.guards if isinstance(guard, ToolGuard))
