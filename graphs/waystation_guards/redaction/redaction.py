"""Takes what is personal or secret out of texts: for logs, traces, the audit log and messages.

    Redactor().text("write to ada@example.com")      "write to [EMAIL]"
    Redactor(kinds=("email",), strategy="hash", patterns={"customer": r"C-\\d{8}"})

A text that holds nothing a pattern could begin with is returned as it is after one search. What only looks like a card
or an IBAN is kept: their check digits are computed (Luhn; ISO 7064 mod 97).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from waystation_guards.redaction.patterns import COMPILED, KINDS, PATTERNS, VALID, Kind, worth_looking

Strategy = Literal["redact", "mask", "hash"]


@dataclass(frozen=True, slots=True)
class Found:
    """Something of a kind at a place of a text."""

    kind: str
    start: int
    end: int
    value: str


@dataclass(frozen=True, slots=True)
class Redactor:
    """Finds and replaces. Any thread may use it.

    `kinds`: what is looked for. `patterns`: more of it, by a name of one's own (regular expressions). `strategy`:
    `redact` puts the kind in its place, `mask` keeps the last four characters, `hash` puts a keyed hash there, by which
    equal values can be told (`pepper` is the key: without one, values that can be guessed can be found again).
    `members`: names whose values are taken out whole, in dicts.
    """

    kinds: tuple[Kind, ...] = KINDS
    patterns: Mapping[str, str] = field(default_factory=dict[str, str])
    strategy: Strategy = "redact"
    pepper: str = ""
    members: tuple[str, ...] = ("password", "passwd", "secret", "api_key", "apikey", "authorization", "access_token",
                                "refresh_token", "client_secret", "private_key", "cookie", "x-api-key")  # fmt: skip
    _finders: dict[tuple[Kind, ...], re.Pattern[str]] = field(init=False, repr=False, compare=False)
    _names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"kinds of a redactor have {sorted(unknown)[0]!r}; expected are {', '.join(KINDS)}")
        if self.strategy not in ("redact", "mask", "hash"):
            raise ValueError(f"strategy of a redactor is {self.strategy!r}; expected is redact, mask or hash")
        object.__setattr__(self, "kinds", tuple(kind for kind in KINDS if kind in self.kinds))
        object.__setattr__(self, "_finders", {})
        self._finder(self.kinds)
        object.__setattr__(self, "_names", frozenset(name.lower() for name in self.members))

    def text(self, text: str) -> str:
        """The text without what was found in it; the very same object where that is nothing."""
        found = self.find(text)
        if not found:
            return text
        parts: list[str] = []
        at = 0
        for one in found:
            parts += (text[at : one.start], self._instead(one))
            at = one.end
        return "".join([*parts, text[at:]])

    def find(self, text: str) -> list[Found]:
        """What is in a text, from left to right."""
        found: list[Found] = []
        kinds = worth_looking(text, self.kinds)
        if not kinds and not self.patterns:
            return found
        finder, at = self._finder(kinds), 0
        while (match := finder.search(text, at)) is not None:
            kind, start, end = self._kind_of(match)
            if end > start and (kind not in VALID or VALID[kind](text[start:end])):
                found.append(Found(kind, start, end, text[start:end]))
                at = end
            else:
                at = self._other_kinds(text, match, kind, found)
        return found

    def value(self, value: Any) -> Any:
        """A JSON-like value without what is found in its texts; what has nothing in it is the same object."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            members = cast("Mapping[Any, Any]", value)
            made = {name: self._member(name, one) for name, one in members.items()}
            return made if any(made[name] is not members[name] for name in members) else members
        if isinstance(value, (list, tuple)):
            elements = cast("Sequence[Any]", value)
            new = [self.value(one) for one in elements]
            if all(one is other for one, other in zip(new, elements, strict=True)):
                return elements
            return new if isinstance(value, list) else tuple(new)
        return value

    def only(self, kinds: Iterable[Kind]) -> Redactor:
        """The same for these kinds alone."""
        return replace(self, kinds=tuple(kinds), patterns={})

    def _finder(self, kinds: tuple[Kind, ...]) -> re.Pattern[str]:
        """One pattern for all of these, made when it is first needed."""
        found = self._finders.get(kinds)
        if found is None:
            own = [f"(?P<own{n}>{_checked(name, text)})" for n, (name, text) in enumerate(self.patterns.items())]
            parts = [*own, *(f"(?x:(?P<{kind}>{PATTERNS[kind]}))" for kind in kinds)]
            found = self._finders[kinds] = re.compile("|".join(parts) or r"(?!)", re.DOTALL)
        return found

    def _member(self, name: Any, value: Any) -> Any:
        if isinstance(name, str) and name.lower() in self._names and isinstance(value, str) and value:
            return self._instead(Found("secret", 0, len(value), value))
        return self.value(value)

    def _kind_of(self, match: re.Match[str]) -> tuple[str, int, int]:
        groups = match.groupdict()
        if groups.get("assigned") is not None:
            return "secret", match.start("assigned"), match.end("assigned")
        for number, name in enumerate(self.patterns):
            if groups[f"own{number}"] is not None:
                return name, match.start(), match.end()
        kind = next(kind for kind in KINDS if groups.get(kind) is not None)
        return kind, match.start(), match.end()

    def _other_kinds(self, text: str, match: re.Match[str], kind: str, found: list[Found]) -> int:
        """What was no card may be a phone number that begins at the same place; the next place to look at."""
        for other in KINDS[KINDS.index(kind) + 1 :] if kind in KINDS else ():
            again = COMPILED[other].match(text, match.start()) if other in self.kinds else None
            if again is not None and VALID[other](again.group()):
                found.append(Found(other, again.start(), again.end(), again.group()))
                return again.end()
        return match.start() + 1

    def _instead(self, found: Found) -> str:
        if self.strategy == "hash":
            digest = hmac.new(self.pepper.encode(), found.value.encode("utf-8", "replace"), hashlib.sha256)
            return f"[{found.kind.upper()}:{digest.hexdigest()[:12]}]"
        if self.strategy == "mask" and found.kind != "secret" and len(found.value) > 8:
            return "*" * (len(found.value) - 4) + found.value[-4:]
        return f"[{found.kind.upper()}]"


def _checked(name: str, pattern: str) -> str:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"patterns.{name} is no regular expression: {error}") from None
    if found.groupindex:
        raise ValueError(f"patterns.{name} has a named group; expected is a pattern without")
    return pattern


DEFAULT: Final = Redactor()
"""All kinds, replaced by their names."""
