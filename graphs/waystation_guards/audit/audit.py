"""The audit log: who did what, where, and what came of it. Append-only, hash-chained per tenant, exportable.

    await audit(ports, AuditEntry.at(site, "tool.refused", outcome="refused", tool="refund", arguments={...}))

Whoever keeps it implements `AuditLog`: `audit_memory.py` for plain scripts, the server on Postgres. The chain itself is
in `audit_chain.py`: every record has the hash of the one before it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, Protocol, cast

from waystation_guards.calls import CallSite
from waystation_guards.redaction.redaction import DEFAULT, Redactor

log = logging.getLogger(__name__)

Outcome = Literal["allowed", "refused", "failed", "done"]
ArgumentsAs = Literal["redacted", "hashed", "none"]

_LONGEST_TEXT: Final = 500
_MOST_MEMBERS: Final = 50
_DEEPEST: Final = 4


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened. `action` is `what.done`: `tool.refused`, `run.created`, `key.revoked`.

    Empty members are left out of what is kept. `arguments` has been redacted or hashed before it gets here.
    """

    tenant: str
    action: str
    outcome: Outcome = "done"
    user: str = ""
    key: str = ""
    resource: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    thread: str = ""
    run: str = ""
    attempt: int = 0
    node: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def at(
        cls,
        site: CallSite,
        action: str,
        *,
        outcome: Outcome = "done",
        resource: str = "",
        tool: str = "",
        arguments: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
        form: ArgumentsForm | None = None,
    ) -> AuditEntry:
        """An entry about something that happened at a call site. `form`: how arguments are kept."""
        return cls(
            tenant=site.tenant,
            action=action,
            outcome=outcome,
            user=site.user,
            key=site.key,
            resource=resource,
            tool=tool,
            arguments=(form or REDACTED).of(arguments or {}),
            thread=site.thread,
            run=site.run,
            attempt=site.attempt if site.run else 0,
            node=site.node,
            detail=REDACTED.of(detail or {}),
        )

    def as_json(self) -> str:
        """The entry as it is hashed and kept: sorted members, no spaces, ASCII; without what databases refuse."""
        members = {name: value for name, value in asdict(self).items() if value not in ("", 0, {}) and name != "tenant"}
        return json.dumps(_clean(members), sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class ArgumentsForm:
    """How the arguments of a tool are kept: without what looks personal or secret, as keyed hashes, or not at all.

    `pepper`: the key of the hashes. Without one, a value that can be guessed can be found again.
    """

    kept: ArgumentsAs = "redacted"
    redactor: Redactor = DEFAULT
    pepper: str = ""

    def of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as they are kept: JSON values, cut to a size that a log can bear."""
        if self.kept == "none" or not arguments:
            return {}
        if self.kept == "hashed":
            return {name: self._hash(value) for name, value in list(arguments.items())[:_MOST_MEMBERS]}
        return cast("dict[str, Any]", self.redactor.value(_cut(dict(arguments), 0)))

    def _hash(self, value: Any) -> str:
        text = json.dumps(value, sort_keys=True, default=repr)
        return (
            "sha256:" + hmac.new(self.pepper.encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
        )


REDACTED: Final = ArgumentsForm()
"""How arguments are kept where nobody says it."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An entry in its tenant's chain. `seq` begins with 1 and has no gaps; `entry` is its JSON, byte for byte."""

    tenant: str
    seq: int
    at: datetime
    entry: str
    prev: bytes
    hash: bytes

    @property
    def members(self) -> dict[str, Any]:
        """What happened, as a dict."""
        return cast("dict[str, Any]", json.loads(self.entry))


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Where a tenant's chain ends; `seq` 0 for one that has no record."""

    seq: int
    hash: bytes


class AuditSink(Protocol):
    """What entries are given to. It never raises and does not wait for anything that may be away."""

    async def record(self, *entries: AuditEntry) -> None: ...


class AuditLog(AuditSink, Protocol):
    """What keeps entries and gives them back."""

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Write entries; they are kept when this returns. Raises what the store raises."""
        ...

    def read(
        self, tenant: str, *, after: int = 0, limit: int | None = None, action: str | None = None
    ) -> AsyncIterator[AuditRecord]:
        """A tenant's records in order, from the one after `after`. `action`: only those, or with `tool.*` a family."""
        ...

    async def head(self, tenant: str) -> AuditHead:
        """Where the tenant's chain ends, by its own book-keeping."""
        ...


async def audit(where: Any, *entries: AuditEntry) -> None:
    """Give entries to the audit log of some ports (anything with a member `audit`); nothing where there is none."""
    sink: AuditSink | None = getattr(where, "audit", None)
    if sink is None or not entries:
        return
    tenant = getattr(where, "tenant", "")
    try:
        await sink.record(*(replace(entry, tenant=tenant or entry.tenant) for entry in entries))
    except Exception:  # what is guarded must not fail for its log; the entry is in the other one
        log.exception("an audit entry could not be recorded", extra={"actions": [entry.action for entry in entries]})


def _cut(value: Any, depth: int) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if abs(value) < float("inf") else repr(value)
        case str():
            return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}… ({len(value)} characters)"
        case dict() | list() | tuple() if depth >= _DEEPEST:
            return "…"
        case dict():
            members = cast("dict[Any, Any]", value)
            return {str(name)[:100]: _cut(one, depth + 1) for name, one in list(members.items())[:_MOST_MEMBERS]}
        case list() | tuple():
            return [_cut(one, depth + 1) for one in list(cast("Sequence[Any]", value))[:_MOST_MEMBERS]]
        case _:
            return f"<{type(value).__name__}>"


def _clean(value: Any) -> Any:
    """Without NUL and lone surrogates, which Postgres takes in no text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_clean(one) for one in cast("list[Any]", value)]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return repr(value)
    return value
