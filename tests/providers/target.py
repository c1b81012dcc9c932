"""One provider endpoint: what it was told to do, what it was asked, what it charged, and its own rate limit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Literal

from .bill import Charge
from .plan import Plan


@dataclass(slots=True)
class Seen:
    """A request in the log. `sent_tokens` is what was written of a stream; `status` 0 where no head was sent."""

    target: str
    api: str
    path: str
    model: str
    stream: bool
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    plan: Plan
    at: float = field(default_factory=monotonic)
    status: int = 0
    sent_tokens: int = 0
    ended: Literal["open", "answered", "failed", "aborted"] = "open"
    """`failed`: by plan or limit. `aborted`: the client closed before the end."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a target lets through: requests and tokens per `per_s`, refilled evenly."""

    requests: int
    tokens: int
    per_s: float = 60.0


class Target:
    """A named endpoint. Any thread may tell it what to do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.default = Plan()
        self.seen: list[Seen] = []
        self.charges: list[Charge] = []
        self._script: deque[Plan] = deque()
        self._chosen: list[Callable[[Mapping[str, Any]], Plan | None]] = []
        self._lock = threading.Lock()
        self._allowance: Allowance | None = None
        self._left: tuple[float, float] = (0.0, 0.0)
        self._refilled = 0.0

    def script(self, *plans: str | Mapping[str, Any] | Plan) -> None:
        """What to do with the next requests, one each, after what was told before."""
        with self._lock:
            self._script.extend(Plan.of(plan) for plan in plans)

    def always(self, plan: str | Mapping[str, Any] | Plan) -> None:
        """What to do when the script is over."""
        self.default = Plan.of(plan)

    def when(self, choose: Callable[[Mapping[str, Any]], Plan | None]) -> None:
        """Choose a plan by the request's body, before the script is looked at; None leaves it to the others."""
        self._chosen.append(choose)

    def allow(self, *, requests: int, tokens: int, per_s: float = 60.0) -> None:
        """Enforce a rate limit and tell it in headers."""
        with self._lock:
            self._allowance = Allowance(requests, tokens, per_s)
            self._left, self._refilled = (float(requests), float(tokens)), monotonic()

    def next_plan(self, body: Mapping[str, Any]) -> Plan:
        with self._lock:
            for choose in self._chosen:
                if (plan := choose(body)) is not None:
                    return plan
            return self._script.popleft() if self._script else self.default

    def take(self, tokens: int) -> float:
        """Take a request and its tokens; 0.0, or the seconds until it fits."""
        with self._lock:
            if self._allowance is None:
                return 0.0
            have, rates = self._refill(self._allowance), (self._allowance.requests, self._allowance.tokens)
            want = (1.0, float(min(tokens, self._allowance.tokens)))
            waits = [
                max(0.0, need - left) * self._allowance.per_s / rate
                for need, left, rate in zip(want, have, rates, strict=True)
            ]
            if max(waits) > 0:
                return max(waits)
            self._left = (have[0] - want[0], have[1] - want[1])
            return 0.0

    def rate_headers(self, api: str) -> dict[str, str]:
        """`x-ratelimit-*` or `anthropic-ratelimit-*`; nothing without an allowance."""
        with self._lock:
            if self._allowance is None:
                return {}
            rule, (requests, tokens) = self._allowance, self._refill(self._allowance)
        until = [(rule.requests - requests) * rule.per_s / rule.requests]
        until.append((rule.tokens - tokens) * rule.per_s / rule.tokens)
        if api == "anthropic":
            return _anthropic_headers(rule, int(requests), int(tokens), until)
        return {
            "x-ratelimit-limit-requests": str(rule.requests),
            "x-ratelimit-remaining-requests": str(int(requests)),
            "x-ratelimit-reset-requests": _span(until[0]),
            "x-ratelimit-limit-tokens": str(rule.tokens),
            "x-ratelimit-remaining-tokens": str(int(tokens)),
            "x-ratelimit-reset-tokens": _span(until[1]),
        }

    def _refill(self, rule: Allowance) -> tuple[float, float]:
        now = monotonic()
        part, self._refilled = (now - self._refilled) / rule.per_s, now
        self._left = (
            min(float(rule.requests), self._left[0] + part * rule.requests),
            min(float(rule.tokens), self._left[1] + part * rule.tokens),
        )
        return self._left


def _anthropic_headers(rule: Allowance, requests: int, tokens: int, until: list[float]) -> dict[str, str]:
    resets = [(datetime.now(UTC) + timedelta(seconds=one)).strftime("%Y-%m-%dT%H:%M:%SZ") for one in until]
    return {
        "anthropic-ratelimit-requests-limit": str(rule.requests),
        "anthropic-ratelimit-requests-remaining": str(requests),
        "anthropic-ratelimit-requests-reset": resets[0],
        "anthropic-ratelimit-tokens-limit": str(rule.tokens),
        "anthropic-ratelimit-tokens-remaining": str(tokens),
        "anthropic-ratelimit-tokens-reset": resets[1],
    }


def _span(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(seconds // 60)}m{seconds % 60:.0f}s"
