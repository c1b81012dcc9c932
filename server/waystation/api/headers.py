"""Which request headers graphs and logs may see: patterns of `http.configurable_headers` and `http.logging_headers`.

includes   nothing is passed on that no pattern names
excludes   win against includes
NEVER      credentials and names that stand for somebody: not even when a pattern matches them
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from waystation.catalog.keys import HeaderKeys

NEVER = frozenset({"x-api-key", "x-tenant-id", "x-service-key"})

RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """What of a request's headers is passed on."""

    includes: re.Pattern[str]
    excludes: re.Pattern[str]

    @classmethod
    def of(cls, keys: HeaderKeys | None) -> HeaderRules | None:
        """The rules that a section gives; None when nothing is passed on."""
        if keys is None or not keys.includes:
            return None
        return cls(_pattern(keys.includes), _pattern(keys.excludes))

    def choose(self, headers: RawHeaders) -> dict[str, str]:
        """Names in lower case and values; one that came several times is joined by commas, as HTTP means it."""
        chosen: dict[str, str] = {}
        for raw, value in headers:
            name = raw.decode("latin-1").lower()
            if name in NEVER or not self.includes.fullmatch(name) or self.excludes.fullmatch(name):
                continue
            text = value.decode("latin-1")
            chosen[name] = f"{chosen[name]}, {text}" if name in chosen else text
        return chosen


def _pattern(patterns: Sequence[str]) -> re.Pattern[str]:
    """Matches what any of them does; `*` stands for any text. No patterns match nothing."""
    parts = [".*".join(re.escape(part) for part in pattern.lower().split("*")) for pattern in patterns]
    return re.compile("|".join(parts) if parts else r"(?!)")
