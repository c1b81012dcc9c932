"""A turn as a response of OpenAI's Responses API: items that grow, and the events that tell of it.

    Words     ─▶ message                  one for each message of the graph
    ToolUsed  ─▶ mcp_call                 a tool that the server executed, with what it gave
    Asked     ─▶ mcp_approval_request     one for each action that waits for a person; other questions are a message
    calls     ─▶ function_call            what the client is to execute

Events are numbered from 0. The same run gives the same events, so that a stream can be read again from any number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from waystation.api.openai_completion import finish_reason, note
from waystation.runs.chat_answers import actions_of, approval_id, question_of
from waystation.runs.chat_messages import Call
from waystation.runs.chat_turn import Asked, Ended, Progress, ToolUsed, Usage, Words
from waystation_db.json import dumps
from waystation_db.rows import RunKey

JSONObject = dict[str, Any]
Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]

_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a response says of its request."""

    id: str
    key: RunKey
    model: str
    created_at: int
    server_label: str
    background: bool = False
    store: bool = True
    instructions: str | None = None
    previous_response_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    echoed: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def show(
        self, status: Status, output: list[JSONObject], ended: Ended | None = None, *, completed_at: int | None = None
    ) -> JSONObject:
        """The response object."""
        incomplete = _REASONS.get(finish_reason(ended)) if ended is not None and status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": completed_at,
            "status": status,
            "background": self.background,
            "error": _error(ended) if ended is not None and status == "failed" else None,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "instructions": self.instructions,
            "max_output_tokens": self.echoed.get("max_output_tokens"),
            "metadata": dict(self.metadata),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": self.echoed.get("parallel_tool_calls", True),
            "previous_response_id": self.previous_response_id,
            "store": self.store,
            "temperature": self.echoed.get("temperature"),
            "text": self.echoed.get("text") or {"format": {"type": "text"}},
            "tool_choice": self.echoed.get("tool_choice") or "auto",
            "tools": self.echoed.get("tools") or [],
            "top_p": self.echoed.get("top_p"),
            "truncation": self.echoed.get("truncation") or "disabled",
            "usage": _usage(ended.usage) if ended is not None and ended.status is not None else None,
            "user": self.echoed.get("user"),
            "waystation": note(self.key, ended),
        }


def status_of(ended: Ended) -> Status:
    """What became of a response."""
    match ended.status:
        case "success":
            return "incomplete" if finish_reason(ended) in _REASONS else "completed"
        case "error" | "timeout":
            return "failed"
        case "interrupted" | None:
            return "cancelled"


