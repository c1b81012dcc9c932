"""A turn as a chat completion: the one object, or its chunks. Both have the same words.

An answer may be several messages (what an agent says before it calls a tool, and after): an empty line stands between
them. Tools that the graph executed do not show. What it asks is part of the text, for any chat UI to show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from waystation.runs.chat_answers import question_of
from waystation.runs.chat_messages import Call
from waystation.runs.chat_turn import Ended, ToolUsed, Usage, Words
from waystation_db.rows import RunKey

JSONObject = dict[str, Any]

BETWEEN: Final = "\n\n"
_FINISH: Final = {
    "length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "content_filter": "content_filter",
}


@dataclass(slots=True)
class Answer:
    """What was said so far."""

    key: RunKey
    model: str
    created: int
    parts: list[str] = field(default_factory=list[str])
    _speaking: str | None = None

    def add(self, progress: Words | ToolUsed) -> str:
        """The text that this adds."""
        match progress:
            case ToolUsed():
                return ""
            case Words(message_id=message_id, text=text):
                opening = BETWEEN if self.parts and message_id != self._speaking else ""
                self._speaking = message_id
                self.parts.append(opening + text)
                return opening + text

    def close(self, ended: Ended) -> str:
        """The questions that the text ends with."""
        questions = BETWEEN.join(question_of(asked) for asked in ended.asked)
        return self.add(Words("questions", questions)) if questions else ""

    def completion(self, ended: Ended) -> JSONObject:
        """The whole as one object."""
        message: JSONObject = {
            "role": "assistant",
            "content": "".join(self.parts) or (None if ended.calls else ""),
            "refusal": None,
            "annotations": [],
        }
        if ended.calls:
            message["tool_calls"] = [_tool_call(call) for call in ended.calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(ended)}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage_object(ended.usage),
            "waystation": note(self.key, ended),
        }

    def chunk(self, delta: Mapping[str, Any], *, finish: str | None = None) -> JSONObject:
        """One chunk."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def last_chunks(self, ended: Ended, *, with_usage: bool) -> Iterator[JSONObject]:
        """What a stream ends with: calls for the client, why it ended, and its usage."""
        if rest := self.close(ended):
            yield self.chunk({"content": rest})
        for at, call in enumerate(ended.calls):
            yield self.chunk({"tool_calls": [{"index": at, **_tool_call(call)}]})
        yield {**self.chunk({}, finish=finish_reason(ended)), "waystation": note(self.key, ended)}
        if with_usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_object(ended.usage)}

    def _head(self, kind: str) -> JSONObject:
        return {
            "id": f"chatcmpl-{self.key.run_id.replace('-', '')}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


def finish_reason(ended: Ended) -> str:
    """Why the answer ends: the model's own reason where OpenAI knows it."""
    if ended.calls:
        return "tool_calls"
    return _FINISH.get(ended.finish or "", "stop")


def usage_object(usage: Usage) -> JSONObject:
    """Usage as chat completions name it."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def note(key: RunKey, ended: Ended | None = None) -> JSONObject:
    """Where an answer is from."""
    asked: Iterable[Any] = ended.asked if ended is not None else ()
    interrupts = [{"id": one.id, "value": one.value} for one in asked]
    return {"thread_id": key.thread_id, "run_id": key.run_id, **({"interrupts": interrupts} if interrupts else {})}


def _tool_call(call: Call) -> JSONObject:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
