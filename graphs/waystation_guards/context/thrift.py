"""Contexts that cost no more than they have to: old tool results are cleared, old turns are left out or summarised.

    model = ThriftyModel(inner=model, thrift=Thrift(max_tokens=8_000))                       leaves old turns out
    model = ThriftyModel(inner=model, thrift=Thrift(max_tokens=8_000), summariser=small)     and says what was in them

    longer than max_tokens? ─▶ old tool results become a placeholder ─▶ still longer? ─▶ the oldest turns go

Both go in steps, so that the prompt keeps its beginning from turn to turn and the provider's own cache is of use.

Kept are the system messages, the question that is being answered, and the newest turns. A tool's result never stands
without its call, nor a call without its result. What the state of the graph holds is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages import utils as message_utils
from langchain_core.messages.utils import count_tokens_approximately

CLEARED: Final = "[an older result, left out]"


@dataclass(frozen=True, slots=True)
class Thrift:
    """How long a context may be, in tokens (counted roughly, tools not included).

    `max_tokens`: what messages may come to. `step`: the part of it that is left out at once; larger steps change the
    beginning of the prompt less often. `keep_tool_results`: so many of the newest results are never cleared.
    `clear_above`: results shorter than so many tokens are not worth clearing. `keep_tools`: tools whose results are
    never cleared.
    """

    max_tokens: int = 16_000
    step: float = 0.25
    keep_tool_results: int = 3
    clear_above: int = 100
    keep_tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens of a thrift is {self.max_tokens!r}; expected is 1 or more")
        if not 0 < self.step < 1:
            raise ValueError(f"step of a thrift is {self.step!r}; expected is a part between 0 and 1")
        if self.keep_tool_results < 0 or self.clear_above < 0:
            raise ValueError("keep_tool_results and clear_above of a thrift are not below zero")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is left of some messages. `dropped`: what was left out, in its order; sizes in tokens."""

    messages: list[BaseMessage]
    before: int
    after: int
    dropped: list[BaseMessage]
    cleared: int

    @property
    def saved(self) -> int:
        return self.before - self.after


def prune(messages: Sequence[BaseMessage], thrift: Thrift) -> Pruned:
    """The messages as they fit, or all of them if they do. A single turn that does not fit by itself stays whole."""
    before = count_tokens_approximately(messages)
    if before <= thrift.max_tokens:
        return Pruned([*messages], before, before, [], 0)
    cleared = clear_tool_results(messages, thrift)
    count = sum(new is not old for new, old in zip(cleared, messages, strict=True))
    size = count_tokens_approximately(cleared)
    if size <= thrift.max_tokens:
        return Pruned(cleared, before, size, [], count)
    kept = _newest(cleared, size, thrift)
    stays = {id(message) for message in kept}
    dropped = [old for old, new in zip(messages, cleared, strict=True) if id(new) not in stays]
    return Pruned(kept, before, count_tokens_approximately(kept), dropped, count)


def clear_tool_results(messages: Sequence[BaseMessage], thrift: Thrift) -> list[BaseMessage]:
    """The messages with a placeholder in place of old and long results. Errors stay: they say what not to try again."""
    results = [number for number, message in enumerate(messages) if isinstance(message, ToolMessage)]
    step = max(1, thrift.keep_tool_results)
    old = set(results[: max(0, (len(results) - thrift.keep_tool_results) // step * step)])
    return [
        _cleared(message) if number in old and _is_worth_it(message, thrift) else message
        for number, message in enumerate(messages)
    ]


def _newest(messages: list[BaseMessage], size: int, thrift: Thrift) -> list[BaseMessage]:
    """System messages, the question being answered, and as many of the newest turns as fit."""
    step = max(1, int(thrift.max_tokens * thrift.step))
    lead = [*takewhile(lambda message: isinstance(message, SystemMessage), messages)]
    rest = messages[len(lead) :]
    # So many whole steps are left out that the cut stays where it is until the conversation has grown by another step.
    left = size - ceil((size - thrift.max_tokens) / step) * step - _size(lead)
    asked = [number for number, message in enumerate(rest) if isinstance(message, HumanMessage)]
    kept = _trimmed(rest, left, start_on="human")
    if not asked:
        return [*lead, *(kept or _trimmed(rest, left, start_on="ai") or _last_turn(rest))]
    question = rest[asked[-1]]
    if any(message is question for message in kept):
        return [*lead, *kept]
    # One question and a long way to its answer: the way is shortened, the question stays at its beginning.
    way = rest[asked[-1] + 1 :]
    return [*lead, question, *(_trimmed(way, left - _size([question]), start_on="ai") or _last_turn(way))]


def _trimmed(messages: Sequence[BaseMessage], tokens: int, *, start_on: str) -> list[BaseMessage]:
    if tokens <= 0 or not messages:
        return []
    return cast("Any", message_utils).trim_messages(  # its annotations are incomplete
        messages,
        max_tokens=tokens,
        token_counter=count_tokens_approximately,
        strategy="last",
        start_on=start_on,
        allow_partial=False,
    )


def _last_turn(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The newest call of tools with its results, or the newest message."""
    turns = [number for number, one in enumerate(messages) if isinstance(one, AIMessage | HumanMessage)]
    return [*messages[turns[-1] :]] if turns else []


def _size(messages: Sequence[BaseMessage]) -> int:
    return count_tokens_approximately(messages) if messages else 0


def _is_worth_it(message: BaseMessage, thrift: Thrift) -> bool:
    return (
        isinstance(message, ToolMessage)
        and message.status != "error"
        and message.name not in thrift.keep_tools
        and count_tokens_approximately([message]) > thrift.clear_above
    )


def _cleared(message: BaseMessage) -> BaseMessage:
    return message.model_copy(update={"content": CLEARED, "artifact": None})
