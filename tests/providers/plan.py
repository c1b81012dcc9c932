"""What the fault server does with a request: answer it, or fail in one of many ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

STATUS: Final[Mapping[str, int]] = {
    "rate_limit": 429,
    "quota": 429,
    "request_timeout": 408,
    "conflict": 409,
    "server_error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
    "overloaded": 529,
    "context": 400,
    "content_policy": 400,
    "bad_request": 400,
    "auth": 401,
    "permission": 403,
    "not_found": 404,
    "too_large": 413,
}
"""Faults that are an answer with an error's status and body."""

CONNECTION: Final = ("reset", "hang")
"""Faults before the first byte: the connection is reset, or the prompt is read and nothing ever comes."""

MIDDLE: Final = ("cut", "reset_mid_stream", "hang_mid_stream", "malformed", "error_event")
"""Faults of a stream after `after` tokens. Where no stream was asked for, they come in the middle of the body."""

ENDING: Final = ("no_end", "no_finish", "empty", "wrong_type", "refusal", "truncated_tool")
"""Faults that arrive as a success: without an end marker (`no_end`: neither finish reason nor [DONE] or message_stop,
after `after` tokens; `no_finish`: all tokens, no finish reason, but the protocol's last line), without content, as
HTML, as a refusal that is an answer, with a tool call whose arguments stop in the middle."""

FAULTS: Final = frozenset(("ok", *STATUS, *CONNECTION, *MIDDLE, *ENDING))


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is treated. `Plan("ok")` answers; times are seconds.

    `text`: the answer, a token per word; the server's own where it is empty. `after`: tokens before a fault in the
    middle. `first_s`: before the headers. `pause_s`: before each token. `retry_after_s`: None leaves the header out;
    `retry_after_as` is its form. `status`: another status than the fault's own. `error`: the type that an error event
    names. `cached`, `reasoning`: tokens of the usage. `usage`: whether a stream tells its usage.
    """

    fault: str = "ok"
    text: str = ""
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    after: int = 3
    first_s: float = 0.0
    pause_s: float = 0.0
    retry_after_s: float | None = 1.0
    retry_after_as: Literal["seconds", "milliseconds", "date"] = "seconds"
    status: int | None = None
    error: str = "overloaded_error"
    cached: int = 0
    reasoning: int = 0
    usage: Literal["asked", "always", "never"] = "asked"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"{self.fault!r} is no fault; expected one of {', '.join(sorted(FAULTS))}")

    @classmethod
    def of(cls, given: str | Mapping[str, Any] | Plan) -> Plan:
        """A plan from a fault's name, or from JSON."""
        if isinstance(given, Plan):
            return given
        if isinstance(given, str):
            return cls(given)
        plan = cls(**given)
        return replace(plan, tool_calls=tuple((name, arguments) for name, arguments in plan.tool_calls))
