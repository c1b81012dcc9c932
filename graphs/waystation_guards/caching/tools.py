"""Results of tools, kept for who calls the same tool with the same arguments again.

    search = cached_tool(search, ToolRule(ttl_s=600))                       for any graph, node or agent
    ToolCacheMiddleware({"search": ToolRule(ttl_s=600, fold=("query",))})   for `create_agent`, tool by tool
    with remembered(ToolCache({"search_*": ToolRule()})): …                 for graphs that nobody edited (`tool_layer`)

A tool is cached only where somebody says so: it must have no effect but its result. Errors, commands and what is no
JSON are not kept. A hit makes no call: nobody is told that a tool ran, and no budget of tool calls is used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import types
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import Any, Final, Literal, TypeVar, cast, get_args

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from waystation_guards.blocking import wait_for
from waystation_guards.budget.savings import record_hit
from waystation_guards.caching.keys import digest_of, key_of
from waystation_guards.caching.rules import CacheEvent, Happened, OnCacheEvent, check_positive
from waystation_guards.caching.single_flight import Patience, Turn, take_turn
from waystation_guards.calls import CallSite, current_config, site_of
from waystation_guards.errors import GuardUnavailable
from waystation_guards.ports import Ports, ports_of

log = logging.getLogger(__name__)

T = TypeVar("T", bound=BaseTool)
ToolScope = Literal["tenant", "user", "thread", "shared"]

_AWAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ToolRule:
    """How results of one tool are cached.

    `ttl_s`: how long a result is good, shortened at random by up to `jitter` of it. `scope`: who may be given it;
    `user` and `thread` for what depends on who asks. `ignore`: arguments that do not change the result. `fold`:
    arguments in which case and spaces do not matter. `wait_s`: how long others wait for one who makes the same call;
    `lock_s`: after which silence that one counts as dead. `version`, `store_s`, `max_bytes`: as in `CacheRules`.
    """

    ttl_s: float = 300.0
    jitter: float = 0.1
    scope: ToolScope = "tenant"
    ignore: tuple[str, ...] = ()
    fold: tuple[str, ...] = ()
    single_flight: bool = True
    wait_s: float = 30.0
    lock_s: float = 20.0
    store_s: float = 0.5
    version: str = ""
    max_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        if self.scope not in get_args(ToolScope):
            raise ValueError(f"scope of a tool's cache is {self.scope!r}; expected is one of {get_args(ToolScope)}")
        check_positive(
            "tool's cache", ttl_s=self.ttl_s, lock_s=self.lock_s, store_s=self.store_s, max_bytes=self.max_bytes
        )
        if not 0 <= self.wait_s < float("inf"):
            raise ValueError(f"wait_s of a tool's cache is {self.wait_s!r}; expected are seconds, not below zero")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter of a tool's cache is {self.jitter!r}; expected is a part between 0 and 1")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool as its cache sees it. `key` is None where it must not be cached."""

    name: str
    rule: ToolRule
    key: str | None
    site: CallSite
    ports: Ports


