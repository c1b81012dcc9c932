"""How a person's words answer a graph that waits: interrupts as questions, and messages as what resumes them.

A graph may ask anything. Two forms are known: a text or an object with a text in it, and the approval requests of
LangChain's human-in-the-loop middleware (`action_requests`). All else is shown as JSON, and may be answered with JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from waystation.runs.chat_turn import Asked
from waystation_db.json import dumps

_TEXT_MEMBERS = ("question", "message", "prompt", "text", "description")
_YES = frozenset({"approve", "approved", "approve it", "yes", "y", "ok", "okay", "go ahead", "send it", "accept"})


def question_of(asked: Asked) -> str:
    """The question in words."""
    actions = actions_of(asked.value)
    if actions:
        shown = "\n\n".join(_action_text(action) for action in actions)
        return f"{shown}\n\nAnswer `approve`, or say why not."
    value: object = asked.value
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        texts = [members[name] for name in _TEXT_MEMBERS if isinstance(members.get(name), str)]
        if texts:
            return texts[0]
    return dumps(value).decode()


def actions_of(value: Any) -> list[dict[str, Any]]:
    """The actions that wait for approval; none if the question is of another kind."""
    if not isinstance(value, dict):
        return []
    actions = cast("dict[str, Any]", value).get("action_requests")
    if not isinstance(actions, list):
        return []
    return [cast("dict[str, Any]", action) for action in cast("list[Any]", actions) if isinstance(action, dict)]


def resume_by_text(asked: Sequence[Asked], text: str) -> dict[str, Any]:
    """What resumes these interrupts, from the words of a person: an object by interrupt id."""
    given = _json(text)
    if isinstance(given, dict) and asked and cast("dict[str, Any]", given).keys() <= {one.id for one in asked}:
        return cast("dict[str, Any]", given)
    return {one.id: _value(one, text, given) for one in asked}


def resume_by_decisions(asked: Sequence[Asked], decisions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What resumes approval requests: `decisions` by the ids of `approval_id`; an action without one is rejected."""
    rejected = {"type": "reject"}
    return {
        one.id: {
            "decisions": [decisions.get(approval_id(one, at), rejected) for at in range(len(actions_of(one.value)))]
        }
        for one in asked
        if actions_of(one.value)
    }


def approval_id(asked: Asked, at: int) -> str:
    """The id of one of an interrupt's actions."""
    return f"mcpr_{asked.id}_{at}"


def _value(asked: Asked, text: str, given: Any) -> Any:
    actions = actions_of(asked.value)
    if given is not None or not actions:
        return text if given is None else given
    if text.strip().strip(".!").lower() in _YES:
        decision: dict[str, Any] = {"type": "approve"}
    else:
        decision = {"type": "reject", "message": text}
    return {"decisions": [decision] * len(actions)}


def _json(text: str) -> Any:
    """The object or array that a text is, if it is one."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _action_text(action: Mapping[str, Any]) -> str:
    description = action.get("description")
    if isinstance(description, str) and description:
        return description
    return f"{action.get('name')} {dumps(action.get('args')).decode()}"
