"""OpenAI's chat completions, as OpenAI, Azure and everybody's compatible endpoints speak them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .turn import Asked, Event, Turn, input_tokens, sse, text_of

_FINISH: Final = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "refusal": "content_filter"}

ERRORS: Final[Mapping[str, tuple[str, str | None, str]]] = {
    "rate_limit": ("tokens", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    "quota": ("insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan."),
    "request_timeout": ("timeout", None, "Request timed out."),
    "conflict": ("conflict", None, "The request conflicts with another one."),
    "server_error": ("server_error", None, "The server had an error while processing your request."),
    "bad_gateway": ("server_error", None, "Bad gateway."),
    "unavailable": ("server_error", None, "The engine is currently overloaded, please try again later."),
    "gateway_timeout": ("server_error", None, "Gateway timeout."),
    "overloaded": ("overloaded_error", None, "The model is overloaded."),
    "context": (
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    ),
    "content_policy": (
        "invalid_request_error",
        "content_filter",
        "The response was filtered due to the prompt triggering the content management policy.",
    ),
    "bad_request": ("invalid_request_error", None, "Invalid value for 'temperature'."),
    "auth": ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "permission": ("invalid_request_error", None, "You are not allowed to use this model."),
    "not_found": ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access."),
    "too_large": ("invalid_request_error", None, "The request is too large."),
}
"""Type, code and message."""


class ChatCompletions:
    """`POST …/chat/completions`."""

    name = "openai"

    def asked(self, body: Mapping[str, Any], model: str | None) -> Asked:
        texts = [text_of(message.get("content")) + message["role"] for message in body["messages"]]
        return Asked(
            model=str(body.get("model") or model or ""),
            stream=bool(body.get("stream")),
            wants_usage=bool(body.get("stream_options") and body["stream_options"].get("include_usage")),
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            input_tokens=input_tokens(texts, body.get("tools")),
            body=body,
        )

    def whole(self, turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(turn.words) or None, "refusal": None}
        if turn.calls:
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": "".join(pieces)}}
                for id_, name, pieces in turn.calls
            ]
        finish = None if turn.plan.fault in ("no_end", "no_finish") else _FINISH[turn.finish]
        choices = [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}]
        answer = {**_frame(turn, "chat.completion"), "choices": [] if turn.plan.fault == "empty" else choices}
        return answer if turn.plan.usage == "never" else {**answer, "usage": usage(turn)}

    def events(self, turn: Turn) -> Iterator[Event]:
        yield _chunk(turn, {"role": "assistant", "content": ""})
        for word in turn.words:
            yield _chunk(turn, {"content": word}, tokens=1)
        for place, (id_, name, pieces) in enumerate(turn.calls):
            call = {"index": place, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
            yield _chunk(turn, {"tool_calls": [call]})
            for piece in pieces:
                yield _chunk(turn, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}, tokens=1)
        yield _chunk(turn, {}, finish=_FINISH[turn.finish])
        if turn.plan.usage == "always" or (turn.plan.usage == "asked" and turn.asked.wants_usage):
            last: dict[str, Any] = {**_frame(turn, "chat.completion.chunk"), "choices": [], "usage": usage(turn)}
            yield Event(sse(last), is_end=True)
        yield Event(sse("[DONE]"), is_end=True, is_mark=True)

    def error(self, kind: str, message: str | None = None) -> dict[str, Any]:
        type_, code, text = ERRORS[kind]
        return {"error": {"message": message or text, "type": type_, "param": None, "code": code}}

    def error_event(self, kind: str) -> bytes:
        return sse({"error": {"message": f"The stream failed: {kind}", "type": kind, "param": None, "code": kind}})


def usage(turn: Turn) -> dict[str, Any]:
    """The usage of chat completions."""
    return {
        "prompt_tokens": turn.asked.input_tokens,
        "completion_tokens": turn.tokens,
        "total_tokens": turn.asked.input_tokens + turn.tokens,
        "prompt_tokens_details": {"cached_tokens": turn.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": turn.plan.reasoning, "audio_tokens": 0},
    }


def _frame(turn: Turn, kind: str) -> dict[str, Any]:
    return {"id": turn.id, "object": kind, "created": 1_760_000_000, "model": turn.asked.model}


def _chunk(turn: Turn, delta: dict[str, Any], *, tokens: int = 0, finish: str | None = None) -> Event:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    data = {**_frame(turn, "chat.completion.chunk"), "choices": [choice]}
    return Event(sse(data), tokens, is_end=finish is not None)
