"""An answer over as many tries as it takes: the pieces that callers see, whole and each of them once.

try ─▶ pieces, shown as they come ─▶ checked at the end ─▶ the last chunk says who answered and what failed before
         └─ breaks ─▶ nothing shown: another try, unseen
                     shown: continue, restart (`Retracted`) or fail (`StreamBroken`)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk

from waystation_guards.errors import AllTargetsFailed, GuardError, StreamBroken
from waystation_guards.failover.course import Course
from waystation_guards.failover.ending import Ending
from waystation_guards.failover.errors import MalformedAnswer
from waystation_guards.failover.hedging import Latencies, Lost, race
from waystation_guards.failover.stream import MARK, Seam, Shown
from waystation_guards.failover.targets import Target
from waystation_guards.failover.tries import Question, Try
from waystation_guards.telling import tell


class Retracted(StreamBroken):
    """What was shown is taken back, and the answer begins again as another message, on the rest of the course."""

    def __init__(self, message: str, course: Course) -> None:
        super().__init__(message)
        self.course = course


async def whole(course: Course, question: Question, times: Latencies) -> AIMessage:
    """An answer in one piece. Raises as `pieces`."""

    def asked(_: Target) -> Question:
        return question

    while True:
        one = await course.next_try(asked)
        try:
            one = await _started(course, one, asked, times)
            ending, answer = Ending(one.target.provider), None
            async for answer in one.pieces():
                ending.note(answer)
            _check(course, ending, streamed=False)
        except Lost as lost:
            await course.failed(lost.contender, lost.error)
            continue
        except Exception as error:
            await course.failed(one, error)
            continue
        finally:
            await one.close()
        await course.succeeded(one)
        metadata = {**cast("AIMessage", answer).response_metadata, MARK: course.told(one.target)}
        return cast("AIMessage", answer).model_copy(update={"response_metadata": metadata})


async def pieces(course: Course, question: Question, times: Latencies) -> AsyncIterator[AIMessageChunk]:
    """The chunks of an answer; the last one says what happened (`response_metadata["failover"]`).

    Raises:
        AllTargetsFailed: no target answered.
        StreamBroken: tokens had been shown, and the policy does not go on, or cannot.
        Retracted: tokens had been shown, and the answer is to be begun again.
        Exception: the error of a target that no other target changes.
    """
    shown = Shown()

    def asked(target: Target) -> Question:
        if shown.is_empty:
            return question
        return replace(question, messages=shown.messages(question.messages, prefill=target.prefill))

    if course.replaces is not None:
        yield AIMessageChunk(content="", response_metadata={"failover_replaces": course.replaces})
    while True:
        try:
            one = await course.next_try(asked)
        except AllTargetsFailed as error:
            raise error if shown.is_empty else _broken(error) from error
        ending, failure, goes_on = Ending(one.target.provider), None, not shown.is_empty
        try:
            one = await _started(course, one, asked, times)
            ending.provider = one.target.provider
            async with aclosing(cast("Any", _shown(one, shown, ending))) as seen:
                async for chunk in seen:
                    yield chunk
            _check(course, ending, streamed=True, goes_on=goes_on)
        except Lost as lost:
            one, failure = lost.contender, lost.error
        except Exception as error:
            failure = error
        finally:
            await one.close()
        if failure is None:
            await course.succeeded(one)
            yield _last(course, one, ending)
            return
        if shown.is_empty or _is_refusal(failure):
            await course.failed(one, failure)
            continue
        yield await _mark_after_break(course, one, failure, shown)
        if not _goes_on(course, shown):
            raise Retracted("the stream broke and begins again", course)


async def _started(course: Course, one: Try, asked: Any, times: Latencies) -> Try:
    """The try whose first token came: this one, or its hedge."""
    hedge = course.policy.hedge
    if hedge is None or len(course.targets) < 2:
        times.note(one.target.name, await one.first())
        return one

    async def second() -> Try | None:
        times.note(one.target.name, delay)
        return await course.hedge(asked)

    delay = times.delay_s(one.target.name, hedge)
    winner, seconds = await race(one, second, delay_s=delay, on_failed=course.note_failure)
    times.note(winner.target.name, seconds)
    return winner


async def _shown(one: Try, shown: Shown, ending: Ending) -> AsyncIterator[AIMessageChunk]:
    """A try's pieces as callers see them."""
    seam = None if shown.is_empty else Seam(shown.text)
    last: AIMessageChunk | None = None
    async with aclosing(cast("Any", one.pieces())) as found:
        async for piece in found:
            ending.note(piece)
            chunk = _as_chunk(piece)
            if seam is not None:
                last = chunk
                chunk = shown.formed(chunk, _new(seam, str(piece.text), shown))
            if chunk.content or chunk.tool_call_chunks or chunk.usage_metadata or chunk.additional_kwargs:
                shown.note(chunk)
                yield chunk
    if seam is not None and last is not None and (rest := _new(seam, None, shown)):
        chunk = shown.formed(last.model_copy(update={"usage_metadata": None, "tool_call_chunks": []}), rest)
        shown.note(chunk)
        yield chunk


