"""Rates, places, breakers and shared values in the memory of one process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import floor
from time import monotonic

from waystation_guards.ports import Admission, BreakerRules, Draw, Drawn, Rate

_MANY = 10_000


@dataclass(slots=True)
class _Bucket:
    """A token bucket. `level` may be below zero: debts of calls that used more than they took."""

    level: float
    at: float


@dataclass(slots=True)
class _Breaker:
    outcomes: deque[tuple[float, bool]] = field(default_factory=deque[tuple[float, bool]])
    open_until: float = 0.0
    is_open: bool = False
    probe_until: float = 0.0


@dataclass(slots=True)
class MemoryState:
    """`waystation_guards.ports.State`."""

    clock: Callable[[], float] = monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _buckets: dict[tuple[str, Rate], _Bucket] = field(default_factory=dict[tuple[str, Rate], _Bucket])
    _pauses: dict[str, float] = field(default_factory=dict[str, float])
    _places: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    _breakers: dict[str, _Breaker] = field(default_factory=dict[str, _Breaker])
    _values: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])

    async def take(self, name: str, rates: Sequence[Rate], cost: int = 1) -> float:
        return (await self.draw([Draw(name, rate, cost) for rate in rates])).wait_s

    async def draw(self, draws: Sequence[Draw], *, patience_s: float = 0.0) -> Drawn:
        with self._lock:
            now = self.clock()
            wait = max([0.0, *(self._pauses.get(draw.name, now) - now for draw in draws)])
            buckets = [(draw, self._bucket(draw.name, draw.rate, now)) for draw in draws]
            for draw, bucket in buckets:
                # A call larger than the whole bucket passes when the bucket is full, and leaves a debt.
                missing = min(draw.cost, draw.rate.amount) - bucket.level
                wait = max(wait, missing * draw.rate.seconds / draw.rate.amount)
            if taken := wait <= patience_s:
                for draw, bucket in buckets:
                    bucket.level -= draw.cost
            return Drawn(taken, wait, tuple(floor(bucket.level) for _, bucket in buckets))

    async def give_back(self, name: str, rates: Sequence[Rate], cost: int) -> None:
        with self._lock:
            now = self.clock()
            for rate in rates:
                bucket = self._bucket(name, rate, now)
                bucket.level = min(rate.amount, bucket.level + cost)

    async def pause(self, name: str, seconds: float) -> None:
        with self._lock:
            self._pauses[name] = max(self._pauses.get(name, 0.0), self.clock() + seconds)

    async def enter(self, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
        with self._lock:
            now = self.clock()
            places = {who: until for who, until in self._places.get(name, {}).items() if until > now}
            if holder not in places and len(places) >= limit:
                return False
            self._places[name] = {**places, holder: now + ttl_s}
            return True

    async def leave(self, name: str, *, holder: str) -> None:
        with self._lock:
            self._places.get(name, {}).pop(holder, None)

    async def admit(self, target: str, rules: BreakerRules) -> Admission:
        with self._lock:
            now, breaker = self.clock(), self._breakers.setdefault(target, _Breaker())
            if not breaker.is_open:
                return Admission(True)
            if now < breaker.open_until:
                return Admission(False, retry_after_s=breaker.open_until - now)
            if now < breaker.probe_until:
                return Admission(False, retry_after_s=breaker.probe_until - now)
            breaker.probe_until = now + rules.probe_s
            return Admission(True, is_probe=True)

    async def report(
        self, target: str, rules: BreakerRules, *, ok: bool, is_probe: bool = False, retry_after_s: float = 0.0
    ) -> bool:
        with self._lock:
            now, breaker = self.clock(), self._breakers.setdefault(target, _Breaker())
            if not breaker.is_open:
                return _count(breaker, rules, now, ok=ok, retry_after_s=retry_after_s)
            if ok and is_probe:
                self._breakers[target] = _Breaker()
                return True
            if not ok:
                cooldown = max(rules.cooldown_s if is_probe else 0.0, retry_after_s)
                breaker.open_until = max(breaker.open_until, now + cooldown)
            if is_probe:
                breaker.probe_until = 0.0
            return False

    async def read(self, name: str) -> str | None:
        with self._lock:
            found = self._values.get(name)
            return found[0] if found is not None and found[1] > self.clock() else None

    async def write(self, name: str, value: str | None, *, ttl_s: float | None = None) -> None:
        with self._lock:
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value, self.clock() + ttl_s if ttl_s is not None else float("inf")

    def _bucket(self, name: str, rate: Rate, now: float) -> _Bucket:
        if len(self._buckets) >= _MANY and (name, rate) not in self._buckets:
            self._forget_full(now)
        bucket = self._buckets.setdefault((name, rate), _Bucket(rate.amount, now))
        bucket.level = min(rate.amount, bucket.level + (now - bucket.at) * rate.amount / rate.seconds)
        bucket.at = now
        return bucket

    def _forget_full(self, now: float) -> None:
        """A bucket that has filled up again is as good as none."""
        for (name, rate), bucket in list(self._buckets.items()):
            if bucket.level + (now - bucket.at) * rate.amount / rate.seconds >= rate.amount:
                del self._buckets[name, rate]


def _count(breaker: _Breaker, rules: BreakerRules, now: float, *, ok: bool, retry_after_s: float) -> bool:
    """Count an outcome of a closed breaker; True if it opens."""
    breaker.outcomes.append((now, ok))
    while breaker.outcomes[0][0] <= now - rules.window_s:
        breaker.outcomes.popleft()
    failed = sum(not ok for _, ok in breaker.outcomes)
    calls = len(breaker.outcomes)
    if ok or calls < rules.minimum or failed < rules.failure_rate * calls:
        return False
    breaker.is_open = True
    breaker.open_until = now + max(rules.cooldown_s, retry_after_s)
    return True
