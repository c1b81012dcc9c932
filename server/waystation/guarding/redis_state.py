"""The guards' state in Redis, where there is one: limiters, places and breakers by scripts on Redis's clock.

What is lost with Redis is a little generosity. Shared values are another matter (an operator's level must not be
forgotten in a restart): they are kept in Postgres, and Redis has copies, which `read` restores when they are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio.client import Pipeline

from waystation.events.redis_pipe import RedisPipe
from waystation.guarding.guard_names import RedisNames, span
from waystation.guarding.postgres_state import PostgresState
from waystation.guarding.redis_scripts import Script, ask, checked
from waystation_guards.ports import Admission, BreakerRules, Draw, Drawn, Rate

_DRAW, _GIVE_BACK, _PAUSE = Script.named("draw"), Script.named("give_back"), Script.named("pause")
_ENTER, _ADMIT, _REPORT = Script.named("enter"), Script.named("admit"), Script.named("report")
_WRITE_VALUE = Script.named("write_value")

_REMOVED_MS: Final = 86_400_000
_RESTORED_MS: Final = 60_000
"""Copies are compared with what is kept now and then: whoever wrote one may have died before Redis had it."""


class RedisState:
    """`waystation_guards.ports.State` of a tenant."""

    __slots__ = ("_durable", "_names", "_pipe")

    def __init__(self, pipe: RedisPipe, *, durable: PostgresState, tenant: str = "default") -> None:
        """`durable`: the same tenant's state in Postgres, for shared values."""
        self._pipe = pipe
        self._names = RedisNames(pipe.keys.prefix, tenant)
        self._durable = durable

    async def take(self, name: str, rates: Sequence[Rate], cost: int = 1) -> float:
        return (await self.draw([Draw(name, rate, cost) for rate in rates])).wait_s

    async def draw(self, draws: Sequence[Draw], *, patience_s: float = 0.0) -> Drawn:
        if not draws:
            return Drawn(True, 0.0)
        keys = [self._bucket(one.name, one.rate) for one in draws]
        keys += [self._names.of("pause", name) for name in dict.fromkeys(one.name for one in draws)]
        args = [part for one in draws for part in (one.cost, one.rate.amount, one.rate.seconds)]
        taken, wait_s, *left = await _DRAW.run(self._pipe, keys, len(draws), patience_s, *args)
        return Drawn(bool(taken), float(wait_s), tuple(int(one) for one in left))

    async def give_back(self, name: str, rates: Sequence[Rate], cost: int) -> None:
        keys = [self._bucket(name, rate) for rate in rates]
        await _GIVE_BACK.run(self._pipe, keys, cost, *(part for rate in rates for part in (rate.amount, rate.seconds)))

    async def pause(self, name: str, seconds: float) -> None:
        await _PAUSE.run(self._pipe, [self._names.of("pause", name)], span(seconds))

    async def enter(self, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
        return bool(await _ENTER.run(self._pipe, [self._names.of("places", name)], limit, holder, span(ttl_s)))

    async def leave(self, name: str, *, holder: str) -> None:
        key = self._names.of("places", name)
        checked(self._pipe, await ask(self._pipe, lambda to: _one(to.zrem(key, holder))))

    async def admit(self, target: str, rules: BreakerRules) -> Admission:
        keys = [self._names.of("breaker", target)]
        allowed, is_probe, after_s = await _ADMIT.run(self._pipe, keys, span(rules.probe_s))
        return Admission(bool(allowed), bool(is_probe), float(after_s))

    async def report(
        self, target: str, rules: BreakerRules, *, ok: bool, is_probe: bool = False, retry_after_s: float = 0.0
    ) -> bool:
        keys = [self._names.of("breaker", target), self._names.of("breaker", target, "outcomes", rules.window_s)]
        args = (int(ok), int(is_probe), span(retry_after_s), rules.failure_rate, rules.minimum)
        return bool(await _REPORT.run(self._pipe, keys, *args, span(rules.window_s), span(rules.cooldown_s)))

    async def read(self, name: str) -> str | None:
        keys = [self._names.value(name), self._names.restored(name)]
        kept, restored = await self._get(keys)
        if restored is None:
            await self._restore(name)
            kept, _ = await self._get(keys)
        return _value_of(kept)

    async def write(self, name: str, value: str | None, *, ttl_s: float | None = None) -> None:
        version = await self._durable.write_version(name, value, ttl_s=ttl_s)
        await self._copy(name, value, version, None if ttl_s is None else int(span(ttl_s) * 1000))

    async def _restore(self, name: str) -> None:
        for kept in await self._durable.values(name):
            await self._copy(kept.name, kept.value, kept.version, kept.left_ms)
        marker = self._names.restored(name)
        checked(self._pipe, await ask(self._pipe, lambda to: _one(to.set(marker, b"1", px=_RESTORED_MS))))

    async def _copy(self, name: str, value: str | None, version: int, left_ms: int | None) -> None:
        text, px = ("-", _REMOVED_MS) if value is None else (f"={value}", 0 if left_ms is None else max(1, left_ms))
        await _WRITE_VALUE.run(self._pipe, [self._names.value(name)], f"{version:016d}", text, px)

    async def _get(self, keys: list[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", checked(self._pipe, await ask(self._pipe, lambda to: _one(to.mget(keys)))))

    def _bucket(self, name: str, rate: Rate) -> str:
        return self._names.of("bucket", name, rate.amount, float(rate.seconds))


def _value_of(kept: bytes | None) -> str | None:
    """What is behind the 16 digits of the version: `=` and the value, or `-` for one that was removed."""
    if kept is None or kept[16:17] != b"=":
        return None
    return kept[17:].decode()


def _one(_queued: Pipeline | Any) -> int:
    return 1
