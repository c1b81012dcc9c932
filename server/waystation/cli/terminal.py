"""What a command says to people: plain lines, coloured on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
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


class OutputLost(Exception):
    """Standard output does not take what a command is for."""


@contextmanager
def all_to_stdout() -> Generator[None]:
    """Around writing what must not be lost in silence, such as an export or a new key.

    Raises:
        OutputLost: a full disk and the like. BrokenPipeError: the reader has enough, which ends a command quietly.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(f"standard output: {error.strerror}") from None


def result(text: str) -> None:
    """Write a line that must not be lost. Raises as `all_to_stdout`."""
    with all_to_stdout():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def paint(text: str, look: Look) -> str:
    """`text` in that look, where standard output is a terminal."""
    return f"\x1b[{_CODES[look]}m{text}\x1b[0m" if sys.stdout.isatty() else text
