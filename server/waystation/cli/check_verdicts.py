"""What a check of `waystation doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line: how it is, and what to do about it."""

    level: Literal["ok", "hint", "warn", "fail"]
    text: str
    remedy: str = ""


def ok(text: str) -> Verdict:
    return Verdict("ok", text)


def hint(text: str, remedy: str = "") -> Verdict:
    """Nothing is wrong; somebody may want it otherwise."""
    return Verdict("hint", text, remedy)


def warn(text: str, remedy: str = "") -> Verdict:
    """It works, with less."""
    return Verdict("warn", text, remedy)


def fail(text: str, remedy: str) -> Verdict:
    """Serving is not possible like this."""
    return Verdict("fail", text, remedy)
