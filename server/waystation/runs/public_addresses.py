"""Which IP addresses a webhook may go to: public ones, and what the operator allows.

The check is made on the very address that is connected to (`worker/webhook_post.py`), and here on addresses that stand
in a URL, in whichever spelling the C library would understand.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        # What `is_global` calls global, in some version of Python, and is not for us.
        *("168.63.129.16/32", "192.88.99.0/24", "192.0.0.0/24", "100.64.0.0/10", "198.18.0.0/15", "240.0.0.0/4"),
        *("fec0::/10", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "64:ff9b:1::/48"),
    )
)
"""168.63.129.16 answers for the host in Azure; the others are reserved, shared or documentation."""

_CARRIES_V4: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What is allowed beside public addresses."""

    loopback: bool = False
    networks: tuple[Network, ...] = ()

    def refusal(self, address: Address) -> str | None:
        """Why nothing may be sent to an address; None: it may."""
        if any(address.version == network.version and address in network for network in self.networks):
            return None
        inner = _inner(address)
        if inner is not None:
            return self.refusal(inner)
        if address.is_loopback:
            return None if self.loopback else "a loopback address"
        return _kind(address)


def _kind(address: Address) -> str | None:
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "no address"
    if address.is_private:
        return "a private address"
    known = any(address.version == network.version and address in network for network in _NOT_PUBLIC)
    return None if address.is_global and not known else "not a public address"


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, 6to4, Teredo, NAT64, or of the old compatible form."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    number = int(address)
    if address in _CARRIES_V4 or 1 < number < 2**32:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return None


def address_in(host: str) -> Address | None:
    """The address that a URL's host is, in any spelling (`127.1`, `0x7f000001`, `[::1]`); None for a name."""
    bare = host.removeprefix("[").removesuffix("]").partition("%")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare)) if bare[:1].isdigit() else None
    except (OSError, ValueError):
        return None


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks from `10.0.0.0/8` and its like. Raises ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)
