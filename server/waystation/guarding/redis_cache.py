"""The guards' cache in Redis. Where content is encrypted, so is what is cached."""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio.client import Pipeline

from waystation.events.redis_pipe import RedisPipe
from waystation.guarding.guard_names import LARGEST_VALUE, RedisNames, owner_of, span
from waystation.guarding.redis_scripts import Script, ask, checked
from waystation_db.cipher import Cipher, pack, unpack
from waystation_db.errors import Undecipherable
from waystation_db.places import cache_place

_LOCK, _UNLOCK = Script.named("lock"), Script.named("unlock")


class RedisCache:
    """`waystation_guards.ports.Cache` of a tenant."""

    __slots__ = ("_cipher", "_names", "_pipe", "_tenant")

    def __init__(self, pipe: RedisPipe, *, tenant: str = "default", cipher: Cipher | None = None) -> None:
        self._pipe = pipe
        self._names = RedisNames(pipe.keys.prefix, tenant)
        self._tenant = tenant
        self._cipher = cipher

    async def get(self, key: str) -> bytes | None:
        name = self._names.of("cache", key)
        value = cast("bytes | None", checked(self._pipe, await ask(self._pipe, lambda to: _one(to.get(name)))))
        if value is None or self._cipher is None:
            return value
        try:
            return await unpack(self._cipher, cache_place(owner_of(self._tenant, key), key), value)
        except Undecipherable:  # encrypted with a key that is gone: as good as forgotten
            return None

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        if len(value) > LARGEST_VALUE:
            return
        if self._cipher is not None:
            value = await pack(self._cipher, cache_place(owner_of(self._tenant, key), key), value)
        name, px = self._names.of("cache", key), _milliseconds(ttl_s)
        checked(self._pipe, await ask(self._pipe, lambda to: _one(to.set(name, value, px=px))))

    async def lock(self, key: str, *, holder: str, ttl_s: float) -> bool:
        return bool(await _LOCK.run(self._pipe, [self._names.of("lock", key)], holder, _milliseconds(ttl_s)))

    async def unlock(self, key: str, *, holder: str) -> None:
        await _UNLOCK.run(self._pipe, [self._names.of("lock", key)], holder)


def _milliseconds(seconds: float) -> int:
    return max(1, int(span(seconds) * 1000))


def _one(_queued: Pipeline | Any) -> int:
    return 1
