"""The rules for prompt injection: what instructions look like that do not come from whom they seem to come from.

The rules themselves are in `rules.toml`. What they find and what they miss on texts of our own is measured in
`tests/unit/test_guard_screening.py`; whoever words an attack differently passes them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal

from waystation_guards.screening.text import plainly

Source = Literal["input", "tool", "document"]
EVERYWHERE: Final[tuple[Source, ...]] = ("input", "tool", "document")
FOREIGN: Final[tuple[Source, ...]] = ("tool", "document")
"""What no user has written: nobody there has anything to say to the model."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, the family of attacks it belongs to, and where it is looked for."""

    name: str
    family: str
    needs: tuple[str, ...]
    pattern: re.Pattern[str]
    certain: bool
    sources: tuple[Source, ...]

    def finds(self, text: str) -> bool:
        """Whether a reading of a text has what the rule looks for."""
        return any(piece in text for piece in self.needs) and self.pattern.search(text) is not None


def read_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a TOML text. Raises ValueError, KeyError or re.error where it is malformed."""
    told = tomllib.loads(text)
    fragments: Mapping[str, str] = told["fragments"]
    return tuple(_rule(one, fragments) for one in told["rule"])


def _rule(told: Mapping[str, Any], fragments: Mapping[str, str]) -> Rule:
    pattern = str(told["pattern"])
    for name, fragment in fragments.items():
        pattern = pattern.replace(f"<{name}>", fragment)
    return Rule(
        name=told["name"],
        family=told["family"],
        needs=tuple(_as_read(piece).replace("_", " ") for piece in str(told["needs"]).split()),
        pattern=re.compile(_as_read(pattern)),
        certain=told.get("certain", True),
        sources=FOREIGN if told.get("foreign") else EVERYWHERE,
    )


def _as_read(pattern: str) -> str:
    """Letters that are not Latin, as `screening_text` reads them."""
    return re.sub(r"[^\x00-\x7f]+", lambda found: plainly(found.group()), pattern)


RULES: Final = read_rules((files("waystation_guards.screening") / "rules.toml").read_text(encoding="utf-8"))
"""All rules, in the order in which findings are told."""
