"""Streams that have to come to their end: what stops before it is an error, and not a short answer.

    model = with_whole_streams(ChatOpenAI(model="gpt-5-mini"))        the same model, of the same class

    no finish reason     ─▶ StreamBroken: the provider, or something before it, closed the stream as if it were done
    half a tool call     ─▶ StreamBroken: LangChain would complete the JSON by guessing, and the tool would run
    silence              ─▶ StreamTimeout, by phase: before the first token, between two, or of the whole

Clients take all of these for success, or wait. What was streamed until then is counted for the bill by watchers, which
hear of every chunk, and by `Progress`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any, Final, Literal, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from waystation_guards.budget.estimates import counted_usage
from waystation_guards.errors import StreamBroken
from waystation_guards.providers.errors import classify
from waystation_guards.providers.stream_watchdog import Watchdog

M = TypeVar("M", bound=BaseChatModel)
Piece = TypeVar("Piece", ChatGenerationChunk, AIMessageChunk)

Phase = Literal["first_token", "between_tokens", "whole"]

_ENDS: Final = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
_NO_END: Final = frozenset(("in_progress", "queued"))
_TELLING: Final = frozenset(("BaseChatOpenAI", "ChatAnthropic"))
"""Classes of models whose streams always tell why they ended, subclasses included (Azure's, and compatible ones)."""

_TEXTS: Final = ("text", "thinking", "reasoning", "refusal")

_RULES: Final = "_whole_stream_rules"


class StreamTimeout(TimeoutError):
    """A stream was silent, or took, too long. `phase` says where, `tokens` how many pieces had come."""

    def __init__(self, phase: Phase, seconds: float, *, tokens: int = 0) -> None:
        waited = {"first_token": "for the first token", "between_tokens": "for the next token", "whole": "in all"}
        super().__init__(f"the model took longer than {seconds:g} s {waited[phase]}")
        self.phase = phase
        self.seconds = seconds
        self.tokens = tokens


@dataclass(frozen=True, slots=True)
class StreamRules:
    """How long a stream may take, in seconds, and whether it has to tell its end; None is without a limit.

    `first_token_s` lasts until something is in a chunk: what providers send while a model thinks does not count. The
    times are kept to in streams that are awaited; in those that block, only the HTTP client can end a silence, by its
    own times (`providers` sets them).
    `needs_end`: None for what is known of the model: OpenAI's, Azure's, compatible endpoints' and Anthropic's do.
    """

    first_token_s: float | None = 60.0
    between_tokens_s: float | None = 30.0
    whole_s: float | None = 600.0
    needs_end: bool | None = None


class Progress:
    """What of a stream has come, and whether it may end now."""

    __slots__ = ("_arguments", "chars", "has_begun", "has_ended", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        """Pieces with something in them: of most providers a token each."""
        self.chars = 0
        self.has_begun = False
        self.has_ended = False
        self._arguments: dict[Any, str] | None = None

    def note(self, piece: ChatGenerationChunk | AIMessageChunk) -> None:
        """Take a piece into account."""
        self.has_begun = True
        if isinstance(piece, ChatGenerationChunk):
            message, told = piece.message, piece.generation_info
        else:
            message, told = piece, None
        content: Any = message.content
        size = len(content) if isinstance(content, str) else _size(content)
        if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
            size += self._note_calls(message)
        if size:
            self.tokens += 1
            self.chars += size
        if not self.has_ended and (told or message.response_metadata):
            self.has_ended = _tells_end(told) or _tells_end(message.response_metadata)

    def check(self, *, needs_end: bool) -> None:
        """To be called when nothing more comes. Of a stream without any piece LangChain itself says that it is none.

        Raises:
            StreamBroken: it is not the end, or a tool call stops in the middle.
        """
        if needs_end and self.has_begun and not self.has_ended:
            raise StreamBroken(f"the model's stream stopped after {self.tokens} tokens without its end")
        for arguments in (self._arguments or {}).values():
            if not _is_whole(arguments):
                raise StreamBroken("the model's stream stopped in the middle of a tool call's arguments")

    def usage(self, prompt_tokens: int) -> dict[str, Any]:
        """Usage metadata by counting, for a stream whose provider had no time to tell it."""
        return counted_usage(prompt_tokens, chunks=self.tokens, chars=self.chars)

    def _note_calls(self, message: AIMessageChunk) -> int:
        known = self._arguments = self._arguments or {}
        size = 0
        for call in message.tool_call_chunks:
            at, arguments = call.get("index"), call.get("args") or ""
            known[at] = known.get(at, "") + arguments
            size += len(arguments)
        return size


async def whole_astream(
    pieces: AsyncIterator[Piece], rules: StreamRules, *, needs_end: bool, progress: Progress | None = None
) -> AsyncIterator[Piece]:
    """The pieces, held to the rules. The source is closed however this ends.

    Raises:
        StreamBroken: the source ended before the stream did.
        StreamTimeout: a time of the rules is over.
    """
    seen = progress or Progress()
    clock = asyncio.get_running_loop().time
    end = None if rules.whole_s is None else clock() + rules.whole_s
    silence = None if rules.first_token_s is None else clock() + rules.first_token_s
    watchdog = Watchdog()
    try:
        while True:
            try:
                piece = await watchdog.within(_earlier(silence, end), anext(pieces))
            except StopAsyncIteration:
                break
            except Exception as error:
                if _is_timeout(error):
                    raise _timeout(rules, seen, is_whole=end is not None and clock() >= end) from error
                raise
            seen.note(piece)
            if seen.tokens:
                silence = None if rules.between_tokens_s is None else clock() + rules.between_tokens_s
            yield piece
    finally:
        watchdog.close()
        if (close := getattr(pieces, "aclose", None)) is not None:
            await close()
    seen.check(needs_end=needs_end)


def whole_stream(
    pieces: Iterator[Piece], rules: StreamRules, *, needs_end: bool, progress: Progress | None = None
) -> Iterator[Piece]:
    """As `whole_astream`, for streams that block: of the times only `whole_s` is looked at, when a piece comes."""
    seen = progress or Progress()
    end = None if rules.whole_s is None else monotonic() + rules.whole_s
    try:
        while (piece := _next(pieces, rules, seen)) is not None:
            if end is not None and monotonic() >= end:
                raise _timeout(rules, seen, is_whole=True)
            seen.note(piece)
            yield piece
    finally:
        if (close := getattr(pieces, "close", None)) is not None:
            close()
    seen.check(needs_end=needs_end)


def with_whole_streams(
    model: M, rules: StreamRules | None = None, *, stream_params: Mapping[str, Any] | None = None
) -> M:
    """The same model, of the same class, whose streams have to come to their end; the one given is left as it is.

    What it binds (tools, structured output) and how callbacks hear of it stay the same: it is no model around another.
    `stream_params`: parameters for calls that stream and block, such as a client's timeout for these.
    """
    rules = rules or StreamRules()
    needs_end = tells_its_end(model) if rules.needs_end is None else rules.needs_end
    made = cast("Any", model.model_copy())
    made.__dict__[_RULES] = (rules, needs_end, dict(stream_params or {}))
    made.__class__ = _whole_class(type(model))
    return made


def tells_its_end(model: BaseChatModel) -> bool:
    """Whether it is known that streams of such a model always say why they ended."""
    return any(cls.__name__ in _TELLING for cls in type(model).__mro__)


class _WholeStreams:
    """What `with_whole_streams` puts before a model's class."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        rules, needs_end, params = self.__dict__[_RULES]
        pieces = cast("Any", super())._stream(*args, **{**params, **kwargs})
        return whole_stream(pieces, rules, needs_end=needs_end)

    def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        rules, needs_end, _ = self.__dict__[_RULES]
        return whole_astream(cast("Any", super())._astream(*args, **kwargs), rules, needs_end=needs_end)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        rules, _, _ = self.__dict__[_RULES]
        limit = asyncio.timeout(rules.whole_s)
        try:
            async with limit:
                return await cast("Any", super())._agenerate(*args, **kwargs)
        except TimeoutError as error:
            if limit.expired():
                # Of an answer that is not streamed nobody knows how far the provider was: it has no phase.
                raise TimeoutError(f"the model took longer than {rules.whole_s:g} s to answer") from error
            raise


@lru_cache(maxsize=256)
def _whole_class(cls: type[Any]) -> type[Any]:
    if issubclass(cls, _WholeStreams):
        return cls
    members: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    if cls._stream is BaseChatModel._stream:  # pyright: ignore[reportPrivateUsage]: what LangChain tells by
        members["_stream"] = BaseChatModel._stream  # pyright: ignore[reportPrivateUsage]
        if cls._astream is BaseChatModel._astream:  # pyright: ignore[reportPrivateUsage]
            members["_astream"] = BaseChatModel._astream  # pyright: ignore[reportPrivateUsage]
    make: Any = type(cls)
    return make(cls.__name__, (_WholeStreams, cls), members)


def _size(content: Any) -> int:
    """The characters of a list of blocks; arguments of tool calls are counted where LangChain has put them."""
    if not isinstance(content, list):
        return 0
    blocks = [cast("dict[str, Any]", one) for one in cast("list[Any]", content) if isinstance(one, dict)]
    return sum(len(str(block.get(name) or "")) for block in blocks for name in _TEXTS)


def _next(pieces: Iterator[Piece], rules: StreamRules, seen: Progress) -> Piece | None:
    try:
        return next(pieces, None)
    except Exception as error:
        if _is_timeout(error):
            raise _timeout(rules, seen, is_whole=False) from error
        raise


def _is_timeout(error: Exception) -> bool:
    """Whether the watchdog, or the HTTP client, waited in vain."""
    if isinstance(error, StreamTimeout):
        return False
    failure = classify(error)
    return failure.kind == "timeout" and failure.status is None


def _tells_end(told: Mapping[str, Any] | None) -> bool:
    return bool(told) and any(told.get(name) and told[name] not in _NO_END for name in _ENDS)


def _is_whole(arguments: str) -> bool:
    try:
        json.loads(arguments or "{}")
    except ValueError:
        return False
    return True


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _timeout(rules: StreamRules, seen: Progress, *, is_whole: bool) -> StreamTimeout:
    phase: Phase = "whole" if is_whole else "between_tokens" if seen.tokens else "first_token"
    seconds = {"whole": rules.whole_s, "between_tokens": rules.between_tokens_s, "first_token": rules.first_token_s}
    return StreamTimeout(phase, seconds[phase] or 0.0, tokens=seen.tokens)