class Response:
    """A response while it grows. Each method gives the events of what it adds."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._output: list[JSONObject] = []
        self._speaking: str | None = None
        self._text: list[str] = []
        self._number = 0

    def start(self) -> Iterator[JSONObject]:
        """The first events."""
        yield self._event("response.created", response=self._head.show("in_progress", []))
        yield self._event("response.in_progress", response=self._head.show("in_progress", []))

    def add(self, progress: Progress, *, now: int) -> Iterator[JSONObject]:
        """What happened next; an end closes the response."""
        match progress:
            case Words():
                yield from self._say(progress)
            case ToolUsed():
                yield from self._hush()
                yield from self._use(progress)
            case Ended():
                yield from self._hush()
                if progress.status == "success":
                    yield from self._ask(progress.asked)
                    for call in progress.calls:
                        yield from self._call(call)
                shown = self.show(progress, now=now)
                kind = {"completed": "completed", "failed": "failed"}.get(shown["status"], "incomplete")
                yield self._event(f"response.{kind}", response=shown)

    def show(self, ended: Ended | None, *, now: int | None = None, status: Status | None = None) -> JSONObject:
        """The response as it is."""
        if ended is None or status is not None:
            return self._head.show(status or "in_progress", list(self._output), ended)
        result = status_of(ended)
        return self._head.show(result, list(self._output), ended, completed_at=now if result == "completed" else None)

    def _say(self, words: Words) -> Iterator[JSONObject]:
        if self._speaking != words.message_id:
            yield from self._hush()
            self._speaking, self._text = words.message_id, []
            item = _message(words.message_id, None)
            self._output.append(item)
            yield self._item_event("response.output_item.added", item=item)
            yield self._part_event("response.content_part.added", part=text_part(""))
        self._text.append(words.text)
        yield self._part_event("response.output_text.delta", delta=words.text, logprobs=[])

    def _hush(self) -> Iterator[JSONObject]:
        """Close the message that is being said."""
        if self._speaking is None:
            return
        text = "".join(self._text)
        yield self._part_event("response.output_text.done", text=text, logprobs=[])
        yield self._part_event("response.content_part.done", part=text_part(text))
        self._output[-1] = _message(self._speaking, text)
        self._speaking = None
        yield self._item_event("response.output_item.done", item=self._output[-1])

    def _use(self, used: ToolUsed) -> Iterator[JSONObject]:
        item: JSONObject = {
            "type": "mcp_call",
            "id": f"mcp_{used.call.id}",
            "name": used.call.name,
            "server_label": self._head.server_label,
            "arguments": used.call.arguments,
            "output": None if used.failed else used.output,
            "error": {"type": "mcp_tool_execution_error", "content": used.output} if used.failed else None,
            "status": "failed" if used.failed else "completed",
        }
        begun = {**item, "arguments": "", "output": None, "error": None, "status": "in_progress"}
        self._output.append(begun)
        yield self._item_event("response.output_item.added", item=begun)
        yield self._own_event("response.mcp_call.in_progress")
        yield self._own_event("response.mcp_call_arguments.delta", delta=used.call.arguments)
        yield self._own_event("response.mcp_call_arguments.done", arguments=used.call.arguments)
        yield self._own_event(f"response.mcp_call.{item['status']}")
        self._output[-1] = item
        yield self._item_event("response.output_item.done", item=item)

    def _ask(self, questions: Iterable[Asked]) -> Iterator[JSONObject]:
        for asked in questions:
            actions = actions_of(asked.value)
            if not actions:
                yield from self._say(Words(f"question-{asked.id}", question_of(asked)))
                yield from self._hush()
            for at, action in enumerate(actions):
                yield from self._whole(
                    {
                        "type": "mcp_approval_request",
                        "id": approval_id(asked, at),
                        "name": str(action.get("name")),
                        "server_label": self._head.server_label,
                        "arguments": dumps(action.get("args") or {}).decode(),
                    }
                )

    def _call(self, call: Call) -> Iterator[JSONObject]:
        item = {
            "type": "function_call",
            "id": f"fc_{call.id}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        begun = {**item, "arguments": "", "status": "in_progress"}
        self._output.append(begun)
        yield self._item_event("response.output_item.added", item=begun)
        yield self._own_event("response.function_call_arguments.delta", delta=call.arguments)
        yield self._own_event("response.function_call_arguments.done", name=call.name, arguments=call.arguments)
        self._output[-1] = item
        yield self._item_event("response.output_item.done", item=item)

    def _whole(self, item: JSONObject) -> Iterator[JSONObject]:
        self._output.append(item)
        yield self._item_event("response.output_item.added", item=item)
        yield self._item_event("response.output_item.done", item=item)

    def _event(self, kind: str, **members: Any) -> JSONObject:
        event = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return event

    def _item_event(self, kind: str, **members: Any) -> JSONObject:
        return self._event(kind, output_index=len(self._output) - 1, **members)

    def _own_event(self, kind: str, **members: Any) -> JSONObject:
        return self._item_event(kind, item_id=self._output[-1]["id"], **members)

    def _part_event(self, kind: str, **members: Any) -> JSONObject:
        return self._own_event(kind, content_index=0, **members)


def _message(message_id: str, text: str | None) -> JSONObject:
    """A message item; without text one that has begun."""
    return {
        "type": "message",
        "id": f"msg_{message_id}",
        "role": "assistant",
        "status": "in_progress" if text is None else "completed",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> JSONObject:
    """What was said, as a part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> JSONObject:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def _error(ended: Ended) -> JSONObject:
    error = ended.error or {}
    return {"code": "server_error", "message": f"{error.get('error', 'Error')}: {error.get('message', '')}"}
