"""Which trace the present request or run belongs to, as W3C's `traceparent`: taken in, kept in the run's row, bound to
its log lines. Needs no tracing library, and costs nothing where nobody traces.

    traceparent of a request ──▶ run.kwargs ──▶ the worker's attempt ──▶ requests that its graph makes of this server
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from structlog.contextvars import bound_contextvars

KEY: Final = "traceparent"
"""The member of a run's kwargs, and the header."""

HEADER: Final = b"traceparent"

LONGEST_ID: Final = 200
"""Of a request's id in log lines and with its run: clients choose it."""

_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_LONGEST = 128

_current: ContextVar[str | None] = ContextVar("waystation_traceparent", default=None)


def current() -> str | None:
    """The context that what is made here belongs to; None outside of any trace."""
    return _current.get()


def enter(parent: str | None) -> None:
    """Let everything that this task does from now on, and what it starts, belong to a trace."""
    _current.set(parent)


@contextmanager
def bound(*, request_id: str | None, parent: str | None) -> Generator[None]:
    """Let what is done in this block belong to a request, and to a trace if it has one; log lines too."""
    token = _current.set(parent)
    ids = {"request_id": request_id, "trace_id": trace_id_of(parent)}
    try:
        with bound_contextvars(**{name: value for name, value in ids.items() if value is not None}):
            yield
    finally:
        _current.reset(token)


def parsed(value: bytes) -> str | None:
    """A header's value, if it is one; anything else is as if nothing had been sent."""
    text = value[: _LONGEST + 1].decode("latin-1").strip()
    return text[:55] if len(text) <= _LONGEST and _VALID.fullmatch(text) else None


def trace_id_of(parent: object) -> str | None:
    """The trace's id of what `parsed` gave, or of what a row holds."""
    return parent[3:35] if isinstance(parent, str) and _VALID.fullmatch(parent) else None
