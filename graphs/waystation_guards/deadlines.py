"""By when an answer is needed: a caller's or a run's deadline, which bounds all attempts below it.

    with within(20):                                                    whatever is called in here
        await graph.ainvoke(input)
    await graph.ainvoke(input, {"configurable": {"deadline": at}})      an aware datetime, or ISO 8601 with an offset

Where several are set, the earliest counts. Inside the process a deadline is a moment of the monotonic clock; one that
comes from elsewhere as a date is turned into that when it is first read.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from langchain_core.runnables import RunnableConfig

DEADLINE_KEY: Final = "deadline"
"""The member of `configurable` that holds a deadline."""

_within: ContextVar[float | None] = ContextVar("waystation_deadline", default=None)


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Whatever is called in this block has to be done in so many seconds. An outer, earlier deadline stays."""
    outer = _within.get()
    at = monotonic() + seconds
    token = _within.set(at if outer is None else min(at, outer))
    try:
        yield
    finally:
        _within.reset(token)


def deadline_of(config: RunnableConfig | None, *, at_most_s: float | None = None) -> float | None:
    """The earliest deadline for a call, on the monotonic clock; None where there is none.

    `at_most_s`: a deadline of the caller's own, from now.

    Raises:
        ValueError: `configurable["deadline"]` is no aware datetime.
    """
    now = monotonic()
    found = [_within.get(), _moment(((config or {}).get("configurable") or {}).get(DEADLINE_KEY), now)]
    if at_most_s is not None:
        found.append(now + at_most_s)
    return min((at for at in found if at is not None), default=None)


def left_s(deadline: float | None) -> float | None:
    """Seconds until a deadline, never below zero; None where there is none."""
    return None if deadline is None else max(0.0, deadline - monotonic())


def _moment(given: Any, now: float) -> float | None:
    if given is None:
        return None
    try:
        at = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"configurable.{DEADLINE_KEY} is {given!r}; expected is a date and time with its offset")
    return now + (at - datetime.now(UTC)).total_seconds()
