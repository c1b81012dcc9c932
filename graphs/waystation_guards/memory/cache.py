"""A cache in the memory of one process, bounded; what was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

MAX_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class MemoryCache:
    """`waystation_guards.ports.Cache`."""

    max_bytes: int = MAX_BYTES
    clock: Callable[[], float] = monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _values: OrderedDict[str, tuple[bytes, float]] = field(default_factory=OrderedDict[str, tuple[bytes, float]])
    _size: int = 0
    _locks: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])

    async def get(self, key: str) -> bytes | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            value, expires = found
            if expires <= self.clock():
                self._drop(key)
                return None
            self._values.move_to_end(key)
            return value

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        with self._lock:
            self._drop(key)
            if len(value) > self.max_bytes:
                return
            self._values[key] = value, self.clock() + ttl_s
            self._size += len(value)
            while self._size > self.max_bytes:
                self._drop(next(iter(self._values)))

    async def lock(self, key: str, *, holder: str, ttl_s: float) -> bool:
        with self._lock:
            now = self.clock()
            held = self._locks.get(key)
            if held is not None and held[1] > now and held[0] != holder:
                return False
            self._locks[key] = holder, now + ttl_s
            return True

    async def unlock(self, key: str, *, holder: str) -> None:
        with self._lock:
            if (held := self._locks.get(key)) is not None and held[0] == holder:
                del self._locks[key]

    def _drop(self, key: str) -> None:
        if (found := self._values.pop(key, None)) is not None:
            self._size -= len(found[0])
