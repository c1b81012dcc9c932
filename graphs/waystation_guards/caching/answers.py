"""A model's answer in a cache: which ones are worth keeping, as bytes, and how one is given again.

Kept is what ended as the model meant it to: not what was cut, refused, filtered, malformed or empty, and nothing of a
provider that always says why it stopped and here did not, for then its stream broke.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import uuid4

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    message_chunk_to_message,
    message_to_dict,
    messages_from_dict,
)

from waystation_guards.caps.broken_calls import has_broken_call

MARK: Final = "waystation_cache"
"""The member of an answer's `response_metadata` that says that it is from a cache, and what that saved."""

_FORMAT: Final = 1
_ENDS: Final = frozenset(
    ("stop", "end_turn", "tool_calls", "tool_use", "stop_sequence", "function_call", "completed", "complete")
)
_END_NAMES: Final = ("finish_reason", "stop_reason", "done_reason", "stopReason", "status")
_ALWAYS_SAY: Final = frozenset(
    (
        "openai",
        "azure",
        "azure_openai",
        "anthropic",
        "google_genai",
        "google_vertexai",
        "amazon_bedrock",
        "mistralai",
        "groq",
        "deepseek",
        "xai",
        "ollama",
        "fireworks",
        "together",
        "openrouter",
    )
)
"""LangChain's names of providers whose complete answers name their reason to stop."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was kept. `cost_nano_usd`: what it came to when it was made; None for a model without a price."""

    message: AIMessage
    model: str
    provider: str
    cost_nano_usd: int | None

    @property
    def tokens(self) -> int:
        return int((self.message.usage_metadata or {}).get("total_tokens") or 0)


def why_not_kept(message: AIMessage, provider: str) -> str | None:
    """The reason not to keep an answer; None for one that is worth it."""
    told = message.response_metadata
    ends = [str(told[name]).lower() for name in _END_NAMES if told.get(name)]
    if any(end not in _ENDS for end in ends):
        return f"it ended with {ends[0]}"
    if not ends and provider in _ALWAYS_SAY:
        return "it does not say why it ended"
    if has_broken_call(message):
        return "a tool call of it is malformed"
    if message.additional_kwargs.get("refusal") or any(_kind(block) == "refusal" for block in message.content):
        return "it is a refusal"
    if not message.tool_calls and not message.content:
        return "it is empty"
    return None


def encode(answer: Answer) -> bytes:
    """An answer as bytes.

    Raises:
        TypeError: it holds what is no JSON.
    """
    message = answer.message
    if isinstance(message, AIMessageChunk):
        message = cast("AIMessage", message_chunk_to_message(message))
    # An id that LangChain made is of the run; one of the provider's own would be twice in a thread.
    plain = message_to_dict(message.model_copy(update={"id": None}))
    members = {"format": _FORMAT, "model": answer.model, "provider": answer.provider, "cost": answer.cost_nano_usd}
    return json.dumps({**members, "message": plain}, separators=(",", ":")).encode()


def decode(data: bytes) -> Answer | None:
    """An answer from bytes; None if another version of this program wrote them."""
    try:
        kept = json.loads(data)
        if kept["format"] != _FORMAT:
            return None
        (message,) = messages_from_dict([kept["message"]])
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(message, AIMessage):
        return None
    return Answer(message, str(kept["model"]), str(kept["provider"]), kept["cost"])


def given_again(answer: Answer, mark: Mapping[str, Any]) -> AIMessage:
    """The answer as a new message. Its tool calls have new ids, and its usage is marked as LangChain's caches do."""
    plain = message_to_dict(answer.message)
    ids = {str(call["id"]): f"call_{uuid4().hex[:24]}" for call in answer.message.tool_calls if call["id"]}
    message = cast("AIMessage", messages_from_dict([_with_ids(plain, ids)] if ids else [plain])[0])
    usage = {**message.usage_metadata, "total_cost": 0} if message.usage_metadata else None
    told = {**message.response_metadata, MARK: dict(mark)}
    return message.model_copy(update={"usage_metadata": usage, "response_metadata": told})


def in_pieces(message: AIMessage, *, chars: int = 24) -> Iterator[AIMessageChunk]:
    """An answer as a stream: words by and by, then its tool calls, its usage and what else it says at the end."""
    if isinstance(message.content, str):
        for text in _words(message.content, chars):
            yield AIMessageChunk(content=text)
    else:
        for block in message.content:
            yield AIMessageChunk(content=[block])
    calls = [
        {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": number}
        for number, call in enumerate(message.tool_calls)
    ]
    extra = {name: value for name, value in message.additional_kwargs.items() if name != "tool_calls"}
    yield AIMessageChunk(
        content="" if isinstance(message.content, str) else [],
        tool_call_chunks=cast("Any", calls),
        additional_kwargs=extra,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )


def _words(text: str, chars: int) -> Iterator[str]:
    piece = ""
    for word in re.findall(r"\S+\s*|\s+", text):
        piece += word
        if len(piece) >= chars:
            yield piece
            piece = ""
    if piece:
        yield piece


def _kind(block: Any) -> Any:
    return cast("dict[str, Any]", block).get("type") if isinstance(block, dict) else None


def _with_ids(value: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return ids.get(value, value)
    if isinstance(value, dict):
        return {name: _with_ids(one, ids) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_with_ids(one, ids) for one in cast("list[Any]", value)]
    return value
