"""What a guard may say instead of letting a call through, drawn once.

GuardError                      a guard stopped something; `retry_after_s` where waiting helps
├── BudgetExceeded              a budget's limit would be passed
│   └── BudgetDegrades          it would by this model; a cheaper one may be called
├── PriceUnknown                the model has no price, and the budget does not allow that
├── RateLimited                 over a rate, and the wait would be longer than allowed
├── AllTargetsFailed            every target of a failover failed or is open
│   └── DeadlinePassed          the caller's deadline passed before a target answered
├── StreamBroken                a stream broke after tokens were shown, and the policy does not go on
├── NotPermitted                the caller's roles do not allow the tool or its arguments
├── ContentBlocked              screening refused an input or an output
├── LimitPassed                 too many steps, too much fan-out, too large an input or output
├── OutputInvalid               a model's answer does not have the form that is needed, also after retries
├── InMaintenance               the service's level lets nothing through
├── InMinimal                   the service's level calls no model, and nothing else can answer this call
├── Killed                      the operator stopped everything of this tenant, key, assistant or graph
└── GuardUnavailable            a guard's store is away, and the guard fails closed

A message may be shown to the user of an agent: it names the limit and never anybody else's figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class GuardError(Exception):
    """Base of everything that a guard refuses with. `code` is stable and for machines."""

    code = "guard"
    ends_run = False

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class BudgetExceeded(GuardError):
    """A call was not made because it might pass a budget's limit; `limit` is that one.

    `ends_run`: what watches over the run is to end it with this message, where it can.
    """

    code = "budget_exceeded"

    def __init__(
        self, message: str, *, limit: Any = None, retry_after_s: float | None = None, ends_run: bool = False
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        self.ends_run = ends_run


class BudgetDegrades(BudgetExceeded):
    """As `BudgetExceeded`, and the limit says that a cheaper model may be called instead."""


class PriceUnknown(GuardError):
    """A call was not made because nobody knows what the model costs."""

    code = "price_unknown"


class RateLimited(GuardError):
    """A call was not made because it would have to wait too long."""

    code = "rate_limited"


class AllTargetsFailed(GuardError):
    """No target of a failover answered. The last error is the cause; `retry_after_s` the earliest moment to try.

    `failures`: for the operator, each with its `target`, `class` and the name of the `error`.
    """

    code = "all_targets_failed"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        failures: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.failures = tuple(failures)


class DeadlinePassed(AllTargetsFailed):
    """The deadline of a run or of its caller passed before a model answered."""

    code = "deadline_passed"


class StreamBroken(GuardError):
    """A stream ended without its end after tokens had been shown."""

    code = "stream_broken"


class NotPermitted(GuardError):
    """A tool call was not made because the caller's roles do not allow it."""

    code = "not_permitted"


class ContentBlocked(GuardError):
    """Screening refused a text."""

    code = "content_blocked"


class LimitPassed(GuardError):
    """An input, an output, a number of steps or a fan-out is larger than allowed."""

    code = "limit_passed"


class OutputInvalid(GuardError):
    """A model's answer does not fit its schema, also after it was told so."""

    code = "output_invalid"


class InMaintenance(GuardError):
    """The degradation level is `maintenance`."""

    code = "maintenance"


class InMinimal(GuardError):
    """The degradation level is `minimal`: no model is called, and what this call asks for only a model can give."""

    code = "minimal"


class Killed(GuardError):
    """The operator's kill switch is on for this caller or graph."""

    code = "killed"


class GuardUnavailable(GuardError):
    """What a guard keeps its state in is away, and the guard was told to fail closed."""

    code = "guard_unavailable"
