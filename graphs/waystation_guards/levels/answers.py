"""Answers without a model, for the level `minimal`: from a list of questions, and from what was answered before.

answers = first_of(RememberedAnswers(), Faq({"opening hours": "We are open from 9 to 17 h."}))
await answers(ports, site, messages)      the text, or None
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from langchain_core.messages import BaseMessage, HumanMessage

from waystation_guards.blocking import at_home
from waystation_guards.calls import CallSite
from waystation_guards.ports import Ports

Answers = Callable[[Ports, CallSite, Sequence[BaseMessage]], Awaitable[str | None]]
"""Finds an answer to the last question of a conversation; None if it has none."""


def question_of(messages: Sequence[BaseMessage]) -> str:
    """The text of the last message of a person; empty if there is none."""
    found = (str(one.text) for one in reversed(messages) if isinstance(one, HumanMessage))
    return next(found, "")


@dataclass(frozen=True, slots=True)
class Faq:
    """Answers by the words of questions. The entry answers that has the largest part of its words in the question.

    `least`: the part of an entry's words that has to be there. `otherwise`: said where no entry fits.
    """

    entries: Mapping[str, str]
    least: float = 0.6
    otherwise: str | None = None

    async def __call__(self, ports: Ports, site: CallSite, messages: Sequence[BaseMessage]) -> str | None:
        asked = _words(question_of(messages))
        scores = [(len(asked & words) / len(words), answer) for words, answer in self._known() if words]
        score, answer = max(scores, default=(0.0, ""), key=lambda one: one[0])
        return answer if score >= self.least and score > 0 else self.otherwise

    def _known(self) -> list[tuple[frozenset[str], str]]:
        return [(_words(question), answer) for question, answer in self.entries.items()]


@dataclass(frozen=True, slots=True)
class RememberedAnswers:
    """What was answered to the same question before, to this caller. `DegradationMiddleware` remembers answers to
    conversations that begin with their question, while the level is full.

    `scope`: among whom answers are shared, a member of `CallSite`; those of others in the tenant are not shown.
    """

    ttl_s: float = 7 * 24 * 3600.0
    scope: str = "user"

    async def __call__(self, ports: Ports, site: CallSite, messages: Sequence[BaseMessage]) -> str | None:
        found = await at_home(ports.cache.get(self._key(site, messages)), ports.loop)
        return None if found is None else found.decode()

    async def remember(self, ports: Ports, site: CallSite, messages: Sequence[BaseMessage], answer: str) -> None:
        """Keep an answer for its time."""
        put = ports.cache.put(self._key(site, messages), answer.encode(), ttl_s=self.ttl_s)
        await at_home(put, ports.loop)

    def _key(self, site: CallSite, messages: Sequence[BaseMessage]) -> str:
        question = " ".join(question_of(messages).lower().split())
        whose = "\0".join((site.tenant, site.assistant or site.graph, str(getattr(site, self.scope)), question))
        return f"level-answer:{sha256(whose.encode()).hexdigest()}"


def first_of(*sources: Answers) -> Answers:
    """The first answer that one of them has."""

    async def find(ports: Ports, site: CallSite, messages: Sequence[BaseMessage]) -> str | None:
        for source in sources:
            if (answer := await source(ports, site, messages)) is not None:
                return answer
        return None

    return find


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))
