"""The hash chain of an audit log: what a record's hash is made of, and finding out whether a chain is whole.

    hash(n) = sha256( hash(n-1) ‖ "tenant\\nseq\\nmicroseconds since 1970\\n" ‖ entry )        hash(0) = 32 zero bytes

Whoever changes, removes or inserts a record has to compute all later hashes again. Who can do that (the owner of the
database) is found out by a head that was kept elsewhere: `verify(..., expected=...)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from waystation_guards.audit.audit import AuditHead, AuditLog, AuditRecord

GENESIS: Final = bytes(32)
"""What the first record has in the place of a hash before it."""

BEGINNING: Final = AuditHead(0, GENESIS)
"""What a chain begins after."""

_ANOTHER: Final = "is not the record that was there when its hash was kept"
_NOT_READ: Final = "was not read: the chain's beginning was removed from here, and only its archive can show it"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def hash_of(*, tenant: str, seq: int, at: datetime, entry: str, prev: bytes) -> bytes:
    """The hash of a record. `at` counts in whole microseconds, as Postgres keeps them."""
    head = f"{tenant}\n{seq}\n{(at - _EPOCH) // timedelta(microseconds=1)}\n"
    return hashlib.sha256(prev + head.encode() + entry.encode()).digest()


def chained(*, tenant: str, at: datetime, entry: str, after: AuditHead) -> AuditRecord:
    """The record that follows a chain's end."""
    seq = after.seq + 1
    made = hash_of(tenant=tenant, seq=seq, at=at, entry=entry, prev=after.hash)
    return AuditRecord(tenant, seq, at, entry, after.hash, made)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a chain, at this number."""

    seq: int
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about a chain: how many records were read, where it ends, and what is wrong (or None)."""

    records: int
    head: AuditHead
    fault: Fault | None = None

    @property
    def is_whole(self) -> bool:
        return self.fault is None


async def verify(
    records: AsyncIterable[AuditRecord],
    *,
    expected: AuditHead | None = None,
    tenant: str | None = None,
    start: AuditHead = BEGINNING,
) -> Verdict:
    """Read a chain from its first record and say whether it is whole.

    `expected`: an earlier head that was kept elsewhere. `start`: the record before the first one that is read, where
    the chain's beginning was removed.
    """
    end, count = start, 0
    seen_expected = expected is None or expected.seq == 0 or expected == start
    async for record in records:
        count += 1
        if (problem := _problem(record, end, tenant)) is not None:
            return Verdict(count, end, Fault(end.seq + 1, problem))
        end = AuditHead(record.seq, record.hash)
        if expected is not None and record.seq == expected.seq:
            seen_expected = True
            if record.hash != expected.hash:
                return Verdict(count, end, Fault(record.seq, _ANOTHER))
    if not seen_expected and expected is not None and expected.seq <= start.seq:
        return Verdict(count, end, Fault(expected.seq, _NOT_READ if expected.seq < start.seq else _ANOTHER))
    if not seen_expected:
        return Verdict(count, end, Fault(end.seq + 1, "is missing: the chain was longer once"))
    return Verdict(count, end)


async def verify_log(
    log: AuditLog,
    tenant: str,
    *,
    expected: AuditHead | None = None,
    start: AuditHead = BEGINNING,
    archived: AsyncIterable[AuditRecord] | None = None,
) -> Verdict:
    """Whether a tenant's chain in a log is whole, while others may be writing to it. Raises what the log raises.

    `start`: the last record of those that were removed from its beginning. `archived`: records after `start` that are
    read elsewhere, before those of the log.
    """
    head = await log.head(tenant)

    async def all_records() -> AsyncIterator[AuditRecord]:
        nonlocal head
        after, before = start.seq, -1
        if archived is not None:
            async for record in archived:
                after = record.seq
                yield record
        while after > before:  # until there is nothing new
            before = after
            async for record in log.read(tenant, after=after):
                after = record.seq
                yield record
            head = await log.head(tenant)
            if head.seq <= after:
                return

    verdict = await verify(all_records(), expected=expected, tenant=tenant, start=start)
    if verdict.is_whole and head != verdict.head:
        return replace(verdict, fault=_cut_off(verdict.head, head))
    return verdict


def _cut_off(end: AuditHead, head: AuditHead) -> Fault:
    if head.seq > end.seq:
        return Fault(end.seq + 1, "is missing: the chain's end was cut off")
    return Fault(max(1, end.seq), "does not agree with the chain's head")


def _problem(record: AuditRecord, before: AuditHead, tenant: str | None) -> str | None:
    if record.seq != before.seq + 1:
        return f"is missing (the next one is {record.seq})" if record.seq > before.seq else "is there twice"
    if tenant is not None and record.tenant != tenant:
        return "belongs to another tenant"
    if record.prev != before.hash:
        return "does not follow the record before it"
    made = hash_of(tenant=record.tenant, seq=record.seq, at=record.at, entry=record.entry, prev=record.prev)
    return None if made == record.hash else "was changed"
