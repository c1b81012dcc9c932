"""Limits of requests to the API: how often, and how many open at a time, over all processes.

    request ─▶ limits by address ─▶ the gate ─▶ limits by key, user and tenant ─▶ a place, for what stays open
                                                 └ token buckets: one atomic draw; sliding windows: each its own
               over one of them: 429 with Retry-After; RateLimit headers on every answer

What was counted for a request that another limit refuses is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from waystation.auth import Principal
from waystation.catalog.keys_http_limits import Allowed, HttpLimitKeys
from waystation.errors import TooManyRequests, Unavailable
from waystation.guarding.http_limit_rules import Asker, Limit, Rules, asker_of, name_of_streams
from waystation.guarding.http_limit_scope import INSIDE, LIMITED
from waystation.guarding.http_limit_streams import OpenPlaces, Place, Seat
from waystation.guarding.http_limit_windows import Windows
from waystation.telemetry import metrics
from waystation_guards.ports import PortUnavailable, State

Scope = MutableMapping[str, Any]

_ADDRESS: Final = "waystation.limits.address"
_SEAT: Final = "waystation.limits.seat"
_STREAM_RETRY_S: Final = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands after a request: `wait_s` is 0.0 if it let it through."""

    limit: Limit
    allowed: Allowed
    left: int
    reset_s: float
    wait_s: float = 0.0


