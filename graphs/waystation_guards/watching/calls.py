"""What guards are told of a model or tool call, and how it is read from what LangChain tells callbacks."""

from __future__ import annotations

import json
from asyncio import AbstractEventLoop
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final, Literal, cast
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig

from waystation_guards.calls import WRAPPER, CallSite, current_config, model_named, site_of
from waystation_guards.ports import Ports, ports_of

Made = Literal["made", "failed", "cancelled", "not made"]

_NO_TEXT: Final = ("type", "id", "index", "data", "base64", "url", "mime_type", "signature")
"""Members of content blocks that are not made of tokens, or not of as many as they have characters."""


@dataclass(slots=True, eq=False)
class ModelCall:
    """A call of a chat model, before, while and after it is made. `id` is the id of LangChain's run."""

    id: str
    site: CallSite
    ports: Ports
    model: str
    provider: str
    messages: Sequence[BaseMessage]
    params: Mapping[str, Any]
    began: float = field(default_factory=monotonic)
    streamed_chunks: int = 0
    """Pieces of the answer that came with something in them: of most providers a token each."""
    streamed_chars: int = 0
    answered_chars: int = 0
    usage: Mapping[str, Any] | None = None
    """What the provider says it was; None where it says nothing."""
    message: AIMessage | None = None
    """The answer, once it is there whole."""
    response: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The `response_metadata` of the answer: the provider's headers too, where the model was told to include them."""
    error: BaseException | None = None
    held: dict[int, Any] = field(default_factory=dict[int, Any])
    """What guards keep about the call, by their own id()."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def streamed(self, how: str, chars: int) -> None:
        """Count a piece. One call may be told of in tokens and in events: the larger count is right."""
        pieces, before = self.counts.get(how, (0, 0))
        self.counts[how] = pieces + 1, before + chars
        self.streamed_chunks = max(pieces + 1, self.streamed_chunks)
        self.streamed_chars = max(before + chars, self.streamed_chars)

    @property
    def max_tokens(self) -> int | None:
        """The most the model may answer with, if the program said so."""
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "ls_max_tokens"):
            if isinstance(value := self.params.get(name), int) and value > 0:
                return value
        return None


@dataclass(slots=True, eq=False)
class ToolCall:
    """A call of a tool."""

    id: str
    site: CallSite
    ports: Ports
    name: str
    arguments: Mapping[str, Any]
    began: float = field(default_factory=monotonic)
    error: BaseException | None = None
    held: dict[int, Any] = field(default_factory=dict[int, Any])


def model_call(
    messages: Sequence[BaseMessage], run_id: UUID, told: Mapping[str, Any], *, config: RunnableConfig | None, run: str
) -> ModelCall:
    """The call that `on_chat_model_start` told of. `config` is the watcher's, for calls outside of any graph.

    The model's name is what the model itself says. Metadata is the caller's, who might like a cheaper one.
    """
    metadata = cast("Mapping[str, Any]", told.get("metadata") or {})
    invocation = cast("Mapping[str, Any]", told.get("invocation_params") or {})
    here = current_config() or config
    return ModelCall(
        id=str(run_id),
        site=_site(here, metadata, run),
        ports=ports_of(here),
        model=model_named(invocation, metadata),
        provider=str(metadata.get("ls_provider") or ""),
        messages=messages,
        params={**metadata, **invocation},
    )


def tool_call(
    serialized: Mapping[str, Any] | None,
    run_id: UUID,
    told: Mapping[str, Any],
    *,
    config: RunnableConfig | None,
    run: str,
) -> ToolCall:
    """The call that `on_tool_start` told of."""
    here = current_config() or config
    return ToolCall(
        id=str(run_id),
        site=_site(here, cast("Mapping[str, Any]", told.get("metadata") or {}), run),
        ports=ports_of(here),
        name=str((serialized or {}).get("name") or told.get("name") or ""),
        arguments=cast("Mapping[str, Any]", told.get("inputs") or {}),
    )


def home_of(call: ModelCall | ToolCall, otherwise: AbstractEventLoop | None) -> AbstractEventLoop | None:
    """The loop on which the guards of a call are to be asked."""
    return call.ports.loop or otherwise


def is_wrapper(told: Mapping[str, Any]) -> bool:
    """Whether a model only passes the call on to others, whose calls are told of themselves."""
    params = cast("Mapping[str, Any]", told.get("invocation_params") or {})
    return str(params.get("_type", "")).startswith(WRAPPER)


def usage_of(response: LLMResult) -> Mapping[str, Any] | None:
    """The usage metadata of an answer; None where there is none, or where all of it is zero."""
    for message in _messages(response):
        used = message.usage_metadata
        if used and any(used.get(name) for name in ("input_tokens", "output_tokens")):
            return cast("Mapping[str, Any]", used)
    return None


def is_cache_hit(response: LLMResult) -> bool:
    """Whether one of LangChain's caches answered: it then says that the call cost nothing. Nobody was called."""
    generations = [one for some in response.generations for one in some]
    messages = list(_messages(response))
    return bool(generations) and len(messages) == len(generations) and all(_is_free(message) for message in messages)


def answer(response: LLMResult) -> dict[str, Any]:
    """What an answer says of the call: its usage, its message and metadata, and how long it is."""
    message = next(iter(_messages(response)), None)
    texts = sum(len(one.text) for some in response.generations for one in some)
    made = [call for message in _messages(response) for call in message.tool_calls]
    calls = sum(len(one["name"]) + len(json.dumps(one["args"], default=str, ensure_ascii=False)) for one in made)
    metadata = {} if message is None else message.response_metadata
    return {
        "usage": usage_of(response),
        "message": message,
        "answered_chars": texts + calls,
        "response": cast("dict[str, Any]", metadata),
    }


def size_of_chunk(token: Any, chunk: Any) -> int:
    """The characters of a streamed piece: text, reasoning, and the arguments of tool calls."""
    message = getattr(chunk, "message", None)
    if message is None:
        return len(token) if isinstance(token, str) else _size(token)
    calls = sum(len(str(one.get("args") or "")) for one in getattr(message, "tool_call_chunks", ()))
    return _size(message.content) + calls + _size(message.additional_kwargs.get("reasoning_content"))


def size_of_event(event: Mapping[str, Any]) -> int:
    """The characters of an event of LangChain's event protocol."""
    return _size(event.get("delta")) if event.get("event") == "content-block-delta" else 0


def _site(config: RunnableConfig | None, metadata: Mapping[str, Any], run: str) -> CallSite:
    site = site_of(config or {"metadata": dict(metadata)})
    return site if site.run else replace(site, run=run)


def _messages(response: LLMResult) -> Iterator[AIMessage]:
    for generation in (one for some in response.generations for one in some):
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            yield generation.message


def _is_free(message: AIMessage) -> bool:
    return cast("Mapping[str, Any]", message.usage_metadata or {}).get("total_cost") == 0


def _size(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, Mapping):
        block = cast("Mapping[str, Any]", content)
        return sum(_size(value) for name, value in block.items() if name not in _NO_TEXT)
    if isinstance(content, Sequence):
        return sum(_size(block) for block in cast("Sequence[Any]", content))
    return 0
