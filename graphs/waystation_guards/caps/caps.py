"""Caps: how large inputs and outputs may be, and how many calls a run, a turn and a moment may have.

    await graph.ainvoke(input, watched(config, [CapGuard(Caps(input_tokens=50_000, model_calls=30, parallel_calls=8))]))

Counts are of one attempt of a run, in the process that executes it; what has to hold over attempts, processes and days
is a limit of a budget (`Limit(30, unit="model_calls", scope="run")`). Output schemas are in `caps_schema.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar, cast

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.types import Send

from waystation_guards.calls import CallSite
from waystation_guards.errors import LimitPassed
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

T = TypeVar("T")

_RUNS_REMEMBERED: Final = 10_000
_ATTACHMENTS: Final = frozenset(
    {"image", "image_url", "audio", "input_audio", "video", "file", "input_file", "document", "media"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most there may be of each; None for no cap.

    `input_…`: of the prompt of a model call (`input_attachment_chars`: characters of a single attachment as it is sent,
    base64 mostly). `output_…`: of an answer; it is paid for all the same. `tool_calls_per_turn`: in one answer of a
    model. `model_calls`, `tool_calls`: of an attempt of a run. `parallel_calls`: open at the same moment in a run.
    `sends`: tasks that one step may fan out to (`capped_sends`). `steps`: supersteps of a graph (`capped`).
    """

    input_chars: int | None = None
    input_tokens: int | None = None
    input_messages: int | None = None
    input_attachments: int | None = None
    input_attachment_chars: int | None = None
    output_chars: int | None = None
    output_tokens: int | None = None
    tool_calls_per_turn: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    parallel_calls: int | None = None
    sends: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for member in fields(self):
            value = getattr(self, member.name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{member.name} is {value!r}; expected is a whole number above zero")

    def check_input(self, messages: Sequence[BaseMessage]) -> None:
        """Raise LimitPassed where a prompt is larger than allowed."""
        _check("messages in a prompt", len(messages), self.input_messages)
        if self.input_attachments is not None or self.input_attachment_chars is not None:
            found = [size for message in messages for size in _attachments(message)]
            _check("attachments in a prompt", len(found), self.input_attachments)
            _check("characters in an attachment", max(found, default=0), self.input_attachment_chars)
        if self.input_chars is not None:
            _check("characters in a prompt", sum(_chars(message) for message in messages), self.input_chars)
        if self.input_tokens is not None:
            _check("tokens in a prompt", count_tokens_approximately(messages), self.input_tokens)

    def check_output(self, message: AIMessage) -> None:
        """Raise LimitPassed where an answer is larger than allowed, or calls too many tools."""
        if self.output_chars is not None:
            _check("characters in an answer", _chars(message), self.output_chars)
        if self.output_tokens is not None:
            usage = message.usage_metadata
            tokens = usage["output_tokens"] if usage else count_tokens_approximately([message])
            _check("tokens in an answer", tokens, self.output_tokens)
        _check("tool calls in one answer", len(message.tool_calls), self.tool_calls_per_turn)

    def check_sends(self, count: int) -> None:
        """Raise LimitPassed where a step fans out to more tasks than allowed."""
        _check("parallel tasks of one step", count, self.sends)


@dataclass(slots=True)
class _Counts:
    """What an attempt of a run has done."""

    model_calls: int = 0
    tool_calls: int = 0
    open_calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class CapGuard:
    """The guard (`watching.Guard`) of caps: for graphs that nobody edited, through callbacks."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self._runs: OrderedDict[tuple[str, str, int], _Counts] = OrderedDict()
        self._lock = threading.Lock()

    async def before_model(self, call: ModelCall) -> None:
        """Raises LimitPassed: the prompt is too large, or the run has made enough calls."""
        self.caps.check_input(call.messages)
        self._begin(call, "model_calls", "model calls of a run", self.caps.model_calls)

    async def after_model(self, call: ModelCall, made: Made) -> None:
        """Raises LimitPassed: the answer is too large. It was paid for, and nobody sees it."""
        self._end(call)
        if made == "made" and call.message is not None:
            self.caps.check_output(call.message)

    async def before_tool(self, call: ToolCall) -> None:
        """Raises LimitPassed: the run has made enough calls."""
        self._begin(call, "tool_calls", "tool calls of a run", self.caps.tool_calls)

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        self._end(call)

    def _begin(self, call: ModelCall | ToolCall, name: str, what: str, most: int | None) -> None:
        if most is None and self.caps.parallel_calls is None:
            return
        counts = self._counts(call.site)
        with counts.lock:
            _check(what, getattr(counts, name) + 1, most)
            _check("calls at the same time", counts.open_calls + 1, self.caps.parallel_calls)
            setattr(counts, name, getattr(counts, name) + 1)
            counts.open_calls += 1
        call.held[id(self)] = counts

    def _end(self, call: ModelCall | ToolCall) -> None:
        counts: _Counts | None = call.held.pop(id(self), None)
        if counts is not None:
            with counts.lock:
                counts.open_calls -= 1

    def _counts(self, site: CallSite) -> _Counts:
        key = (site.tenant, site.run or site.thread, site.attempt)
        with self._lock:
            found = self._runs.get(key)
            if found is None:
                found = self._runs[key] = _Counts()
                while len(self._runs) > _RUNS_REMEMBERED:
                    self._runs.popitem(last=False)
            else:
                self._runs.move_to_end(key)
            return found


def capped(config: RunnableConfig | None, caps: Caps) -> RunnableConfig:
    """The config with the caps that LangGraph itself keeps: supersteps (`recursion_limit`), tasks at the same time."""
    given: Mapping[str, Any] = config or {}
    members: dict[str, Any] = {}
    if caps.steps is not None:
        members["recursion_limit"] = min(caps.steps, given.get("recursion_limit") or caps.steps)
    if caps.parallel_calls is not None:
        members["max_concurrency"] = min(caps.parallel_calls, given.get("max_concurrency") or caps.parallel_calls)
    return merge_configs(config, cast("RunnableConfig", members))


def capped_sends(route: Callable[..., T], caps: Caps) -> Callable[..., T]:
    """A function for `add_conditional_edges` (or a node that returns a Command) that may fan out only so far.

    Raises LimitPassed when it returns more than `caps.sends` of `Send`.
    """
    from functools import wraps

    @wraps(route)
    def checked(*args: Any, **kwargs: Any) -> T:
        result = route(*args, **kwargs)
        where: Any = getattr(result, "goto", result)
        if isinstance(where, Iterable) and not isinstance(where, str):
            caps.check_sends(sum(isinstance(one, Send) for one in cast("Iterable[Any]", where)))
        return result

    return checked


def _check(what: str, count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise LimitPassed(f"too many {what}: {count}; at most {most} are allowed")


def _blocks(message: BaseMessage) -> list[Any]:
    content = cast("str | list[Any]", message.content)
    return [content] if isinstance(content, str) else content


def _chars(message: BaseMessage) -> int:
    """Text, and the arguments of tool calls. Attachments are counted by themselves."""
    texts = (one if isinstance(one, str) else str(one.get("text") or "") for one in _blocks(message))
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return sum(map(len, texts)) + sum(len(str(call["args"])) for call in calls)


def _attachments(message: BaseMessage) -> list[int]:
    blocks = [cast("dict[str, Any]", one) for one in _blocks(message) if isinstance(one, dict)]
    return [len(str(one)) for one in blocks if one.get("type") in _ATTACHMENTS]
