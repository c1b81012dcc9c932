"""What became of an execution, as data. Writing it down is `finishing.py`'s."""

from __future__ import annotations

from dataclasses import dataclass

from waystation.worker.reasons import Cancelled, TimedOut


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The graph came to its end, or stopped at an interrupt or breakpoint (`paused`). `values` is JSON."""

    values: bytes | None
    paused: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The graph raised."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was stopped for good."""

    reason: Cancelled | TimedOut


@dataclass(frozen=True, slots=True)
class HandedOver:
    """It goes back to the queue."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt is over; nothing may be written."""


Outcome = Succeeded | Failed | Stopped | HandedOver | Lost
