"""What is remembered for a while of who somebody is: by key, with an end, the least used forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from time import monotonic
from typing import Generic, TypeVar

from waystation.auth.arrival import Arrival
from waystation.auth.user import User

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_Key = tuple[tuple[bytes, ...], ...]


class Remembered(Generic[K, V]):
    """Values with an end. Belongs to one loop."""

    def __init__(self, *, ttl_s: float, max_size: int) -> None:
        self._ttl_s = ttl_s
        self._max_size = max_size
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if monotonic() >= found[0]:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def keep(self, key: K, value: V, *, ttl_s: float | None = None) -> None:
        """For the time of all, or for less."""
        ends = monotonic() + (self._ttl_s if ttl_s is None else min(ttl_s, self._ttl_s))
        self._kept[key] = (ends, value)
        self._kept.move_to_end(key)
        while len(self._kept) > self._max_size:
            self._kept.popitem(last=False)


class HandlerCache:
    """What the `authenticate` handler said, by the values of some headers (`auth.cache` of the project). Who sends none
    of these headers is asked every time."""

    def __init__(self, headers: Sequence[str], *, ttl_s: float, max_size: int) -> None:
        self._headers = tuple(name.lower().encode("latin-1", "replace") for name in headers)
        self._users = Remembered[_Key, User](ttl_s=ttl_s, max_size=max_size)

    def get(self, arrival: Arrival) -> User | None:
        key = self._key(arrival)
        return None if key is None else self._users.get(key)

    def keep(self, arrival: Arrival, user: User) -> None:
        if (key := self._key(arrival)) is not None:
            self._users.keep(key, user)

    def _key(self, arrival: Arrival) -> _Key | None:
        key = tuple(tuple(v for k, v in arrival.scope["headers"] if k == name) for name in self._headers)
        return key if any(key) else None
