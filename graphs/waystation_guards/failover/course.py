"""One call's way through the targets: which is tried next, after how long, and when nothing is left to try.

start ─▶ admitted by its breaker? ─ no ─▶ next target ─ none left ─▶ AllTargetsFailed, with the earliest time to retry
           │ yes
           ▼
          try ─ fails ─▶ told to the breaker ─▶ the policy's row ─▶ same target again, after a wait
                                                                ─▶ next target
                                                                ─▶ the error itself
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.utils.utils import LC_ID_PREFIX

from waystation_guards.deadlines import left_s
from waystation_guards.errors import AllTargetsFailed, DeadlinePassed
from waystation_guards.failover.breakers import Breakers
from waystation_guards.failover.errors import FailedTry, MalformedAnswer, failed_try
from waystation_guards.failover.policy import FailoverPolicy
from waystation_guards.failover.targets import Target
from waystation_guards.failover.tries import Question, Try
from waystation_guards.ports import Ports

log = logging.getLogger(__name__)

_WORDS: Final[Mapping[str, str]] = {
    "rate_limit": "too many requests",
    "overload": "overloaded",
    "connection": "no connection",
    "context_window": "the conversation is too long",
    "content_policy": "against a provider's policy",
    "auth": "not authorised",
    "malformed": "no valid answer",
    "unknown": "failed",
    "open": "failed just now",
}
"""Classes of errors for those who use an agent: which targets there are is the operator's."""


@dataclass(slots=True, eq=False)
class Course:
    """Where a call stands. It outlives a restart: what was tried stays tried."""

    targets: Sequence[Target]
    policy: FailoverPolicy
    breakers: Breakers
    ports: Ports
    manager: AsyncCallbackManager
    deadline: float | None
    tries: int = 0
    continued: int = 0
    restarted: int = 0
    hedged: bool = False
    failures: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    last: FailedTry | None = None
    replaces: str | None = None
    """The id of the message that this one takes the place of."""
    _at: int = 0
    _retries: int = 0
    _wait_s: float = 0.0
    _later_s: list[float] = field(default_factory=list[float])
    _had_empty: bool = False

    @property
    def message_id(self) -> str:
        """The id of the message that is being answered with: LangChain makes it of the run's."""
        return f"{LC_ID_PREFIX}-{self.manager.parent_run_id}"

    async def next_try(self, asked: Callable[[Target], Question]) -> Try:
        """The next try, after the wait that it asks for. `asked`: what to ask a target.

        Raises:
            AllTargetsFailed: nothing is left to try; `retry_after_s` is the earliest time at which that may change.
            DeadlinePassed: so it has.
        """
        await self._pause()
        while self._at < len(self.targets):
            target = self.targets[self._at]
            admission = await self.breakers.admit(self.ports, target.name)
            if admission.allowed:
                return self._try(target, asked(target), is_probe=admission.is_probe)
            self._later_s.append(admission.retry_after_s)
            self.failures.append({"target": target.name, "class": "open"})
            self._go_on()
        raise self._nothing_left()

    async def hedge(self, asked: Callable[[Target], Question]) -> Try | None:
        """A try of the target after the present one, where one may be called at once."""
        for target in self.targets[self._at + 1 :]:
            admission = await self.breakers.admit(self.ports, target.name)
            if admission.allowed:
                self.hedged = True
                return self._try(target, asked(target), is_probe=admission.is_probe)
        return None

    async def succeeded(self, one: Try) -> None:
        """Tell the breaker of an answer that came to its end."""
        await self.breakers.report(self.ports, one.target.name, ok=True, is_probe=one.is_probe)

    async def failed(self, one: Try, error: Exception, *, was_shown: bool = False) -> None:
        """Tell the breaker, and prepare what comes next. `was_shown`: callers have seen a part of the answer.

        Raises:
            Exception: the error itself, where the policy does not go on from it.
        """
        failure = await self.note_failure(one, error)
        if failure is None:
            raise error
        decision = self.policy.decide(failure.kind)
        self._at = self.targets.index(one.target)
        retries = decision.last_retries if self._is_last else 0 if was_shown else decision.retries
        if self._retries < retries and self._fits(failure):
            self._wait_s = self.policy.backoff.wait_s(self._retries, retry_after_s=failure.retry_after_s)
            self._retries += 1
        elif decision.then == "fail":
            raise error
        else:
            if failure.retry_after_s:
                self._later_s.append(failure.retry_after_s)
            self._go_on()

    async def note_failure(self, one: Try, error: Exception) -> FailedTry | None:
        """Tell the breaker of a failed try, and remember it; None for a guard's refusal."""
        failure = failed_try(error)
        counts = failure is not None and failure.counts and self.policy.decide(failure.kind).counts
        if failure is not None and failure.counts and (counts or one.is_probe):
            await self.breakers.report(
                self.ports,
                one.target.name,
                ok=not counts,
                is_probe=one.is_probe,
                retry_after_s=failure.retry_after_s,
                cause=failure.kind,
            )
        if failure is not None:
            self.last = failure
            self.failures.append({"target": one.target.name, "class": failure.kind, "error": failure.name})
            log.info("a target failed", extra={"target": one.target.name, "class": failure.kind, "error": failure.name})
        return failure

    def accepts_empty(self, error: MalformedAnswer) -> bool:
        """Whether an empty answer is taken for what it is: after a second one."""
        accepted, self._had_empty = self._had_empty, self._had_empty or error.is_empty
        return accepted and error.is_empty

    def told(self, target: Target) -> dict[str, Any]:
        """What the answer's metadata says of this call."""
        return {
            "target": target.name,
            "attempts": self.tries,
            "failures": self.failures,
            "hedged": self.hedged,
            "continued": self.continued,
            "restarted": self.restarted,
        }

    def _try(self, target: Target, question: Question, *, is_probe: bool) -> Try:
        self.tries += 1
        patience = target.patience or self.policy.patience
        return Try(target, question, self.manager, patience, self.deadline, self.tries, is_probe=is_probe)

    @property
    def _is_last(self) -> bool:
        return self._at + 1 >= len(self.targets)

    def _fits(self, failure: FailedTry) -> bool:
        """Whether the wait that a target asks for is worth it."""
        backoff = self.policy.backoff
        left = left_s(self.deadline)
        longest = backoff.longest_s if self._is_last else backoff.patience_s
        return failure.retry_after_s <= longest and (left is None or failure.retry_after_s < left)

    def _go_on(self) -> None:
        self._at += 1
        self._retries, self._wait_s = 0, 0.0

    async def _pause(self) -> None:
        left = left_s(self.deadline)
        if left is not None and self._wait_s >= left and self.last is not None:
            self._go_on()  # the deadline leaves no time to wait, but perhaps some to ask another
        wait, self._wait_s = self._wait_s, 0.0
        if wait:
            await asyncio.sleep(wait)
        if left_s(self.deadline) == 0.0:
            raise DeadlinePassed("the deadline passed before a model answered") from self.last and self.last.error

    def _nothing_left(self) -> AllTargetsFailed:
        later = min(self._later_s, default=None)
        again = "" if later is None else f"; the earliest time to try again is in {later:.0f} s"
        why = ", ".join(dict.fromkeys(_WORDS.get(one["class"], one["class"]) for one in self.failures))
        error = AllTargetsFailed(f"no model answered ({why}){again}", retry_after_s=later, failures=self.failures)
        error.__cause__ = self.last.error if self.last is not None else None
        return error