def _new(seam: Seam, text: str | None, shown: Shown) -> str:
    """What a continuation adds. One that does not go on cannot be asked for again: the answer is restarted."""
    try:
        return seam.rest() if text is None else seam.cut(text)
    except MalformedAnswer:
        shown.has_more = True
        raise


def _as_chunk(piece: AIMessage) -> AIMessageChunk:
    """A piece without what only the last one says, and without its try's id: the message is the failover's."""
    provider = piece.response_metadata.get("model_provider")
    update = {"id": None, "response_metadata": {"model_provider": provider} if provider else {}}
    if isinstance(piece, AIMessageChunk):
        return piece.model_copy(update={**update, "chunk_position": None})
    return AIMessageChunk(
        content=cast("Any", piece.content),
        additional_kwargs=piece.additional_kwargs,
        tool_calls=piece.tool_calls,
        invalid_tool_calls=piece.invalid_tool_calls,
        usage_metadata=piece.usage_metadata,
        **cast("Any", update),
    )


def _check(course: Course, ending: Ending, *, streamed: bool, goes_on: bool = False) -> None:
    """`goes_on`: it is the rest of an answer, to which there may be nothing to add."""
    try:
        ending.check(streamed=streamed)
    except MalformedAnswer as error:
        if not (error.is_empty and goes_on) and not course.accepts_empty(error):
            raise


async def _mark_after_break(course: Course, one: Try, failure: Exception, shown: Shown) -> AIMessageChunk:
    """Prepare the next try of a stream that broke after tokens were shown; the chunk that says so.

    Raises:
        StreamBroken: the policy does not go on.
    """
    breaks = course.continued + course.restarted
    if course.policy.on_break == "fail" or breaks >= course.policy.breaks:
        await course.note_failure(one, failure)
        raise _broken(failure) from failure
    await course.failed(one, failure, was_shown=True)
    what = course.failures[-1]
    if _goes_on(course, shown):
        course.continued += 1
        tell("failover", {"event": "continued", "shown_chars": len(shown.text), "cause": what["class"]})
        return AIMessageChunk(
            content="", response_metadata={"failover_continued": [{"after_chars": len(shown.text), **what}]}
        )
    course.restarted += 1
    course.replaces = course.message_id
    tell("failover", {"event": "retracted", "message_id": course.message_id, "cause": what["class"]})
    return AIMessageChunk(content="", response_metadata={"failover_retracted": what})


def _goes_on(course: Course, shown: Shown) -> bool:
    return course.policy.on_break == "continue" and shown.can_go_on


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, GuardError) and not isinstance(error, StreamBroken)


def _broken(cause: Exception) -> StreamBroken:
    return StreamBroken(
        "the model's stream broke after a part of the answer was shown",
        retry_after_s=getattr(cause, "retry_after_s", None),
    )


def _last(course: Course, one: Try, ending: Ending) -> AIMessageChunk:
    metadata = {name: value for name, value in ending.metadata.items() if name != "model_provider"}
    return AIMessageChunk(content="", response_metadata={**metadata, MARK: course.told(one.target)})
