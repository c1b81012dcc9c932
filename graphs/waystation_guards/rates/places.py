"""Places that open calls hold: kept as long as the call lasts, free again soon after a crash.

A thread renews them, and not a task: calls in threads have no loop that lives as long as they do.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from waystation_guards.ports import State

PLACE_S: Final = 60.0
"""How long a place is held that nobody renews."""

_RENEW_S: Final = PLACE_S / 4
_LONGEST_S: Final = 3600.0
"""A call that is open for longer has been forgotten: its place is not renewed any more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """A place that is held. `loop`: where its state was asked, and where it is asked again while that runs."""

    state: State
    name: str
    limit: int
    holder: str
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=monotonic)


class Places:
    """The places that this process holds."""

    def __init__(self, *, renew_s: float = _RENEW_S, ttl_s: float = PLACE_S) -> None:
        self.ttl_s = ttl_s
        self._renew_s = renew_s
        self._lock = threading.Lock()
        self._held = dict[tuple[str, str], Held]()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()

    async def enter(self, state: State, name: str, *, limit: int, holder: str) -> bool:
        """Take a place and keep it until `leave`."""
        if not await state.enter(name, limit=limit, holder=holder, ttl_s=self.ttl_s):
            return False
        with self._lock:
            self._held[name, holder] = Held(state, name, limit, holder, asyncio.get_running_loop())
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="waystation-places", daemon=True)
                self._thread.start()
        return True

    async def leave(self, state: State, name: str, *, holder: str) -> None:
        """Give a place back. It is not renewed from then on, also when the state does not answer."""
        with self._lock:
            self._held.pop((name, holder), None)
        await state.leave(name, holder=holder)

    def _keep(self) -> None:
        while True:
            self._changed.wait(self._renew_s)
            with self._lock:
                oldest = monotonic() - _LONGEST_S
                self._held = {key: place for key, place in self._held.items() if place.since > oldest}
                held = list(self._held.values())
                if not held:
                    self._thread = None
                    return
            for place in held:
                self._renew(place)

    def _renew(self, place: Held) -> None:
        with self._lock:
            if (place.name, place.holder) not in self._held:
                return
        work = place.state.enter(place.name, limit=place.limit, holder=place.holder, ttl_s=self.ttl_s)
        try:
            _wait(work, place.loop)
        except Exception as error:  # tried again in a moment; a place that is lost lets one call more through
            log.warning("a place of a concurrency limit was not renewed", exc_info=error)


def _wait(work: Coroutine[Any, Any, bool], loop: asyncio.AbstractEventLoop) -> None:
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(work, loop).result(PLACE_S / 4)
    else:
        asyncio.run(work)
