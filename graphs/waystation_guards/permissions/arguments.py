"""What the arguments of a tool call have to be: rules for single arguments, by dotted path.

A rule answers yes, no, or that it cannot tell: `"1000"` against a number, `"yes"` against `True`, a path with a tilde.
Whoever asks takes what cannot be told as against the call, because a tool may convert its arguments after this check.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import urlsplit


class Holds(Enum):
    """Whether a rule holds for a call."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET
"""Stands for a condition that is not asked for; None is a value like others."""

_MISSING: Final = object()
_EVERY = "*"
_LONGEST_MATCHED = 10_000


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """What one argument has to be; everything that is given has to hold.

    `path`: dotted, `order.items.*.price`; a number leads into a list, `*` to every element; `\\.` is a dot in a name.
    `matches`: a regular expression for the whole text. `below`: a folder (POSIX) that a path must not leave; absolute
    for absolute paths, relative for relative ones. `hosts`: the host of an http(s) URL, `*.example.com` for all below.
    `max_length`: characters, or elements. `optional`: the rule holds where the argument is missing.
    """

    path: str
    equals: Any = UNSET
    one_of: tuple[Any, ...] = ()
    matches: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    prefix: str | None = None
    below: str | None = None
    hosts: tuple[str, ...] = ()
    max_length: int | None = None
    optional: bool = False
    _steps: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("one_of", "hosts"):
            if isinstance(given := getattr(self, name), list):
                object.__setattr__(self, name, tuple(cast("list[Any]", given)))
        self._check()
        object.__setattr__(self, "_steps", _steps_of(self.path))

    def _check(self) -> None:
        if not self.path:
            raise ValueError("path of an argument rule is empty; expected is a name, or several with dots between")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except re.error as error:
                raise ValueError(f"matches of {self.path!r} is no regular expression: {error}") from None
        for name in ("minimum", "maximum"):
            value = getattr(self, name)
            if value is not None and _number(value) is None:
                raise ValueError(f"{name} of {self.path!r} is {value!r}; expected is a number")
        if self.below is not None and (not self.below or "\x00" in self.below):
            raise ValueError(f"below of {self.path!r} is {self.below!r}; expected is a folder")
        if self.max_length is not None and (type(self.max_length) is not int or self.max_length < 0):
            raise ValueError(f"max_length of {self.path!r} is {self.max_length!r}; expected is 0 or more")
        if not self._conditions():
            raise ValueError(f"the rule of {self.path!r} asks for nothing; expected is one of equals, one_of, matches, "
                             "minimum, maximum, prefix, below, hosts, max_length")  # fmt: skip

    def all_hold(self, arguments: Mapping[str, Any]) -> Holds:
        """Whether every value at the path is as it has to be."""
        return self._judge(arguments, _all)

    def any_holds(self, arguments: Mapping[str, Any]) -> Holds:
        """Whether some value at the path is so."""
        return self._judge(arguments, _any)

    def _judge(self, arguments: Mapping[str, Any], combine: Callable[[Sequence[Holds]], Holds]) -> Holds:
        found = list(_values(arguments, self._steps))
        if not found and combine is _any:
            return Holds.NO
        missing = Holds.YES if self.optional else Holds.NO
        return combine([missing if value is _MISSING else self._of(value) for value in found])

    def _of(self, value: Any) -> Holds:
        return _all([condition(value) for condition in self._conditions()])

    def _conditions(self) -> list[Callable[[Any], Holds]]:
        asked: list[Callable[[Any], Holds]] = []
        if self.equals is not UNSET:
            asked.append(lambda value: _equal(value, self.equals))
        if self.one_of:
            asked.append(lambda value: _any([_equal(value, one) for one in self.one_of]))
        if self.matches is not None:
            asked.append(lambda value: _matches(value, self.matches or ""))
        if self.minimum is not None or self.maximum is not None:
            asked.append(lambda value: _in_range(value, self.minimum, self.maximum))
        if self.prefix is not None:
            asked.append(lambda value: _text(value, lambda text: text.startswith(self.prefix or "")))
        if self.below is not None:
            asked.append(lambda value: is_below(value, self.below or ""))
        if self.hosts:
            asked.append(lambda value: has_host(value, self.hosts))
        if self.max_length is not None:
            asked.append(lambda value: _not_longer(value, self.max_length or 0))
        return asked

    @property
    def text(self) -> str:
        """What is expected, for people and models: `amount: at most 100`."""
        parts = [
            *([f"{self.equals!r}"] if self.equals is not UNSET else []),
            *([f"one of {', '.join(repr(one) for one in self.one_of)}"] if self.one_of else []),
            *([f"text like {self.matches}"] if self.matches is not None else []),
            *([f"at least {self.minimum:g}"] if self.minimum is not None else []),
            *([f"at most {self.maximum:g}"] if self.maximum is not None else []),
            *([f"text that begins with {self.prefix!r}"] if self.prefix is not None else []),
            *([f"a path below {self.below}"] if self.below is not None else []),
            *([f"a URL of {', '.join(self.hosts)}"] if self.hosts else []),
            *([f"at most {self.max_length} long"] if self.max_length is not None else []),
        ]
        return f"{self.path}: {' and '.join(parts)}"


