"""How many streams, waits and sockets are open at a time, over all processes.

Each has a place in the guards' shared state, renewed while it is open. Places of a process that dies are free again
after PLACE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Final

from waystation_guards.ports import PortUnavailable, State

PLACE_S: Final = 30.0
_RENEW_S: Final = PLACE_S / 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """One of `limit` places."""

    state: State
    name: str
    limit: int


@dataclass(slots=True, eq=False)
class Seat:
    """The places of one open stream."""

    holder: str = field(default_factory=lambda: secrets.token_hex(8))
    places: list[Place] = field(default_factory=list[Place])


class OpenPlaces:
    """The places that this process holds. On the API's loop."""

    def __init__(self) -> None:
        self._seats = set[Seat]()

    async def enter(self, places: Iterable[Place]) -> Seat | Place:
        """All places, or the first that is not free; then none is held. Raises PortUnavailable."""
        seat = Seat()
        try:
            for place in places:
                seat.places.append(place)  # before it is entered: left again whatever happens on the way
                if not await place.state.enter(place.name, limit=place.limit, holder=seat.holder, ttl_s=PLACE_S):
                    await self.leave(seat)
                    return place
        except BaseException:
            await self.leave(seat)
            raise
        self._seats.add(seat)
        return seat

    async def leave(self, seat: Seat) -> None:
        """Give the places back. What cannot be given back now is free after PLACE_S."""
        self._seats.discard(seat)
        for place in seat.places:
            with contextlib.suppress(PortUnavailable):
                await place.state.leave(place.name, holder=seat.holder)

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Renew the places within the block."""
        keeping = asyncio.create_task(self._keep(), name="http-places")
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait((keeping,))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                await asyncio.gather(*(self._renew(seat) for seat in list(self._seats)))
            except PortUnavailable:
                log.warning("places of open streams were not renewed; tried again in a moment")

    async def _renew(self, seat: Seat) -> None:
        for place in seat.places:
            if seat in self._seats:
                await place.state.enter(place.name, limit=place.limit, holder=seat.holder, ttl_s=PLACE_S)
