"""Writes to the ledger what has happened, also while it is away: again at once, and later with what is written next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from waystation_guards.blocking import finished
from waystation_guards.ports import Ledger

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRIES_S: Final = (0.2, 1.0, 3.0)
_KEPT: Final = 1_000
"""Entries that wait for a ledger. Older ones are lost, and in the log."""

Write = Callable[[Ledger], Awaitable[T]]


class Writing:
    """What a budget has to write. `patient`: wait for a ledger that is away, as a budget does that fails closed."""

    def __init__(self, *, patient: bool) -> None:
        self._pauses = _RETRIES_S if patient else ()
        self._waiting: deque[tuple[object, Write[object]]] = deque()

    @property
    def waiting(self) -> int:
        """How many entries wait for the ledger."""
        return len(self._waiting)

    async def write(self, ledger: Ledger, what: object, do: Write[T]) -> T | None:
        """Do it, in the end; None where it has to wait. A cancellation is raised once it is written or waits.

        `do` must do no harm when it is done twice: nobody knows whether an answer was lost on its way there or back.
        """
        try:
            return await self._now(ledger, what, do, self._pauses)
        except asyncio.CancelledError:
            await finished(self._now(ledger, what, do, ()))
            raise

    async def _now(self, ledger: Ledger, what: object, do: Write[T], pauses: tuple[float, ...]) -> T | None:
        for pause in (*pauses, None):
            try:
                result = await do(ledger)
            except Exception as error:
                log.warning("the budget's ledger does not answer", exc_info=error)
                if pause is None:
                    self._keep(what, do)
                    return None
                await asyncio.sleep(pause)
            else:
                await self._flush(ledger)
                return result
        return None

    async def _flush(self, ledger: Ledger) -> None:
        """What waited. What still cannot be written waits on; others may be flushing at the same time."""
        while self._waiting:
            what, do = self._waiting.popleft()
            try:
                await do(ledger)
            except Exception:
                self._keep(what, do)
                return

    def _keep(self, what: object, do: Write[object]) -> None:
        if len(self._waiting) >= _KEPT:
            lost, _ = self._waiting.popleft()
            log.error("an entry is missing in the budget's ledger: %s", lost)
        self._waiting.append((what, do))