def is_below(value: Any, folder: str) -> Holds:
    """Whether a POSIX path stays in a folder, by its text alone: symbolic links are for the tool to look at."""
    if not isinstance(value, str):
        return Holds.UNKNOWN
    if "\x00" in value or "\\" in value or value.startswith("~") or re.search("%2e|%2f|%5c", value, re.IGNORECASE):
        return Holds.UNKNOWN  # what another system, a shell or a URL would make another path of
    if posixpath.isabs(value) != posixpath.isabs(folder):
        return Holds.UNKNOWN
    inside, root = (posixpath.normpath(re.sub("/+", "/", path)) for path in (value, folder))
    if root == ".":
        return Holds.NO if inside == ".." or inside.startswith("../") else Holds.YES
    return Holds.YES if inside == root or inside.startswith(root.rstrip("/") + "/") else Holds.NO


def has_host(value: Any, hosts: Sequence[str]) -> Holds:
    """Whether a text is an http(s) URL of one of these hosts. One that parsers read differently cannot be told."""
    if (
        not isinstance(value, str)
        or "\\" in value
        or "@" in value.split("?")[0]
        or re.search(r"[\x00-\x20\x7f]", value)
    ):
        return Holds.UNKNOWN
    try:
        parts = urlsplit(value)
        host = (parts.hostname or "").rstrip(".")
        _ = parts.port
    except ValueError:
        return Holds.UNKNOWN
    if parts.scheme.lower() not in ("http", "https") or not host or not host.isascii():
        return Holds.NO
    return Holds.YES if any(_is_host(host, one.lower()) for one in hosts) else Holds.NO


def _is_host(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _equal(value: Any, expected: Any) -> Holds:
    """Another type cannot be told: a tool's schema may make `True` of `"yes"` or a number of a text."""
    one, other = _number(value), _number(expected)
    if one is not None and other is not None:
        return Holds.YES if one == other else Holds.NO
    if type(value) is not type(expected):
        return Holds.UNKNOWN
    return Holds.YES if value == expected else Holds.NO


def _matches(value: Any, pattern: str) -> Holds:
    if not isinstance(value, str) or len(value) > _LONGEST_MATCHED:
        return Holds.UNKNOWN
    return Holds.YES if _compiled(pattern).fullmatch(value) else Holds.NO


_compiled = lru_cache(1024)(re.compile)


def _in_range(value: Any, minimum: float | None, maximum: float | None) -> Holds:
    number = _number(value)
    if number is None and isinstance(value, str):
        number = _number_in(value)
    if number is None:
        return Holds.UNKNOWN
    above = minimum is None or number >= minimum
    return Holds.YES if above and (maximum is None or number <= maximum) else Holds.NO


def _text(value: Any, holds: Callable[[str], bool]) -> Holds:
    if not isinstance(value, str):
        return Holds.UNKNOWN
    return Holds.YES if holds(value) else Holds.NO


def _not_longer(value: Any, longest: int) -> Holds:
    if not isinstance(value, (str, bytes, list, tuple, dict, set)):
        return Holds.UNKNOWN
    return Holds.YES if len(cast("Sequence[Any]", value)) <= longest else Holds.NO


def _number(value: Any) -> float | int | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    return value


def _number_in(text: str) -> float | None:
    try:
        return _number(float(text))
    except ValueError:
        return None


def _all(found: Sequence[Holds]) -> Holds:
    if Holds.NO in found:
        return Holds.NO
    return Holds.UNKNOWN if Holds.UNKNOWN in found else Holds.YES


def _any(found: Sequence[Holds]) -> Holds:
    if Holds.YES in found:
        return Holds.YES
    return Holds.UNKNOWN if Holds.UNKNOWN in found else Holds.NO


def _steps_of(path: str) -> tuple[str, ...]:
    return tuple(step.replace("\\.", ".") for step in re.split(r"(?<!\\)\.", path))


def _values(value: Any, steps: Sequence[str]) -> Iterator[Any]:
    """The values at a path; `_MISSING` where there is none. Nothing for `*` in what is empty."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(value, Mapping):
        members = cast("Mapping[str, Any]", value)
        if step in members:
            yield from _values(members[step], rest)
        elif step == _EVERY:
            for member in members.values():
                yield from _values(member, rest)
        else:
            yield _MISSING
    elif isinstance(value, (list, tuple)):
        elements = cast("Sequence[Any]", value)
        if step == _EVERY:
            for element in elements:
                yield from _values(element, rest)
        elif step.isascii() and step.isdigit() and int(step) < len(elements):
            yield from _values(elements[int(step)], rest)
        else:
            yield _MISSING
    else:
        yield _MISSING
