"""What the guards' limiters, breakers, values and cached things are called outside of the process.

A name belongs to the tenant of the port, unless it begins with `ports.SHARED`. In Redis all keys that one script uses
share a hash tag, so that a cluster keeps them together: the name's own `{tag}` where it has one, else all of it.
"""

from __future__ import annotations

import re
from typing import Final

from waystation.guarding.ledger_operations import short
from waystation_guards.ports import SHARED

LONGEST_S: Final = 1e8
"""Spans are not longer than three years: what is longer overflows somewhere."""

LARGEST_VALUE: Final = 8 * 1024 * 1024
"""Bytes. A larger value is not cached: it would cost more than it saves."""


def owner_of(tenant: str, name: str) -> str:
    """Whose a name is: the tenant's, or nobody's and so everybody's."""
    return "" if name.startswith(SHARED) else tenant


def span(seconds: float) -> float:
    """A span that every store takes."""
    return max(0.0, min(float(seconds), LONGEST_S))


_TAG: Final = re.compile(r"[^{]*\{[^}]+\}")
"""What Redis takes for a hash tag: what is between the first opening brace and the next closing one."""


class RedisNames:
    """The keys of a tenant's things in Redis."""

    __slots__ = ("_prefix", "_tenant")

    def __init__(self, prefix: str, tenant: str) -> None:
        self._prefix = f"{prefix}waystation:guard:"
        self._tenant = tenant

    def of(self, kind: str, name: str, *more: object) -> str:
        """The key of something that belongs to a name."""
        owner, name = owner_of(self._tenant, name), short(name)
        tagged = name if _TAG.match(name) else f"{{{_plain(owner)}/{_plain(name)}}}"
        return ":".join((f"{self._prefix}{_plain(owner)}", kind, tagged, *map(str, more)))

    def value(self, name: str) -> str:
        """The key of a shared value. All of a tenant's are in one place."""
        owner = owner_of(self._tenant, name)
        return f"{self._prefix}{{{_plain(owner)}/values}}:{short(name)}"

    def restored(self, name: str) -> str:
        """The key that says that Redis has all shared values of this owner."""
        owner = owner_of(self._tenant, name)
        return f"{self._prefix}{{{_plain(owner)}/values}}"


def _plain(owner: str) -> str:
    """Without braces, which would be taken for a tag."""
    return owner.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
