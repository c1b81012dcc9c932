"""What of an answer has been shown, and how it goes on after a break: continued, or retracted and begun again.

shown "The sky is bl" ─╳─▶ continue:  the next try is given that text and asked for the rest; what it repeats is cut
                       ─╳─▶ restart:   a mark takes back the message by its id, another message begins
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage

from waystation_guards.failover.errors import MalformedAnswer

MARK: Final = "failover"
"""The member of `response_metadata` in which a failover tells what it did."""

CONTINUE: Final = (
    "Your last message was cut off by a technical fault. Continue it from exactly where it stops. Do not repeat any of "
    "it, do not comment on the interruption, and write nothing before the continuation."
)

_LEAST_OVERLAP: Final = 4
_LONGEST_OVERLAP: Final = 400
_ANEW: Final = 16
"""Characters of the answer's beginning with which a continuation is taken for another beginning."""


@dataclass(slots=True)
class Shown:
    """The part of an answer that callers have seen, over all tries of one message."""

    text: str = ""
    has_more: bool = False
    """There was something besides text, which cannot be continued."""
    like: AIMessageChunk | None = None
    """A piece of the first try: those of later tries are given its form."""

    @property
    def is_empty(self) -> bool:
        return not self.text and not self.has_more

    @property
    def can_go_on(self) -> bool:
        return bool(self.text) and not self.has_more

    def note(self, piece: AIMessageChunk) -> None:
        """Remember a piece before it is shown."""
        text = str(piece.text)
        self.text += text
        if text and self.like is None:
            self.like = piece
        if piece.tool_call_chunks or has_other_blocks(piece):
            self.has_more = True

    def messages(self, asked: Sequence[BaseMessage], *, prefill: bool) -> list[BaseMessage]:
        """What to ask for the rest. `prefill`: the target goes on with an answer that it is given the beginning of."""
        if prefill:
            return [*asked, AIMessage(self.text.rstrip())]
        return [*asked, AIMessage(self.text), HumanMessage(CONTINUE)]

    def formed(self, piece: AIMessageChunk, text: str) -> AIMessageChunk:
        """A piece of a later try with this text, in the form of the first try's."""
        content: Any = text
        if self.like is not None and isinstance(self.like.content, list):
            blocks = cast("list[dict[str, Any]]", [one for one in self.like.content if isinstance(one, dict)])
            block = next((one for one in blocks if one.get("type") == "text"), cast("dict[str, Any]", {}))
            content = [{**block, "type": "text", "text": text}] if text else []
        return piece.model_copy(update={"content": content, "additional_kwargs": {}})


@dataclass(slots=True)
class Seam:
    """Cuts from the beginning of a continuation what it repeats of the text before it.

    Text is held back only while it may still be a repetition: of the whole answer, or of its last words.

    Raises:
        MalformedAnswer: it begins the answer anew in other words, which no cut makes a continuation.
    """

    before: str
    _held: str = ""
    _is_through: bool = False

    def cut(self, text: str) -> str:
        """What of the next piece is new."""
        if self._is_through:
            return text
        self._held += text
        if self._may_repeat():
            return ""
        return self.rest()

    def rest(self) -> str:
        """What was held back and is no repetition; to be called at the end."""
        held, self._held, self._is_through = self._held, "", True
        if held.startswith(self.before):
            return held[len(self.before) :]
        if len(held) >= _LEAST_OVERLAP and self.before.startswith(held):
            return ""
        longest = min(len(held), len(self.before), _LONGEST_OVERLAP)
        for length in range(longest, _LEAST_OVERLAP - 1, -1):
            if self.before.endswith(held[:length]) and self._is_word(length):
                return held[length:]
        if len(held) >= _ANEW and self.before.startswith(held[:_ANEW]):
            raise MalformedAnswer("the continuation begins the answer anew")
        return held

    def _may_repeat(self) -> bool:
        if self.before.startswith(self._held):
            return True
        if len(self._held) > _LONGEST_OVERLAP:
            return False
        return self._held in self.before[-_LONGEST_OVERLAP:] and any(
            self.before[at:].startswith(self._held)
            for at in range(max(0, len(self.before) - _LONGEST_OVERLAP), len(self.before))
        )

    def _is_word(self, length: int) -> bool:
        """Whether the overlap begins where a word does."""
        at = len(self.before) - length
        return at == 0 or not (self.before[at - 1].isalnum() and self.before[at].isalnum())


class FailoverChunk(AIMessageChunk):
    """A chunk of a stream that may begin again. Added to others it drops what was retracted before it.

    So a program that adds up the chunks of a stream gets the answer, and not the retracted beginning and the answer.
    """

    def __add__(self, other: Any) -> AIMessageChunk:  # type: ignore[override]  # pydantic's own is as loose
        parts = [self, *cast("Sequence[Any]", other if isinstance(other, (list, tuple)) else [other])]
        starts = [at for at, part in enumerate(parts) if at and _begins_again(part)]
        first, *others = (_plain(part) for part in parts[starts[-1] if starts else 0 :])
        return cast("AIMessageChunk", first + others if others else first)

    def __radd__(self, other: Any) -> AIMessageChunk:
        if _begins_again(self):
            return _plain(self)
        return cast("AIMessageChunk", AIMessageChunk.__add__(other, _plain(self)))

    @classmethod
    def lc_id(cls) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return AIMessageChunk.lc_id()


def first_chunk(chunk: AIMessageChunk) -> FailoverChunk:
    """The first chunk of a message. Where it says `failover_replaces`, that message was retracted."""
    return FailoverChunk(**chunk.__dict__)


def _begins_again(chunk: Any) -> bool:
    return isinstance(chunk, FailoverChunk) and "failover_replaces" in chunk.response_metadata


def _plain(chunk: Any) -> Any:
    return AIMessageChunk(**chunk.__dict__) if isinstance(chunk, FailoverChunk) else chunk


def has_other_blocks(piece: AIMessage) -> bool:
    """Whether there is something besides text, such as reasoning or an image."""
    if not isinstance(piece.content, list):
        return bool(piece.additional_kwargs.get("reasoning_content"))
    blocks = cast("list[Any]", piece.content)
    return any(isinstance(one, Mapping) and cast("Any", one).get("type") not in ("text", None) for one in blocks)
