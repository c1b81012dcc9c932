"""Answers to questions that mean the same, found by similarity in LangGraph's store. Off unless asked for.

Similar is not the same. "Enable it" and "disable it", "5 days" and "50 days", "from Berlin to Paris" and the reverse
are near each other for every embedding. So all but the last question has to be exactly equal (model, parameters, system
prompt, tools, history), and the last one must agree in its numbers, names, negations and opposites
(`may_mean_the_same`). What is left to chance is measured in the guide; keep it to questions whose wrong answer does no
harm.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from langchain_core.messages import HumanMessage
from langgraph.store.base import BaseStore

from waystation_guards.caching.keys import CacheScope, Question, digest_of, plain_messages
from waystation_guards.calls import CallSite

_ROOT: Final = "waystation_answers"
_WORDS_MAX: Final = 400
"""Characters: longer questions are rarely asked twice in other words, and similarity says less about them."""

_NEGATION_WORDS: Final = """
    not no never none nothing nobody neither nor without cannot except unless isn't aren't wasn't weren't don't doesn't
    didn't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't nicht kein keine keinen keiner nie ohne ne pas
    jamais sans nunca sin
"""
_NEGATIONS: Final = frozenset(_NEGATION_WORDS.split())
_PAIRS: Final = """
    enable/disable on/off start/stop open/close add/remove install/uninstall allow/deny increase/decrease more/less
    before/after buy/sell send/receive import/export upload/download up/down in/out first/last best/worst min/max
    cheapest/dearest minimum/maximum most/least high/low higher/lower inside/outside lock/unlock show/hide true/false
    yes/no old/new older/newer oldest/newest earliest/latest highest/lowest encode/decode encrypt/decrypt login/logout
    push/pull create/delete activate/deactivate subscribe/unsubscribe win/lose left/right upgrade/downgrade hot/cold
    legal/illegal safe/unsafe with/without pros/cons advantages/disadvantages
"""
_OPPOSITES: Final = tuple(frozenset(pair.split("/")) for pair in _PAIRS.split())


@dataclass(frozen=True, slots=True)
class Near:
    """What was found: the answer's bytes and how near its question is, 1.0 for the same."""

    data: bytes
    score: float


@dataclass(frozen=True, slots=True)
class SemanticCache:
    """Looks for near questions in a store that has an index. `store`: None for the one of the graph.

    `threshold`: the least similarity, as the store scores it (cosine for LangGraph's own). `candidates`: how many of
    the nearest are looked at. `within_s`: how long the store (and its embedding) may take.
    """

    threshold: float = 0.92
    candidates: int = 5
    within_s: float = 2.0
    store: BaseStore | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold of a semantic cache is {self.threshold!r}; expected is above 0, up to 1")
        if self.candidates < 1:
            raise ValueError(f"candidates of a semantic cache is {self.candidates!r}; expected is 1 or more")

    async def find(
        self, question: Question, site: CallSite, store: Any, *, scope: CacheScope, now: datetime
    ) -> Near | None:
        """The nearest question's answer that is near enough and passes the checks."""
        store, text = self.store or store, asked_in_words(question)
        if not isinstance(store, BaseStore) or text is None:
            return None
        where = _namespace(question, site, scope)
        for item in await store.asearch(where, query=text, limit=self.candidates, refresh_ttl=False):
            # A store without an index gives items without a score: nothing is known of their likeness.
            if item.score is None or item.score < self.threshold or not _is_alive(item.value, now):
                continue
            if may_mean_the_same(text, str(item.value.get("text"))):
                return Near(b64decode(str(item.value["answer"])), float(item.score))
        return None

    async def keep(
        self,
        question: Question,
        site: CallSite,
        store: Any,
        data: bytes,
        *,
        scope: CacheScope,
        until: datetime,
        ttl_s: float,
    ) -> None:
        """Keep an answer under its question, `ttl_s` seconds long in stores that forget. Nothing is done without a
        store."""
        store, text = self.store or store, asked_in_words(question)
        if not isinstance(store, BaseStore) or text is None:
            return
        value = {"text": text, "answer": b64encode(data).decode(), "until": until.isoformat()}
        lives: dict[str, Any] = {"ttl": ttl_s / 60} if store.supports_ttl else {}
        await store.aput(_namespace(question, site, scope), digest_of(text), value, index=["text"], **lives)


def asked_in_words(question: Question) -> str | None:
    """The last question, if it is a person's in plain words; None if such a call is never answered by similarity."""
    last = question.messages[-1] if question.messages else None
    if not isinstance(last, HumanMessage) or not isinstance(last.content, str):
        return None
    text = last.content.strip()
    return text if 0 < len(text) <= _WORDS_MAX else None


def may_mean_the_same(one: str, other: str) -> bool:
    """Whether nothing that can be seen without understanding says that two texts mean different things."""
    if _tokens_with_digits(one) != _tokens_with_digits(other) or _names(one) != _names(other):
        return False
    if _quoted(one) != _quoted(other):
        return False
    first, second = _words(one), _words(other)
    if sum(word in _NEGATIONS for word in first) % 2 != sum(word in _NEGATIONS for word in second) % 2:
        return False
    return not any(_sides(pair, first, second) for pair in _OPPOSITES)


def _sides(pair: frozenset[str], first: list[str], second: list[str]) -> bool:
    """Whether two texts are on different sides of a pair of opposites."""
    one, other = pair & set(first), pair & set(second)
    return bool(one) and bool(other) and one != other


def _namespace(question: Question, site: CallSite, scope: CacheScope) -> tuple[str, ...]:
    owner = {"tenant": [site.tenant], "user": [site.tenant, site.user], "shared": []}[scope]
    before = plain_messages(question.messages[:-1])
    return (_ROOT, digest_of([scope, owner])[:32], digest_of([question.setting, before])[:32])


def _is_alive(value: dict[str, Any], now: datetime) -> bool:
    return datetime.fromisoformat(str(value["until"])) > now


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text.casefold().replace("’", "'"))


def _tokens_with_digits(text: str) -> list[str]:
    return sorted(token.strip(".,;:!?").casefold() for token in re.findall(r"\S*\d\S*", text))


def _names(text: str) -> list[str]:
    """Words with a capital letter that do not begin a sentence, in their order: who does what to whom."""
    found = re.findall(r"(?<![.!?:]\s)(?<!^)\b[A-ZÀ-Þ][\w-]*", text.strip())
    return [name.casefold() for name in found if name not in ("I", "I'm")]


def _quoted(text: str) -> list[str]:
    return re.findall(r"[\"'`“]([^\"'`”]{2,})[\"'`”]", text)
