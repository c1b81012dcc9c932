"""What a failed try means to a failover: its class, how long to wait, and whether it speaks against the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from waystation_guards.errors import GuardError, RateLimited, StreamBroken
from waystation_guards.providers.errors import ErrorClass, classify

Phase = Literal["first_token", "between_tokens", "whole"]


class TargetTimeout(TimeoutError):
    """A target took longer than allowed. `phase`: what was waited for."""

    def __init__(self, message: str, *, phase: Phase) -> None:
        super().__init__(message)
        self.phase = phase


class MalformedAnswer(Exception):
    """An answer came to its end and is none: no end marker, no content, or a tool call that stops in the middle."""

    def __init__(self, message: str, *, is_empty: bool = False) -> None:
        super().__init__(message)
        self.is_empty = is_empty


@dataclass(frozen=True, slots=True)
class FailedTry:
    """How a try failed. `counts`: whether it says something about the target at all."""

    kind: ErrorClass
    error: BaseException
    retry_after_s: float = 0.0
    counts: bool = True

    @property
    def name(self) -> str:
        return type(self.error).__name__


def failed_try(error: BaseException) -> FailedTry | None:
    """What an error says; None for a guard's refusal, which no other target changes.

    A model's own limit on rates (`RateLimited`) is another matter: the next target has its own.
    """
    if isinstance(error, RateLimited):
        return FailedTry("rate_limit", error, error.retry_after_s or 0.0, counts=False)
    if isinstance(error, MalformedAnswer):
        return FailedTry("malformed", error)
    if isinstance(error, GuardError) and not isinstance(error, StreamBroken):
        return None
    found = classify(error)
    return FailedTry(found.kind, error, found.retry_after_s or 0.0)
