"""Which model a call needs: the small one first, a larger one where rules say so before or after.

model = RoutedModel(inner=small, larger=[large])          (`routed_model.RoutedModel`)

before   the prompt is long, a tool or a word asks for it, the agent is on its way for too many steps ─▶ the larger one
after    the small model says that it is not sure, calls a tool as its schema forbids, does not call one it has to,
         was cut, refused or said nothing ─▶ the next larger one is asked; nothing of the small one's is shown
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from waystation_guards.budget.estimates import input_tokens
from waystation_guards.caps.broken_calls import Check, calls_fit, has_broken_call

MARKER: Final = "[[NEEDS-A-STRONGER-MODEL]]"
"""What a small model answers with that is not sure."""

_ASKED: Final = (
    "If you cannot answer with confidence, or the task needs more careful reasoning than you can give it, reply with "
    f"exactly {MARKER} and nothing else. A stronger model then takes over."
)
_CUT: Final = frozenset(("length", "max_tokens", "content_filter", "refusal", "safety"))


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """When a larger model is asked.

    `max_input_tokens`, `max_tools`: more than that is for the larger one. `tools`: tools whose presence is. `words`:
    regular expressions that are looked for in the last question. `max_steps`: answers since the last question after
    which an agent has lost its way. `ask_confidence`: the small model is told to say when it is not sure.
    `check_tools`: its tool calls are checked against their schemas.
    """

    max_input_tokens: int = 8_000
    max_tools: int = 16
    tools: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    max_steps: int = 8
    ask_confidence: bool = True
    check_tools: bool = True

    def __post_init__(self) -> None:
        for name in ("max_input_tokens", "max_tools", "max_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of routing is {getattr(self, name)!r}; expected is not below zero")
        for pattern in self.words:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"words of routing has {pattern!r}, which is no regular expression: {error}") from None


def why_larger(messages: Sequence[BaseMessage], kwargs: Mapping[str, Any], rules: RoutingRules) -> str | None:
    """The reason to ask the largest model at once; None to try the small one."""
    if input_tokens(messages, kwargs) > rules.max_input_tokens:
        return "the prompt is long"
    names = tool_names(kwargs)
    if len(names) > rules.max_tools:
        return "there are many tools"
    if any(name in rules.tools for name in names):
        return "a tool asks for it"
    asked = [number for number, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if asked and any(re.search(pattern, str(messages[asked[-1]].text), re.IGNORECASE) for pattern in rules.words):
        return "the question asks for it"
    steps = sum(isinstance(message, AIMessage) for message in messages[asked[-1] if asked else 0 :])
    return "it takes many steps" if steps > rules.max_steps else None


def why_again(answer: AIMessage, rules: RoutingRules, *, must_call: bool, checks: Mapping[str, Check]) -> str | None:
    """The reason to ask a larger model after all; None if the answer will do.

    `must_call`: the caller demands a tool call. `checks`: by tool, what raises ValueError for arguments that are wrong.
    """
    told = answer.response_metadata
    end = str(told.get("finish_reason") or told.get("stop_reason") or "").lower()
    if end in _CUT or answer.additional_kwargs.get("refusal"):
        return f"it ended with {end or 'refusal'}"
    if rules.ask_confidence and MARKER in str(answer.text):
        return "it is not sure"
    if not answer.tool_calls and not answer.content and not answer.invalid_tool_calls:
        return "it is empty"
    if not rules.check_tools:
        return None
    if has_broken_call(answer) or (must_call and not answer.tool_calls):
        return "its tool call is missing or malformed"
    for call in answer.tool_calls:
        if checks and call["name"] not in checks:
            return "it calls a tool that is not there"
    return None if calls_fit(answer, checks) else "its tool call does not fit the schema"


def asked_for_confidence(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with the request to say so when the model is not sure."""
    if not messages or not isinstance(messages[0], SystemMessage):
        return [SystemMessage(_ASKED), *messages]
    first = messages[0]
    content = first.content
    more: Any = f"{content}\n\n{_ASKED}" if isinstance(content, str) else [*content, {"type": "text", "text": _ASKED}]
    return [first.model_copy(update={"content": more}), *messages[1:]]


def may_become_marker(text: str) -> bool:
    """Whether a stream that has said this so far may still turn out to be the marker."""
    said = text.lstrip()
    return MARKER.startswith(said[: len(MARKER)])


def tool_names(kwargs: Mapping[str, Any]) -> list[str]:
    """The names of tools in a call's arguments, in any provider's form."""
    names = list[str]()
    for tool in cast("Sequence[Any]", kwargs.get("tools") or ()):
        described = cast("dict[str, Any]", tool) if isinstance(tool, dict) else {}
        function = cast("dict[str, Any]", described.get("function") or described)
        names.append(str(function.get("name") or function.get("type") or ""))
    return names
