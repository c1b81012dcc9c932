"""How a command fails: one line that says what to mend, and an exit code.

1  something outside is missing or taken (a port, Postgres, binaries)
2  the command line, the environment or langgraph.json cannot be used
3  a graph cannot be loaded
130  Ctrl-C
"""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

from waystation.cli.terminal import OutputLost, paint, say
from waystation.errors import ConfigError
from waystation_db.errors import DatabaseError, DatabaseUnavailable

UNAVAILABLE, UNUSABLE, GRAPHS, INTERRUPTED = 1, 2, 3, 130


class CommandError(Exception):
    """A command cannot go on; the message is for the operator and says what to do."""

    exit_code = UNAVAILABLE


class UsageError(CommandError):
    """The command line asks for something that cannot be had."""

    exit_code = UNUSABLE


class GraphsError(CommandError):
    """A graph of the project cannot be loaded."""

    exit_code = GRAPHS


class ChildFailed(CommandError):
    """A child process ended before it was ready; it has told why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


Told = (CommandError, ConfigError, DatabaseError, OutputLost)
"""Errors whose message is the whole story. Anything else is a bug and keeps its traceback."""


@contextmanager
def told_briefly(*, debug: bool = False, interrupted: str = "") -> Generator[None]:
    """Turn the errors above into one line and an exit code; with `debug` the traceback comes before it.

    `interrupted`: what is said after Ctrl-C, where something is worth saying.
    """
    try:
        yield
    except Told as error:
        if debug:
            say("".join(traceback.format_exception(error)), err=True)
        exit_with(error)
    except KeyboardInterrupt:
        if not interrupted:
            raise
        say(interrupted, err=True)
        raise SystemExit(INTERRUPTED) from None


def exit_with(error: BaseException) -> NoReturn:
    """Tell one of `Told`, and end the process."""
    if text := sentence(error):
        say(f"{paint('Error:', 'red')} {text}", err=True)
    raise SystemExit(exit_code(error))


def sentence(error: BaseException) -> str:
    """What the operator reads."""
    match error:
        case DatabaseUnavailable():
            text = str(error)
            # Postgres' own message may end with a question, or with a full stop.
            end = "" if text.endswith((".", "?", "!")) else "."
            return (
                f"{text[:1].upper()}{text[1:]}{end} Is it running, and does DATABASE_URI name it? (`waystation doctor`)"
            )
        case ConfigError():
            return error.message
        case _:
            return str(error)


def exit_code(error: BaseException) -> int:
    match error:
        case CommandError():
            return error.exit_code
        case ConfigError():
            return UNUSABLE
        case _:
            return UNAVAILABLE
