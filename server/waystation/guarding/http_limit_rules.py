"""Limits of requests as they are counted: which of them are about a request, and whose it counts as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

from waystation.auth import Principal
from waystation.auth.principal import DEFAULT_TENANT
from waystation.auth.roles import roles_of
from waystation.catalog.keys_http_limits import Allowed, HttpLimitKeys, LimitKeys, Network, Per
from waystation_guards.ports import Draw, Rate


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sent a request. Without credentials all but the address and the default tenant are empty."""

    address: str
    tenant: str = DEFAULT_TENANT
    user: str = ""
    key: str = ""
    roles: frozenset[str] = frozenset()

    def owner(self, per: Per) -> str:
        """Whose a request counts as. Who has no key counts as the user, who is nobody as the address."""
        match per:
            case "tenant":
                return self.tenant
            case "key":
                return self.key or self.owner("user")
            case "user":
                return f"user:{self.user}" if self.user else self.owner("address")
            case "address":
                return f"address:{self.address}"

    def names(self, per: Per) -> str:
        """The owner as the configuration names it."""
        return {"tenant": self.tenant, "key": self.key, "user": self.user, "address": self.address}[per]


def asker_of(client: tuple[str, int] | None, caller: Principal | None) -> Asker:
    """Who asks, from the address that uvicorn found and from what the gate found out."""
    address = _network_of(client[0]) if client else ""
    if caller is None:
        return Asker(address)
    user = cast("Mapping[str, Any]", caller.user or {})
    key = user.get("api_key")
    return Asker(
        address, caller.tenant_id, caller.identity, key if isinstance(key, str) else "", roles_of(caller.permissions)
    )


@lru_cache(maxsize=4096)
def _network_of(text: str) -> str:
    """An address; of IPv6 the network that a subscriber gets, in which addresses cost nothing."""
    try:
        address = ip_address(text)
    except ValueError:
        return text[:64]
    if not isinstance(address, IPv6Address):
        return str(address)
    if (inner := address.ipv4_mapped) is not None:
        return str(inner)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


@lru_cache(maxsize=65_536)
def _short(owner: str) -> str:
    """An owner as part of a name: of one length, whatever is in it."""
    return blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Window:
    """At most `amount` requests within any `seconds`. `key` is whose they are."""

    key: str
    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, ready to be asked."""

    name: str
    keys: LimitKeys
    policies: dict[Allowed, str] = field(default_factory=dict[Allowed, str])

    def allowed(self, asker: Asker) -> Allowed:
        """The rate for whoever asks."""
        return self.keys.rates.get(asker.names(self.keys.per), self.keys.rate) if self.keys.rates else self.keys.rate

    def draw(self, asker: Asker, allowed: Allowed, cost: int) -> Draw:
        """What a request draws from a token bucket."""
        size = min(self.keys.burst or allowed.amount, allowed.amount)
        rate = Rate(size, allowed.seconds * size / allowed.amount)
        return Draw(f"{{http/{_short(asker.tenant)}}}/{self.name}/{_short(asker.owner(self.keys.per))}", rate, cost)

    def window(self, asker: Asker, allowed: Allowed) -> Window:
        """The sliding window that a request counts in."""
        owner = f"{_short(asker.tenant)}/{self.name}/{_short(asker.owner(self.keys.per))}"
        return Window(owner, allowed.amount, allowed.seconds)

    def policy(self, allowed: Allowed) -> str:
        """The limit in the header `RateLimit-Policy`."""
        text = self.policies.get(allowed)
        if text is None:
            text = self.policies[allowed] = f'"{self.name}";q={allowed.amount};w={allowed.seconds}'
        return text


def name_of_streams(asker: Asker, per: Per) -> str:
    """The name of the places for open streams of an owner."""
    return f"{{http/{_short(asker.tenant)}}}/open-{per}/{_short(asker.owner(per))}"


class Rules:
    """The limits of a project."""

    def __init__(self, keys: HttpLimitKeys) -> None:
        self.keys = keys
        self._limits = [Limit(name, limit) for name, limit in keys.named()]
        self._chosen = dict[tuple[bool, frozenset[str]], tuple[Limit, ...]]()

    @property
    def has_windows(self) -> bool:
        return any(limit.keys.algorithm == "sliding_window" for limit in self._limits)

    @property
    def asks_addresses(self) -> bool:
        return any(limit.keys.per == "address" for limit in self._limits)

    def about(self, classes: frozenset[str], *, addresses: bool) -> tuple[Limit, ...]:
        """The limits of routes with these classes: those by address, or all others."""
        found = self._chosen.get((addresses, classes))
        if found is None:
            found = self._chosen[addresses, classes] = tuple(
                limit
                for limit in self._limits
                if (limit.keys.per == "address") == addresses
                and (not limit.keys.routes or not classes.isdisjoint(limit.keys.routes))
            )
        return found

    def is_exempt(self, asker: Asker) -> bool:
        """Whether whoever asks is not limited."""
        exempt = self.keys.exempt
        return (
            asker.tenant in exempt.tenants
            or (bool(exempt.roles) and not asker.roles.isdisjoint(exempt.roles))
            or (bool(exempt.addresses) and _lies_in(asker.address, exempt.addresses))
        )


@lru_cache(maxsize=4096)
def _lies_in(text: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(text.partition("/")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)
