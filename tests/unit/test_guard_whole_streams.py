"""Streams of scripted models: what counts as an end, what is silence, and that nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import Field

from scripted_calls import ScriptedModel
from waystation_guards.errors import StreamBroken
from waystation_guards.providers.whole_streams import (
    Progress,
    StreamRules,
    StreamTimeout,
    tells_its_end,
    whole_astream,
    whole_stream,
    with_whole_streams,
)

pytestmark = pytest.mark.anyio

HELD = StreamRules(needs_end=True)


class Pieces(BaseChatModel):
    """Streams what it is given; `None` among it is silence without end."""

    given: list[Any]
    closed: list[str] = Field(default_factory=list[str])

    @property
    def _llm_type(self) -> str:
        return "pieces"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield from (one for one in self.given if one is not None)

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            for one in self.given:
                if one is None:
                    await asyncio.Event().wait()
                else:
                    yield one
        finally:
            self.closed.append("closed")


def text(content: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content))


def arguments(part: str, *, index: int = 0) -> ChatGenerationChunk:
    call: Any = {"name": None, "args": part, "id": None, "index": index}
    return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))


def end(**told: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=""), generation_info=told)


async def read(model: Any, shown: list[str]) -> None:
    async for piece in model.astream("hi"):
        shown.append(piece.text)  # noqa: PERF401  # what was shown before an error counts


async def seen(model: Any) -> list[str]:
    return [piece.text async for piece in model.astream("hi") if piece.text]


@pytest.mark.parametrize(
    "told",
    [
        {"finish_reason": "stop"},
        {"finish_reason": "length"},
        {"stop_reason": "end_turn"},
        {"stopReason": "end_turn"},
        {"done_reason": "stop"},
        {"status": "completed"},
    ],
)
async def test_every_providers_end_is_one(told: dict[str, str]) -> None:
    model = Pieces(given=[text("a"), text("b"), end(**told)])
    assert await seen(with_whole_streams(model, HELD)) == ["a", "b"]
    assert [piece.text for piece in with_whole_streams(model, HELD).stream("hi") if piece.text] == ["a", "b"]


@pytest.mark.parametrize("told", [{}, {"status": "in_progress"}, {"finish_reason": None}, {"model_name": "m"}])
async def test_what_is_no_end_breaks_the_stream_after_what_was_shown(told: dict[str, Any]) -> None:
    model = with_whole_streams(Pieces(given=[text("a"), end(**told)]), HELD)
    shown: list[str] = []
    with pytest.raises(StreamBroken, match="after 1 tokens"):
        await read(model, shown)
    assert shown == ["a", ""]
    with pytest.raises(StreamBroken):
        list(model.stream("hi"))


async def test_a_model_of_which_nothing_is_known_need_not_tell_its_end() -> None:
    assert await seen(with_whole_streams(Pieces(given=[text("a")]))) == ["a"]
    fake = GenericFakeChatModel(messages=iter([AIMessage("a b")]))
    assert not tells_its_end(fake)
    assert "".join(await seen(with_whole_streams(fake))) == "a b"


@pytest.mark.parametrize("reason", ["tool_calls", "stop", "length"])
async def test_half_a_tool_call_is_never_handed_on_as_one(reason: str) -> None:
    model = with_whole_streams(Pieces(given=[arguments('{"path": "/home'), end(finish_reason=reason)]))
    with pytest.raises(StreamBroken, match="tool call"):
        await seen(model)


async def test_parallel_tool_calls_are_put_together_by_their_index() -> None:
    parts = [arguments('{"a"', index=0), arguments("{", index=1), arguments(": 1}", index=0), arguments("}", index=1)]
    assert await seen(with_whole_streams(Pieces(given=[*parts, arguments("", index=2), end(stop_reason="x")]))) == []


@pytest.mark.parametrize(
    ("given", "rules", "phase"),
    [
        ([None], StreamRules(first_token_s=0.01), "first_token"),
        ([text(""), None], StreamRules(first_token_s=0.01), "first_token"),
        ([text("a"), None], StreamRules(between_tokens_s=0.01), "between_tokens"),
        ([text("a"), None], StreamRules(None, None, 0.01), "whole"),
    ],
)
async def test_silence_is_told_by_where_it_is_and_closes_the_source(
    given: list[Any], rules: StreamRules, phase: str
) -> None:
    model = Pieces(given=given, closed=[])
    with pytest.raises(StreamTimeout) as caught:
        await seen(with_whole_streams(model, rules))
    assert caught.value.phase == phase
    assert model.closed == ["closed"]


async def test_a_cancelled_reader_is_cancelled_and_no_timeout() -> None:
    model = Pieces(given=[text("a"), None], closed=[])
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in with_whole_streams(model).astream("hi"):
            begun.set()

    reader = asyncio.create_task(read())
    async with asyncio.timeout(60):
        await begun.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert model.closed == ["closed"]


async def test_an_error_of_the_model_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="no"):
        await seen(with_whole_streams(ScriptedModel(fails=True), HELD))


async def test_the_model_stays_of_its_class_and_the_given_one_as_it_is() -> None:
    given = Pieces(given=[text("a")])
    made = with_whole_streams(given, HELD)
    assert type(made).__name__ == "Pieces"
    assert isinstance(made, Pieces)
    assert type(given) is Pieces
    assert await seen(given) == ["a"]
    assert type(with_whole_streams(made)) is type(made), "wrapped twice"
    assert isinstance(made.model_copy(), type(made))
    with pytest.raises(StreamBroken):
        await seen(made.model_copy())
    with pytest.raises(StreamBroken):
        await seen(made.bind(stop=["x"]))


async def test_an_answer_that_is_not_streamed_has_a_time_too() -> None:
    model = with_whole_streams(ScriptedModel(pause_s=60.0), StreamRules(whole_s=0.01))
    with pytest.raises(TimeoutError, match=r"0\.01 s to answer"):
        await model.ainvoke("hi")
    assert (await with_whole_streams(ScriptedModel()).ainvoke("hi")).text == "a b c d"


@pytest.mark.parametrize(
    ("pieces", "tokens", "chars"),
    [
        ([text(""), text("ab"), text("c"), end(finish_reason="stop")], 2, 3),
        ([arguments("{}"), arguments("")], 1, 2),
        ([text([{"type": "text", "text": "abc", "index": 0}]), text([{"type": "text", "text": ""}])], 1, 3),
        ([text([{"type": "thinking", "thinking": "hm"}])], 1, 2),
    ],
)
def test_what_came_is_counted_for_the_bill(pieces: list[ChatGenerationChunk], tokens: int, chars: int) -> None:
    progress = Progress()
    for piece in pieces:
        progress.note(piece)
    assert (progress.tokens, progress.chars) == (tokens, chars)
    assert progress.usage(10)["output_tokens"] == max(tokens, -(-chars // 4))


async def test_the_bare_form_is_for_any_source_of_pieces() -> None:
    async def source() -> AsyncIterator[AIMessageChunk]:
        yield AIMessageChunk(content="a")
        yield AIMessageChunk(content="", response_metadata={"finish_reason": "stop"})

    progress = Progress()
    pieces = [piece async for piece in whole_astream(source(), HELD, needs_end=True, progress=progress)]
    assert (len(pieces), progress.tokens, progress.has_ended) == (2, 1, True)
    with pytest.raises(StreamBroken):
        list(whole_stream(iter([AIMessageChunk(content="a")]), HELD, needs_end=True))
