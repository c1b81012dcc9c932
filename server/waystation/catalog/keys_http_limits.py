"""`waystation.guards.http`: how often, and how many at a time, the API may be asked.

"http": {
    "limits": [
        {"per": "key", "rate": "60/minute", "routes": ["runs"], "burst": 10, "rates": {"<key id>": "600/minute"}},
        {"per": "tenant", "rate": "10000/hour", "algorithm": "sliding_window"},
        {"per": "address", "rate": "20/second"}
    ],
    "open_streams": [{"per": "key", "limit": 20}]
}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Per = Literal["key", "user", "tenant", "address"]
RouteClass = Literal["runs", "streams", "reads", "writes", "store", "admin"]

_RATE: Final = re.compile(r"\s*(\d{1,9})\s*(?:/|per)\s*(\d{1,6})?\s*(second|minute|hour|day)s?\s*", re.IGNORECASE)
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_FORM: Final = 'should be an amount and a time such as "100/minute" or "5/10 seconds"'


@dataclass(frozen=True, slots=True)
class Allowed:
    """So many requests in so many seconds."""

    amount: int
    seconds: int


def _allowed(value: object) -> Allowed:
    if isinstance(value, Allowed):
        return value
    matched = _RATE.fullmatch(value) if isinstance(value, str) else None
    if matched is None or not int(matched[1]) or matched[2] == "0":
        raise ValueError(_FORM)
    seconds = int(matched[2] or 1) * _SECONDS[matched[3].lower()]
    if seconds > 31 * 86_400:
        raise ValueError("should be about at most 31 days")
    return Allowed(int(matched[1]), seconds)


def _each_once(values: tuple[RouteClass, ...]) -> tuple[RouteClass, ...]:
    return tuple(dict.fromkeys(values))


AnyRate = Annotated[Allowed, BeforeValidator(_allowed)]
Routes = Annotated[tuple[RouteClass, ...], AfterValidator(_each_once)]
Network = IPv4Network | IPv6Network


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class LimitKeys(_Keys):
    """One entry of `limits`: for each owner, in all routes of these classes together. Without `routes`: in all."""

    per: Per
    rate: AnyRate
    routes: Routes = ()
    algorithm: Literal["token_bucket", "sliding_window"] = "token_bucket"
    burst: Annotated[int, Field(ge=1, le=10**9)] | None = None
    rates: dict[str, AnyRate] = Field(default_factory=dict[str, Allowed])
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")] | None = None

    @model_validator(mode="after")
    def _burst_is_a_buckets(self) -> Self:
        if self.burst is not None and self.algorithm != "token_bucket":
            raise ValueError("burst is for token buckets: a sliding window has none")
        if self.burst is not None and self.burst > self.rate.amount:
            raise ValueError(f"burst is {self.burst}, more than the rate's own {self.rate.amount}")
        return self


class OpenStreamKeys(_Keys):
    """One entry of `open_streams`: so many streams, waits and sockets at a time."""

    per: Per
    limit: Annotated[int, Field(ge=1, le=1_000_000)]


class ExemptKeys(_Keys):
    """`exempt`: who is not limited."""

    roles: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    addresses: tuple[Network, ...] = ()


class HttpLimitKeys(_Keys):
    """All of `waystation.guards.http`."""

    limits: tuple[LimitKeys, ...] = ()
    open_streams: tuple[OpenStreamKeys, ...] = ()
    fail: Literal["open", "closed"] = "open"
    headers: bool = True
    exempt: ExemptKeys = ExemptKeys()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [name for name, _ in self.named()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two limits are called {twice}: give them names")
        if len({one.per for one in self.open_streams}) < len(self.open_streams):
            raise ValueError("open_streams has two entries with the same per")
        return self

    def named(self) -> Iterator[tuple[str, LimitKeys]]:
        """The limits with their names: their own, or whom and what they are about."""
        for limit in self.limits:
            yield limit.name or "-".join((limit.per, *limit.routes)), limit
