"""Notices from outside that a node holds the graph loop, and ends a process whose loop will not come back.

Nothing on the loop can do that: no timer fires while a node computes or sleeps without `await`. So the lease thread
asks. A loop that is silent for longer than a run may last is not coming back; its process ends then, and what ran in
it is tried elsewhere, the node that hung at most as often as any that takes its process down.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

_EXIT_CODE = 70  # EX_SOFTWARE
_LONGEST_STEP_S = 5.0


class LoopWatch:
    """Made on the loop's thread; `check` is called now and then on another."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, warn_s: float, fatal_s: float, end: Callable[[int], None] = os._exit
    ) -> None:
        self._loop = loop
        self._warn_s = warn_s
        self._fatal_s = fatal_s
        self._end = end
        self._thread_id = threading.get_ident()
        self._answered = True
        self._warned = False
        self._silent_s = 0.0
        self._checked_at = time.monotonic()

    def check(self) -> None:
        """Ask the loop for a sign of life, and act when it has given none for too long."""
        now = time.monotonic()
        # A process that was stopped for a while has not been silent for that long.
        since_s = min(now - self._checked_at, _LONGEST_STEP_S)
        self._checked_at = now
        if self._answered:
            self._silent_s, self._warned, self._answered = 0.0, False, False
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # closed: the process is ending
                self._answered = True
            return
        self._silent_s += since_s
        if self._silent_s > self._fatal_s:
            log.critical(
                "a node holds the graph loop for longer than a run may last; the process ends", at=self._where()
            )
            self._end(_EXIT_CODE)
        elif self._silent_s > self._warn_s and not self._warned:
            self._warned = True
            log.warning("a node holds the graph loop, and with it every run of this process", at=self._where())

    def _answer(self) -> None:
        self._answered = True

    def _where(self) -> str:
        """The innermost lines of what the loop's thread is doing."""
        frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]  # documented, for this
        return "" if frame is None else "".join(traceback.format_stack(frame)[-3:])