@dataclass(slots=True)
class ToolCache:
    """Results of tools by their rules: by name, or by pattern (`search_*`); the first that fits holds. Tools without
    one are not cached. `by_graph`: tools of one name in different graphs, or for different assistants, are different
    tools: for rules of somebody who does not know them all."""

    rules: Mapping[str, ToolRule]
    on_event: OnCacheEvent | None = None
    by_graph: bool = False
    _away_until: float = field(default=0.0)

    def rule_of(self, name: str) -> ToolRule | None:
        """The rule for a tool."""
        found = (rule for pattern, rule in self.rules.items() if pattern == name or fnmatchcase(name, pattern))
        return next(found, None)

    def use_of(
        self,
        name: str,
        arguments: Mapping[str, Any],
        config: RunnableConfig | None,
        *,
        bare: bool = False,
        what: tuple[str, ...] = (),
    ) -> ToolUse | None:
        """The call, if its tool is cached. `arguments`: those that the model gave, none that were injected. `bare`: a
        call that gives a value and no message. `what`: tells apart tools of one name."""
        rule = self.rule_of(name)
        if rule is None:
            return None
        site = site_of(config)
        owner = {"user": site.user, "thread": site.thread}.get(rule.scope, "-")
        if self.by_graph:
            what = (*what, site.graph, "" if rule.scope == "shared" else site.assistant)
        try:
            digest = digest_of([name, bare, _plain_arguments(arguments, rule), owner, *what])
        except (TypeError, ValueError):  # what cannot be told apart is not cached
            owner, digest = "", ""
        scope = "shared" if rule.scope == "shared" else "tenant"
        key = key_of("tool", site, scope, f"{rule.scope}/{digest}", version=rule.version) if owner else None
        return ToolUse(name, rule, key, site, ports_of(config))

    async def begin(self, use: ToolUse) -> Any | Turn:
        """What is kept, as members of a `ToolMessage`, or the turn to call the tool. Never raises for the cache's
        own trouble."""
        if use.key is None or monotonic() < self._away_until:
            self._tell("skipped", use)
            return _alone(use)
        key, rule, cache = use.key, use.rule, use.ports.cache

        async def read() -> dict[str, Any] | None:
            return _decoded(await cache.get(key))

        try:
            async with asyncio.timeout(rule.store_s):
                found: Any = await read()
            happened: Happened = "hit"
            if found is None and rule.single_flight:
                happened, patience = "waited", Patience(rule.lock_s, rule.wait_s, rule.store_s)
                found = await take_turn(cache, key, read=read, patience=patience)
        except Exception as error:  # a cache in trouble costs time and breaks nothing
            return self._away(use, error)
        if found is None or isinstance(found, Turn):
            self._tell("miss", use)
            return found or _alone(use)
        await record_hit(use.ports, use.site, use.name, {"layer": "tool"}, within_s=rule.store_s)
        self._tell(happened, use)
        return found

    async def keep(self, use: ToolUse, result: Any) -> None:
        """Keep a result that is worth it: no error, no command, nothing that is no JSON."""
        data = _encoded(result)
        if use.key is None or data is None or len(data) > use.rule.max_bytes or monotonic() < self._away_until:
            self._tell("not_kept", use)
            return
        try:
            async with asyncio.timeout(use.rule.store_s):
                ttl_s = use.rule.ttl_s * (1 - random.uniform(0, use.rule.jitter))
                await use.ports.cache.put(use.key, data, ttl_s=ttl_s)
            self._tell("kept", use)
        except Exception as error:  # as in `begin`
            self._away(use, error)

    async def arun(self, use: ToolUse, call_id: str | None, call: Callable[[], Awaitable[Any]]) -> Any:
        """The kept result, or what the call gives. `call_id`: of the model's tool call; None for a bare call."""
        found = await self.begin(use)
        if not isinstance(found, Turn):
            return _given_again(found, use.name, call_id)
        async with found:
            result = await call()
            await self.keep(use, result)
        return result

    def run(self, use: ToolUse, call_id: str | None, call: Callable[[], Any]) -> Any:
        """As `arun`, for code that blocks."""
        try:
            found = wait_for(self.begin(use), use.ports.loop)
        except GuardUnavailable as error:
            log.warning("a cache was not asked: %s", error)
            return call()
        if not isinstance(found, Turn):
            return _given_again(found, use.name, call_id)
        try:
            result = call()
            wait_for(self.keep(use, result), use.ports.loop)
        finally:
            if found.leads:
                wait_for(found.end(), use.ports.loop)
        return result

    def _away(self, use: ToolUse, error: Exception) -> Turn:
        self._away_until = monotonic() + _AWAY_S
        log.warning("a cache does not answer; tools are called without it", exc_info=error)
        self._tell("unavailable", use, why=type(error).__name__)
        return _alone(use)

    def _tell(self, happened: Happened, use: ToolUse, *, why: str = "") -> None:
        if self.on_event is not None:
            self.on_event(CacheEvent(happened, "tool", use.name, use.site, why=why))


