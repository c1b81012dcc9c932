"""Logs: one configuration for our loggers, uvicorn's and the graphs', on stdout, for people or as JSON lines.

Code logs a constant message through the standard library and puts data in `extra`; what is bound to the context
(`bind_run`) is added to every line logged below, also by the user's nodes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from waystation.telemetry.log_lines import PRINTED, JsonLines, LineHandler, PrintedLines

STARTED = "Application startup complete."
"""uvicorn's line that deployment tools wait for: shown at every level."""

_NOISE = ("ASGI callable returned without completing response.",)
"""uvicorn's complaint about a connection that is dropped on purpose; `api/long_answer.py` says so where it matters."""


def configure_logs(
    *, level: str = "INFO", as_json: bool = False, color: bool = False, redact: Sequence[str] = ()
) -> None:
    """Send every logger of the process to stdout. `level` is the least severe one that is shown; `redact`: kinds of
    what is personal or secret (`waystation_guards.redaction.redaction.KINDS`) that no line shows."""
    stream = standard_output()
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="backslashreplace")  # what graphs raise may hold what no encoding has
    if as_json:  # whoever reads lines of JSON reads them all
        sys.stdout = PrintedLines(stream)
        logging.captureWarnings(capture=True)
    handler = LineHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                *_shared(as_json),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_redacting(redact),
                *_rendering(as_json, color),
            ],
        )
    )
    handler.addFilter(_Shown(level))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.error").setLevel(min(logging.INFO, root.level))
    for name in ("uvicorn.access", "httpx", "httpcore", "psycopg.pool"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def standard_output() -> TextIO:
    """Where lines go: standard output itself, also where what is printed becomes lines."""
    return sys.stdout.stream if isinstance(sys.stdout, PrintedLines) else sys.stdout


@contextmanager
def bind_run(*, run_id: str, thread_id: str, attempt: int) -> Generator[None]:
    """Add these to every line logged in this block, in this task and those it starts."""
    with structlog.contextvars.bound_contextvars(run_id=run_id, thread_id=thread_id, attempt=attempt):
        yield


class _Shown(logging.Filter):
    def __init__(self, level: str) -> None:
        super().__init__()
        self._least = logging.getLevelNamesMapping()[level]

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg in _NOISE:
            return False
        return record.levelno >= self._least or record.msg == STARTED or record.name == PRINTED


def _shared(as_json: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _without_colours,
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if as_json
        else structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    ]


def _rendering(as_json: bool, color: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, JsonLines()]
    return [
        structlog.dev.ConsoleRenderer(colors=color, exception_formatter=structlog.dev.plain_traceback, pad_event_to=40)
    ]


def _redacting(kinds: Sequence[str]) -> list[Processor]:
    """What takes things out of lines: after tracebacks are texts, before anything is written."""
    if not kinds:
        return []
    from waystation_guards.redaction.logs import RedactLogs  # compiles its patterns: for those who want it

    return [structlog.processors.format_exc_info, RedactLogs(kinds)]


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """uvicorn sends its messages a second time with terminal colours."""
    event.pop("color_message", None)
    return event
