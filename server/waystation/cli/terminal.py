"""What a command says to people: plain lines, coloured on a terminal."""

from __future__ import annotations

import sys
from typing import Literal

Look = Literal["bold", "red", "yellow", "cyan"]
_CODES: dict[Look, str] = {"bold": "1", "red": "1;31", "yellow": "33", "cyan": "36"}


def say(text: str, *, err: bool = False) -> None:
    """Write a line and flush it; a reader that is gone is no trouble."""
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError:
        return


def paint(text: str, look: Look) -> str:
    """`text` in that look, where standard output is a terminal."""
    return f"\x1b[{_CODES[look]}m{text}\x1b[0m" if sys.stdout.isatty() else text