def cached_tool(tool: T, rule: ToolRule | None = None, *, on_event: OnCacheEvent | None = None) -> T:
    """The tool with its results cached; the one given is left as it is.

    Arguments that LangGraph injects (state, store, ids) do not count: use a `scope` where the result depends on them.
    """
    cache = ToolCache({tool.name: rule or ToolRule()}, on_event)
    real: Any = type(tool)

    def invoke(self: Any, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        use, call_id = _use(cache, self, input, config)
        return cache.run(use, call_id, lambda: _as(real, self).invoke(input, config, **kwargs))

    async def ainvoke(self: Any, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        use, call_id = _use(cache, self, input, config)
        return await cache.arun(use, call_id, lambda: _as(real, self).ainvoke(input, config, **kwargs))

    body = {"invoke": invoke, "ainvoke": ainvoke, "__module__": __name__, "__doc__": real.__doc__}
    kind = types.new_class(f"Cached{real.__name__}", (real,), exec_body=lambda namespace: namespace.update(body))
    return _as(kind, tool)


def _as(kind: type[Any], tool: Any) -> Any:
    """The tool as another class has it. A tool's `ainvoke` may call its own `invoke`: that one must not look again."""
    made = tool.model_copy()
    object.__setattr__(made, "__class__", kind)
    return made


def _use(cache: ToolCache, tool: BaseTool, given: Any, config: RunnableConfig | None) -> tuple[ToolUse, str | None]:
    members = cast("dict[str, Any]", given) if isinstance(given, dict) else {"": given}
    is_call = members.get("type") == "tool_call"
    arguments = cast("dict[str, Any]", members.get("args") or {}) if is_call else members
    shown = {name: value for name, value in arguments.items() if name not in injected(tool)}
    use = cache.use_of(tool.name, shown, current_config() or config, bare=not is_call)
    assert use is not None, "its own rule is there"
    return use, cast("str | None", members.get("id")) if is_call else None


def injected(tool: BaseTool) -> set[str]:
    """The arguments that the model knows nothing of."""
    shown: Any = tool.tool_call_schema
    full: Any = tool.get_input_schema()
    if isinstance(shown, dict) or not hasattr(full, "model_fields"):
        return set()
    return set(full.model_fields) - set(shown.model_fields)


def _plain_arguments(arguments: Mapping[str, Any], rule: ToolRule) -> dict[str, Any]:
    plain = {name: value for name, value in arguments.items() if name not in rule.ignore}
    for name in rule.fold:
        if isinstance(text := plain.get(name), str):
            plain[name] = " ".join(text.casefold().split())
    return json.loads(json.dumps(plain, allow_nan=False))


def _encoded(result: Any) -> bytes | None:
    if isinstance(result, ToolMessage):
        if result.status == "error":
            return None
        members: dict[str, Any] = {"content": result.content, "artifact": result.artifact, "name": result.name}
    else:
        members = {"value": result}
    try:
        data = json.dumps(members, allow_nan=False).encode()
    except (TypeError, ValueError):
        return None
    return data if json.loads(data) == members else None  # tuples, numbers as keys: what JSON would change


def _decoded(data: bytes | None) -> dict[str, Any] | None:
    try:
        found = None if data is None else json.loads(data)
    except ValueError:
        return None
    members = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return members if "value" in members or "content" in members else None


def _given_again(kept: Mapping[str, Any], name: str, call_id: str | None) -> Any:
    if "value" in kept:
        return kept["value"]
    artifact, given = kept.get("artifact"), kept.get("name") or name
    return ToolMessage(kept["content"], name=given, tool_call_id=call_id or "", artifact=artifact)


def _alone(use: ToolUse) -> Turn:
    return Turn(use.ports.cache, use.key or "", leads=False, patience=Patience())
