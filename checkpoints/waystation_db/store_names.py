"""Where an item's namespace ends up in LangGraph's table: one text, its labels joined by dots.

    default tenant    ("users", "u1")  ──▶  users.u1
    tenant "acme"     ("users", "u1")  ──▶  .acme.users.u1

No label may be empty or hold a dot, so nobody can name a namespace that begins with one: what is another tenant's
cannot even be said. Whoever searches below a namespace gets ranges of whole labels; nothing is ever a LIKE pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langgraph.store.base import InvalidNamespaceError, PutOp

from waystation_db.tenants import DEFAULT_TENANT

MAX_NAME_BYTES = 2000
"""Namespace and key together: Postgres indexes no more than 2,704 bytes, and vectors add a field's name."""

MAX_FIELD_BYTES = 500

RESERVED_ROOT = "langgraph"


@dataclass(frozen=True, slots=True)
class PrefixRange:
    """The texts from `low` (included) to `high` (excluded, None: to the end), without those from `gap` to `gap_end`.

    In the order of bytes, which is that of the index on `prefix`.
    """

    low: str
    high: str | None
    gap: str
    gap_end: str

    def params(self) -> dict[str, str | None]:
        """For a statement with these names."""
        return {"low": self.low, "high": self.high, "gap": self.gap, "gap_end": self.gap_end}


@dataclass(frozen=True, slots=True)
class Scope:
    """One tenant's part of the table. `root` is what its prefixes begin with."""

    root: str

    @classmethod
    def of(cls, tenant_id: str) -> Scope:
        if tenant_id == DEFAULT_TENANT:
            return cls("")
        return cls("." + tenant_id.replace("%", "%25").replace(".", "%2E") + ".")

    @property
    def depth(self) -> int:
        """How many labels the root has."""
        return self.root.count(".")

    def prefix(self, namespace: Sequence[str]) -> str:
        """The text of a namespace."""
        return self.root + ".".join(namespace)

    def namespace(self, prefix: str) -> tuple[str, ...]:
        """The namespace of a text of this tenant."""
        return tuple(prefix[len(self.root) :].split("."))

    def below(self, namespace: Sequence[str]) -> PrefixRange:
        """A namespace and all below it; everything of the tenant for an empty one."""
        if namespace:
            # "/" follows ".", and nothing is between a text and the same with U+0001, for U+0000 cannot be stored.
            text = self.prefix(namespace)
            return PrefixRange(text, text + "/", text + "\x01", text + ".")
        if self.root:
            return PrefixRange(self.root, self.root[:-1] + "/", "", "")
        return PrefixRange("", None, ".", "/")  # all but the other tenants


def check_put(op: PutOp) -> None:
    """Raise InvalidNamespaceError when an item cannot be put under this name; its labels are checked already."""
    if op.value is None:
        return
    if not op.namespace:
        raise InvalidNamespaceError("Namespace cannot be empty.")
    if op.namespace[0] == RESERVED_ROOT:
        raise InvalidNamespaceError(f'Root label for namespace cannot be "{RESERVED_ROOT}". Got: {op.namespace}')
    size = sum(len(label.encode(errors="replace")) + 1 for label in op.namespace) + len(op.key.encode(errors="replace"))
    if size > MAX_NAME_BYTES:
        raise InvalidNamespaceError(f"namespace and key are {size} bytes long; at most {MAX_NAME_BYTES} can be stored")
