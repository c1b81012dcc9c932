"""What became of an execution, as data. Writing it down is `finishing.py`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from waystation.worker.reasons import Cancelled, TimedOut


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The graph came to its end, or stopped at an interrupt or breakpoint (`paused`). `values` is JSON."""

    values: bytes | None
    paused: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The graph raised. `detail` is what machines may want to know besides: a guard's refusal has a `code`, and the
    seconds after which to try again as `retry_after`. `rejected`: before it began, for what the run was asked with; the
    thread rests as it did."""

    error: str
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rejected: bool = False


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
