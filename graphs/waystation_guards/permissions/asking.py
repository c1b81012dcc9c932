"""Asking a person about a tool call from inside its callbacks: a LangGraph interrupt in LangChain's form.

LangGraph gives the answers of a task back in the order in which its questions come. A task that makes several calls at
once may ask in another order when it is resumed, and one call's approval would let another through. So a question
names all calls that its task has asked about, in order, and an answer counts for the call that the saved question of
its number names.

    first:    A asks ─▶ interrupt, asked: [A]
    resumed:  B comes first ─▶ answer 0 is A's, kept for it; B asks ─▶ interrupt, asked: [A, B]
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import interrupt

from waystation_guards.calls import current_config
from waystation_guards.errors import NotPermitted

ASKED: Final = "waystation_asked"
"""The member of a question that names the calls its task asked about."""

_SAVER = "__pregel_checkpointer"
_SCRATCHPAD = "__pregel_scratchpad"
_TASK = "__pregel_task_id"
_INTERRUPT = "__interrupt__"
_TASKS_REMEMBERED = 1000


def question(tool: str, arguments: Mapping[str, Any], *, reason: str, decisions: tuple[str, ...]) -> dict[str, Any]:
    """The two parts of LangChain's `HITLRequest` that one call makes: `action` and `review`."""
    description = f"{reason}\n\nTool: {tool}\nArguments: {json.dumps(dict(arguments), default=str, ensure_ascii=False)}"
    return {
        "action": {"name": tool, "args": dict(arguments), "description": description},
        "review": {"action_name": tool, "allowed_decisions": list(decisions)},
    }


async def approved(tool: str, arguments: Mapping[str, Any], *, reason: str) -> str | None:
    """Ask about a call of the running task. None when it was approved, else what was said when it was rejected.

    Raises:
        GraphInterrupt: it waits for an answer.
        NotPermitted: nobody can be asked here, or the answer is of no use.
    """
    config = current_config()
    conf = (config or {}).get("configurable") or {}
    if config is None or conf.get(_SAVER) is None or conf.get(_SCRATCHPAD) is None:
        raise NotPermitted(f"{tool} needs approval, and without a checkpointer nobody can be asked: {reason}")
    task = _task_of(conf[_SCRATCHPAD])
    if task.saved is None:
        task.saved = await _saved_tickets(config)
    ticket = hashlib.sha256(json.dumps([tool, dict(arguments)], sort_keys=True, default=str).encode()).hexdigest()[:16]
    part = question(tool, arguments, reason=reason, decisions=("approve", "reject"))
    with task.lock:  # nothing is awaited in here: two calls of a task must not ask between each other's lines
        while ticket not in task.answers:
            number = len(task.answers)
            asked = [*task.saved[:number], ticket]
            answer = interrupt({"action_requests": [part["action"]], "review_configs": [part["review"]], ASKED: asked})
            if number >= len(task.saved):
                raise NotPermitted(f"{tool} needs approval, and the answer that came was not for it")
            task.answers[task.saved[number]] = answer
        return _read(tool, task.answers[ticket])


@dataclass(slots=True)
class _Task:
    """One execution of a task: the calls that its saved question names, and what was answered, in that order."""

    scratchpad: Any
    saved: list[str] | None = None
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    lock: threading.Lock = field(default_factory=threading.Lock)


_tasks: OrderedDict[int, _Task] = OrderedDict()
_tasks_lock = threading.Lock()


def _task_of(scratchpad: Any) -> _Task:
    """The record of an execution; LangGraph makes a scratchpad for each, which is kept so that its id stays its own."""
    with _tasks_lock:
        found = _tasks.get(id(scratchpad))
        if found is None:
            found = _tasks[id(scratchpad)] = _Task(scratchpad)
            while len(_tasks) > _TASKS_REMEMBERED:
                _tasks.popitem(last=False)
        return found


async def _saved_tickets(config: RunnableConfig) -> list[str]:
    """The calls that the task's saved question names."""
    conf: Mapping[str, Any] = config.get("configurable") or {}
    saver, task_id = conf[_SAVER], conf.get(_TASK)
    parent = "|".join(str(conf.get("checkpoint_ns") or "").split("|")[:-1])
    checkpoint_id = cast("Mapping[str, str]", conf.get("checkpoint_map") or {}).get(parent)
    place: Any = {"thread_id": conf.get("thread_id"), "checkpoint_ns": parent}
    where: Any = {"configurable": {**place, **({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}}
    try:
        found = await saver.aget_tuple(where)
    except NotImplementedError:
        found = await asyncio.to_thread(saver.get_tuple, where)
    writes: list[tuple[str, str, Any]] = (found and found.pending_writes) or []
    for writer, channel, value in reversed(writes):
        if channel == _INTERRUPT and writer == task_id:
            asked: list[Any] = [_member(one.value, ASKED) for one in value]
            return [str(one) for one in asked[-1] or ()] if asked else []
    return []


def _read(tool: str, answer: Any) -> str | None:
    """A `HITLResponse` with one decision, as LangChain's UIs send it."""
    decisions: Any = _member(answer, "decisions")
    one: Any = cast("list[Any]", decisions)[0] if isinstance(decisions, list) and decisions else answer
    kind = _member(one, "type")
    if kind == "approve":
        return None
    if kind == "reject":
        return str(_member(one, "message") or "")
    raise NotPermitted(f"{tool} needs approval, and the answer is neither approve nor reject")


def _member(value: Any, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
