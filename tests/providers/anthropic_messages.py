"""Anthropic's messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .turn import Asked, Event, Turn, input_tokens, sse, text_of

_FINISH: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal"}

_ERRORS: Final[Mapping[str, tuple[str, str]]] = {
    "rate_limit": ("rate_limit_error", "This request would exceed your organization's rate limit."),
    "quota": ("rate_limit_error", "You have reached your specified API usage limits."),
    "request_timeout": ("timeout_error", "The request timed out."),
    "conflict": ("invalid_request_error", "The request conflicts with another one."),
    "server_error": ("api_error", "Internal server error"),
    "bad_gateway": ("api_error", "Bad gateway"),
    "unavailable": ("api_error", "Service unavailable"),
    "gateway_timeout": ("timeout_error", "Gateway timeout"),
    "overloaded": ("overloaded_error", "Overloaded"),
    "context": ("invalid_request_error", "prompt is too long: 209000 tokens > 200000 maximum"),
    "content_policy": ("invalid_request_error", "Output blocked by content filtering policy"),
    "bad_request": ("invalid_request_error", "temperature: range: -1..1"),
    "auth": ("authentication_error", "invalid x-api-key"),
    "permission": ("permission_error", "Your API key does not have permission to use the specified resource."),
    "not_found": ("not_found_error", "model: claude-none"),
    "too_large": ("request_too_large", "Request exceeds the maximum size"),
}


class Messages:
    """`POST …/v1/messages`."""

    name = "anthropic"

    def asked(self, body: Mapping[str, Any], model: str | None) -> Asked:
        texts = [text_of(message.get("content")) + message["role"] for message in body["messages"]]
        if body.get("system"):
            texts.append(text_of(body["system"]) + "system")
        return Asked(
            model=str(body.get("model") or model or ""),
            stream=bool(body.get("stream")),
            wants_usage=True,
            max_tokens=body.get("max_tokens"),
            input_tokens=input_tokens(texts, body.get("tools")),
            body=body,
        )

    def whole(self, turn: Turn) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": "".join(turn.words)}] if turn.words else []
        for id_, name, pieces in turn.calls:
            text = "".join(pieces)
            try:
                arguments = json.loads(text)
            except ValueError:
                arguments = {}
            content.append({"type": "tool_use", "id": id_, "name": name, "input": arguments})
        finish = None if turn.plan.fault in ("no_end", "no_finish") else _FINISH[turn.finish]
        return {**_message(turn, content, finish), "usage": _usage(turn, turn.tokens)}

    def events(self, turn: Turn) -> Iterator[Event]:
        begun = {**_message(turn, [], None), "usage": _usage(turn, 1)}
        yield _event("message_start", message=begun)
        yield Event(sse({"type": "ping"}, "ping"))
        place = 0
        if turn.words:
            yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for word in turn.words:
                yield _event("content_block_delta", 1, index=0, delta={"type": "text_delta", "text": word})
            yield _event("content_block_stop", index=0)
            place = 1
        for id_, name, pieces in turn.calls:
            block: dict[str, Any] = {"type": "tool_use", "id": id_, "name": name, "input": {}}
            yield _event("content_block_start", index=place, content_block=block)
            for piece in pieces:
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield _event("content_block_delta", 1, index=place, delta=delta)
            yield _event("content_block_stop", index=place)
            place += 1
        delta = {"stop_reason": _FINISH[turn.finish], "stop_sequence": None}
        usage = {} if turn.plan.usage == "never" else _usage(turn, turn.tokens)
        yield _event("message_delta", end=True, delta=delta, usage=usage)
        yield _event("message_stop", end=True)

    def error(self, kind: str, message: str | None = None) -> dict[str, Any]:
        type_, text = _ERRORS[kind]
        return {"type": "error", "error": {"type": type_, "message": message or text}, "request_id": "req_1"}

    def error_event(self, kind: str) -> bytes:
        return sse({"type": "error", "error": {"type": kind, "message": "Overloaded"}}, "error")


def _message(turn: Turn, content: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    frame = {"id": f"msg_{turn.id}", "type": "message", "role": "assistant", "model": turn.asked.model}
    return {**frame, "content": content, "stop_reason": finish, "stop_sequence": None}


def _usage(turn: Turn, output: int) -> dict[str, Any]:
    if turn.plan.usage == "never":
        return {"input_tokens": 0, "output_tokens": 0}
    return {
        "input_tokens": turn.asked.input_tokens - turn.cached,
        "cache_read_input_tokens": turn.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": output,
    }


def _event(kind: str, tokens: int = 0, *, end: bool = False, **members: Any) -> Event:
    return Event(sse({"type": kind, **members}, kind), tokens, is_end=end, is_mark=kind == "message_stop")
