"""Ends a run with a message of the agent where a guard says so (`GuardError.ends_run`), instead of with an error.

    graph = with_endings(graph)        `guarded` does it where one of the guards may end runs (`ends_runs` on the guard)

The node whose call was refused writes the message, and leads nowhere: the run ends as soon as nothing else is running.
Tool calls that it leaves unanswered get answers, so that the thread can go on with its next run. It needs a graph that
keeps `messages`; in others, the refusal is an error as before.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast
from uuid import UUID, uuid5

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.pregel import Pregel

from waystation_guards.errors import GuardError

G = TypeVar("G", bound=Runnable[Any, Any])

MESSAGES: Final = "messages"
_SEND: Final = "__pregel_send"
_IDS: Final = UUID("5b1f6f0e-6a53-4b0a-9d3e-0f6a3c9a1c55")


def with_endings(graph: G) -> G:
    """The graph with nodes that end the run where a guard says so; the one given is left as it is."""
    given: Any = graph
    if not isinstance(given, Pregel) or MESSAGES not in cast("Any", given).channels:
        return graph
    made = copy.copy(cast("Any", given))
    made.nodes = {name: _ending(node) for name, node in made.nodes.items()}
    return made


def ending_message(error: GuardError, *, id: str | None = None) -> AIMessage:
    """What the agent says at the end of its run. `response_metadata["guard"]` has the error's code."""
    metadata = {"guard": {"code": error.code, "retry_after_s": error.retry_after_s}}
    return AIMessage(f"I have to stop here: {error.message}.", id=id, response_metadata=metadata)


def unanswered(given: Any, error: GuardError) -> list[ToolMessage]:
    """Answers to the tool calls that a node was given and did not answer."""
    return [
        ToolMessage(f"not made: {error.message}", tool_call_id=call["id"], name=call["name"], status="error")
        for call in _calls(given)
    ]


def _ending(node: Any) -> Any:
    runnable = node.node
    if runnable is None:
        return node
    made = copy.copy(node)
    # A cached property, which LangGraph reads as the whole of what a node does: its function and what it writes.
    made.__dict__["node"] = _Ending(runnable)
    return made


class _Ending(Runnable[Any, Any]):
    """A node that may be the last one."""

    def __init__(self, inner: Runnable[Any, Any]) -> None:
        self.inner = inner

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        try:
            return self.inner.invoke(input, config, **kwargs)
        except GuardError as error:
            return _end(input, config, error)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        try:
            return await self.inner.ainvoke(input, config, **kwargs)
        except GuardError as error:
            return _end(input, config, error)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from self.inner.stream(input, config, **kwargs)
        except GuardError as error:
            _end(input, config, error)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for part in self.inner.astream(input, config, **kwargs):
                yield part
        except GuardError as error:
            _end(input, config, error)


def _end(input: Any, config: RunnableConfig | None, error: GuardError) -> None:
    """Write the end, and nothing that leads on. Raises the error where it is to be one."""
    configurable: Mapping[str, Any] = (config or {}).get("configurable") or {}
    write: Callable[[list[tuple[str, Any]]], None] | None = configurable.get(_SEND)
    if not error.ends_run or write is None:
        raise error
    metadata: Mapping[str, Any] = (config or {}).get("metadata") or {}
    # Tasks of one superstep that all end the run say so once: messages of one id are one message.
    named = (configurable.get("thread_id"), metadata.get("run_id"), metadata.get("langgraph_step"), error.message)
    messages: list[AnyMessage] = [*unanswered(input, error), ending_message(error, id=str(uuid5(_IDS, repr(named))))]
    write([(MESSAGES, messages)])


def _calls(given: Any) -> Sequence[Mapping[str, Any]]:
    """The tool calls in a node's input: sent to it one by one, or of the last message."""
    if isinstance(given, list):
        sent = cast("list[Any]", given)
        return [
            cast("Mapping[str, Any]", one) for one in sent if isinstance(one, dict) and {"name", "args", "id"} <= {*one}
        ]
    state = cast("Mapping[str, Any]", given if isinstance(given, Mapping) else getattr(given, "__dict__", {}))
    if isinstance(state.get("tool_call"), Mapping):
        return [state["tool_call"]]
    messages = cast("list[Any]", state.get(MESSAGES) or [])
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    last = next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)
    return [] if last is None else [cast("Any", call) for call in last.tool_calls if call["id"] not in answered]
