"""Lines that a machine can read, whatever is logged: strict JSON out of any objects, a line where none can be made, and
what programs print as lines like all others."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import threading
from collections.abc import Mapping
from typing import Any, Final, TextIO, cast

from structlog.typing import EventDict, WrappedLogger

PRINTED: Final = "printed"
"""The logger of what is printed: shown at every level."""

_DEEPEST: Final = 30
_LONGEST: Final = 64 * 1024
_PAIRS = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})")


class JsonLines:
    """The last processor of structlog: a line as JSON, in which there is no NaN and no half of a surrogate pair."""

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        try:
            text = json.dumps(event, default=shown, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            text = json.dumps(_plain(event, ()), default=shown, allow_nan=False)
        return _PAIRS.sub(lambda found: r"\ufffd" if found[1] else found[0], text) if r"\ud" in text else text


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes a line for each record, also for one that cannot be formatted: its code goes on as if it could."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # arguments, objects and keys are users' code
            return super().format(_without_data(record, error))


class PrintedLines(io.TextIOBase):
    """Standard output of programs beside JSON lines: what they print becomes lines of the logger `printed`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begun = threading.local()
        self._log = logging.getLogger(PRINTED)
        self._log.setLevel(logging.INFO)

    @property
    def buffer(self) -> Any:
        return self.stream.buffer

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # a property there, too
        return self.stream.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def flush(self) -> None:
        self.stream.flush()

    def write(self, text: str) -> int:
        *lines, rest = f"{getattr(self._begun, 'text', '')}{text}".split("\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], ""
        self._begun.text = rest
        for line in lines:
            if line.strip():
                self._log.info("%s", line)
        return len(text)


def shown(value: object) -> str:
    """An object's `repr`, or its type where it has none."""
    try:
        return repr(value)
    except Exception:  # users' code
        return f"<{type(value).__name__} without a repr>"


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    """What JSON can say of it. `within`: ids of what it stands in."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 1024 else hex(value)
    if not isinstance(value, Mapping | list | tuple):
        return shown(value)
    if id(cast(object, value)) in within or len(within) > _DEEPEST:
        return "…"
    inside = (*within, id(cast(object, value)))
    if isinstance(value, Mapping):
        members = cast("Mapping[Any, Any]", value)
        return {name if isinstance(name, str) else shown(name): _plain(one, inside) for name, one in members.items()}
    return [_plain(one, inside) for one in cast("list[Any]", value)]


def _without_data(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    made = logging.LogRecord(
        record.name, record.levelno, record.pathname, record.lineno, "A log line could not be made", (), None
    )
    made.__dict__ |= {
        "template": record.msg if isinstance(record.msg, str) else shown(record.msg)[:_LONGEST],
        "error": type(error).__name__,
        "where": f"{record.pathname}:{record.lineno}",
    }
    return made