class HttpLimits:
    """The limits of a process, asked by the frame. On the API's loop."""

    def __init__(self, keys: HttpLimitKeys, *, state_of: Callable[[str], State], windows: Windows | None) -> None:
        """`state_of`: the shared state of a tenant. `windows`: needed where a limit is a sliding window."""
        self.rules = Rules(keys)
        self._keys = keys
        self._state_of = state_of
        self._windows = windows
        self._places = OpenPlaces()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep places of open streams within the block."""
        async with self._places.kept():
            yield

    async def arrive(self, scope: Scope, classes: frozenset[str]) -> None:
        """Count a request by its address, before it is known who sends it.

        Raises:
            TooManyRequests: a limit is reached.
            Unavailable: the shared state is away, and the limits fail closed.
        """
        if self.rules.asks_addresses and not scope.get(INSIDE):
            asker = asker_of(scope.get("client"), None)
            if not self.rules.is_exempt(asker):
                await self._count(scope, asker, self.rules.about(classes, addresses=True))

    async def admit(self, scope: Scope, caller: Principal | None, classes: frozenset[str]) -> None:
        """Count a request by who sends it; one that stays open takes a place until `leave`. Raises as `arrive`."""
        if scope.get(INSIDE):
            return
        asker = asker_of(scope.get("client"), caller)
        if self.rules.is_exempt(asker):
            return
        if limits := self.rules.about(classes, addresses=False):
            await self._count(scope, asker, limits)
        if self._keys.open_streams and "streams" in classes:
            await self._enter(scope, asker)

    async def charge(self, scope: Scope, caller: Principal | None, more: int) -> None:
        """Count what a request does beyond one thing of its class `runs`. Raises as `arrive`."""
        asker = asker_of(scope.get("client"), caller)
        if more <= 0 or scope.get(INSIDE) or self.rules.is_exempt(asker):
            return
        limits = [
            limit
            for addresses in (False, True)
            for limit in self.rules.about(frozenset(("runs",)), addresses=addresses)
            if limit.keys.routes
        ]
        await self._count(scope, asker, limits, cost=more)

    async def leave(self, scope: Scope) -> None:
        """The request is done with, whatever became of it."""
        seat: Seat | None = scope.pop(_SEAT, None)
        if seat is not None:
            await self._places.leave(seat)

    async def _enter(self, scope: Scope, asker: Asker) -> None:
        state = self._state_of(asker.tenant)
        places = [Place(state, name_of_streams(asker, one.per), one.limit) for one in self._keys.open_streams]
        try:
            entered = await self._places.enter(places)
        except PortUnavailable as error:
            self._away(error)
            return
        if isinstance(entered, Seat):
            scope[_SEAT] = entered
            return
        per = self._keys.open_streams[places.index(entered)].per
        metrics.HTTP_LIMITED.labels(f"open_streams-{per}").inc()
        raise TooManyRequests(
            f"Too many open streams: this {per} may have {entered.limit} at a time",
            headers={"Retry-After": str(_STREAM_RETRY_S)},
        )

    async def _count(self, scope: Scope, asker: Asker, limits: Sequence[Limit], cost: int = 1) -> None:
        if not limits:
            return
        try:
            standings = await self._take(asker, limits, cost)
        except PortUnavailable as error:
            self._away(error)
            return
        if self._keys.headers:
            scope[LIMITED] = headers_of([*scope.get(_ADDRESS, ()), *standings])
            scope[_ADDRESS] = standings
        over = max(standings, key=lambda one: one.wait_s)
        if over.wait_s > 0:
            metrics.HTTP_LIMITED.labels(over.limit.name).inc()
            raise _too_many(over)

    async def _take(self, asker: Asker, limits: Sequence[Limit], cost: int) -> list[Standing]:
        """Count in all limits, or in none."""
        rated = [(limit, limit.allowed(asker)) for limit in limits]
        buckets = [one for one in rated if one[0].keys.algorithm == "token_bucket"]
        windowed = [one for one in rated if one[0].keys.algorithm == "sliding_window"]
        standings = await self._levels(asker, windowed, cost) if windowed else []
        if any(one.wait_s for one in standings):
            return standings
        if buckets:
            standings += await self._draw(asker, buckets, cost)
        if not windowed or any(one.wait_s for one in standings):
            return standings
        if await self._hit(asker, windowed, cost):
            return standings
        # Others took the last of a window in this very moment.
        await self._undo(asker, buckets, cost)
        return await self._levels(asker, windowed, cost, lost=True)

    async def _draw(self, asker: Asker, buckets: Iterable[tuple[Limit, Allowed]], cost: int) -> list[Standing]:
        limited = [(limit, allowed, limit.draw(asker, allowed, cost)) for limit, allowed in buckets]
        drawn = await self._state_of(asker.tenant).draw([draw for _, _, draw in limited])
        standings: list[Standing] = []
        for (limit, allowed, draw), left in zip(limited, drawn.left, strict=True):
            rate = draw.rate
            missing = 0 if drawn.taken else min(cost, rate.amount) - left
            wait_s = min(drawn.wait_s, missing * rate.seconds / rate.amount) if missing > 0 else 0.0
            reset_s = max(0, rate.amount - left) * rate.seconds / rate.amount
            standings.append(Standing(limit, allowed, max(0, left), reset_s, wait_s))
        return standings

    async def _levels(
        self, asker: Asker, windowed: Sequence[tuple[Limit, Allowed]], cost: int, *, lost: bool = False
    ) -> list[Standing]:
        windows = self._windows
        assert windows is not None, "a process with sliding windows has them opened"
        levels = await asyncio.gather(
            *(windows.level(limit.window(asker, allowed), cost) for limit, allowed in windowed)
        )
        standings = [
            Standing(limit, allowed, level.left if level.wait_s else level.left - cost, level.reset_s, level.wait_s)
            for (limit, allowed), level in zip(windowed, levels, strict=True)
        ]
        if lost and not any(one.wait_s for one in standings):
            standings[0] = Standing(*windowed[0], 0, 1.0, 1.0)
        return standings

    async def _hit(self, asker: Asker, windowed: Sequence[tuple[Limit, Allowed]], cost: int) -> bool:
        """Count in all windows, or in none."""
        assert self._windows is not None
        windows = [limit.window(asker, allowed) for limit, allowed in windowed]
        taken = await asyncio.gather(*(self._windows.take(window, cost) for window in windows))
        if all(taken):
            return True
        for window, was_taken in zip(windows, taken, strict=True):
            if was_taken:
                await self._windows.take(window, -cost)
        return False

    async def _undo(self, asker: Asker, buckets: Iterable[tuple[Limit, Allowed]], cost: int) -> None:
        for limit, allowed in buckets:
            draw = limit.draw(asker, allowed, cost)
            await self._state_of(asker.tenant).give_back(draw.name, [draw.rate], cost)

    def _away(self, error: PortUnavailable) -> None:
        metrics.HTTP_LIMITS_AWAY.inc()
        if self._keys.fail == "closed":
            raise Unavailable("Requests cannot be counted at the moment", headers={"Retry-After": "2"}) from error
        log.warning("requests are not counted: the shared state does not answer", extra={"error": str(error)})


def headers_of(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10) of all limits, and the three older
    headers, which know one limit, of the one that is closest to its end."""
    closest = min(standings, key=lambda one: (-one.wait_s, one.left / one.allowed.amount))
    policies = ", ".join(one.limit.policy(one.allowed) for one in standings)
    states = ", ".join(f'"{one.limit.name}";r={max(0, one.left)};t={_whole(one.reset_s)}' for one in standings)
    return [
        (b"ratelimit-policy", policies.encode()),
        (b"ratelimit", states.encode()),
        (b"ratelimit-limit", str(closest.allowed.amount).encode()),
        (b"ratelimit-remaining", str(max(0, closest.left)).encode()),
        (b"ratelimit-reset", str(_whole(closest.wait_s or closest.reset_s)).encode()),
    ]


def _too_many(over: Standing) -> TooManyRequests:
    keys, allowed = over.limit.keys, over.allowed
    what = f" to {' and '.join(keys.routes)}" if keys.routes else ""
    seconds = max(1, _whole(over.wait_s))
    return TooManyRequests(
        f"Too many requests{what}: {allowed.amount} in {allowed.seconds} s are allowed for each {keys.per}; "
        f"try again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )


def _whole(seconds: float) -> int:
    """Rounded up, but for what is only a float's error."""
    return math.ceil(seconds - 0.001)
