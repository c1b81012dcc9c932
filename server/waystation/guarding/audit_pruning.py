"""The audit log's retention: the beginning of a chain may go when it is verified, and verification goes on after it.

    1 … 500 │ 501 … 512      `audit_anchor` keeps what 501 follows: 500 and its hash, when they went, and by whom
            └ anchor         record 512, `audit.pruned`, says the same: an anchor that no record tells of is a fault

Records are never changed by it, and whoever writes waits no longer than for another record.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from waystation.guarding.audit import PostgresAuditLog
from waystation_db import audit as rows
from waystation_db.errors import AuditBroken
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditEntry, AuditHead, AuditRecord
from waystation_guards.audit.chain import BEGINNING, Fault, Verdict, verify, verify_log

log = logging.getLogger(__name__)

PRUNED: Final = "audit.pruned"
UPKEEP: Final = "upkeep"
"""By whom what `waystation.audit.keep_days` says is done."""
MOST_AT_ONCE: Final = 50_000
"""How many records upkeep removes in one transaction."""
_ALL: Final = 2**62


@dataclass(frozen=True, slots=True)
class Prefix:
    """The records of a tenant's chain after `since`, up to and with `upto`, that are all older than `before`."""

    tenant: str
    since: AuditHead
    upto: AuditHead
    before: datetime
    is_worth: bool

    @property
    def count(self) -> int:
        return self.upto.seq - self.since.seq

    def note(self, *, by: str, archive: str) -> str:
        """The entry that the chain keeps of their removal."""
        detail = {
            "seq": self.upto.seq,
            "hash": self.upto.hash.hex(),
            "records": self.count,
            "before": self.before.isoformat(),
            **({"archive": archive} if archive else {}),
        }
        return AuditEntry(self.tenant, PRUNED, user=by, detail=detail).as_json()


async def find_prefix(db: Database, tenant: str, *, before: datetime, most: int = _ALL) -> Prefix | None:
    """What of a tenant's chain is older than `before`; None where nothing is."""
    async with db.connection() as conn:
        anchor = await rows.get_anchor(conn, tenant)
        found = await rows.find_prefix(conn, tenant, before=before, most=most)
    if found is None:
        return None
    return Prefix(tenant, start_of(anchor), AuditHead(found.seq, found.hash), before, found.is_worth)


async def records_of(db: Database, prefix: Prefix) -> AsyncIterator[AuditRecord]:
    """The records of a prefix, each verified before it is given.

    Raises:
        AuditBroken: one was changed or is missing, or somebody else has pruned meanwhile.
    """
    end = prefix.since
    async for record in PostgresAuditLog(db).read(prefix.tenant, after=end.seq, limit=prefix.count):
        fault = (await verify(_only(record), tenant=prefix.tenant, start=end)).fault
        if fault is not None:
            raise AuditBroken(f"record {fault.seq} {fault.problem}")
        end = AuditHead(record.seq, record.hash)
        yield record
    if end != prefix.upto:
        raise AuditBroken(f"record {end.seq + 1} is missing")


async def remove(db: Database, prefix: Prefix, *, by: str, archive: str = "") -> bool:
    """Remove a prefix, leave its anchor and a record in the chain. Commits. False: another prune was first.

    Raises:
        AuditBroken: one of its records was changed or is missing; nothing was removed.
    """
    async with db.connection() as conn:
        gone = await rows.prune(
            conn,
            prefix.tenant,
            since=prefix.since.seq,
            upto=prefix.upto.seq,
            digest=prefix.upto.hash,
            made_by=by,
            note=prefix.note(by=by, archive=archive),
        )
    return gone is not None


async def keep_days(db: Database, *, days: int) -> int:
    """Remove what is older than so many whole days (UTC, on the database's clock) of all tenants; how many records.

    A chain that is not whole stays as it is, which is logged. Notes of prunes alone are no reason for another one.
    """
    async with db.connection() as conn:
        before = await rows.days_ago(conn, days=days)
        tenants = await rows.list_due(conn, before=before)
    count = 0
    for tenant in tenants:
        try:
            count += await _prune_all(db, tenant, before)
        except AuditBroken as error:
            log.error("an audit log is not whole and was not pruned", extra={"tenant": tenant, "problem": str(error)})
    return count


async def _prune_all(db: Database, tenant: str, before: datetime) -> int:
    count = 0
    while (prefix := await find_prefix(db, tenant, before=before, most=MOST_AT_ONCE)) is not None and prefix.is_worth:
        if not await remove(db, prefix, by=UPKEEP):
            break
        count += prefix.count
        log.info("the audit log was pruned", extra={"tenant": tenant, "records": prefix.count, "upto": prefix.upto.seq})
    return count


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found out about a chain, and what was removed last of its beginning."""

    verdict: Verdict
    anchor: rows.AnchorRow | None


async def verify_chain(
    db: Database,
    tenant: str,
    *,
    expected: AuditHead | None = None,
    archived: Callable[[], AsyncIterable[AuditRecord]] | None = None,
    start: AuditHead = BEGINNING,
) -> Verified:
    """Whether a tenant's chain is whole from its last anchor on, while others write to it and prune it.

    `archived`: what was removed, after `start`; it and what is in the database are then one chain.
    """
    while True:
        anchor = await PostgresAuditLog(db).anchor(tenant)
        chain = _Noticing(db, anchor)
        if archived is None:
            verdict = await verify_log(chain, tenant, expected=expected, start=start_of(anchor))
        else:
            verdict = await verify_log(
                chain, tenant, expected=expected, start=start, archived=chain.noticed(archived())
            )
        if not verdict.is_whole and await chain.anchor(tenant) != anchor:
            continue  # pruned while it was read
        if verdict.is_whole and anchor is not None and not chain.is_told:
            fault = Fault(anchor.seq, "was removed with all before it, and no record of the chain tells of that")
            verdict = replace(verdict, fault=fault)
        return Verified(verdict, anchor)


def start_of(anchor: rows.AnchorRow | None) -> AuditHead:
    """What the records after an anchor follow."""
    return BEGINNING if anchor is None else AuditHead(anchor.seq, anchor.hash)


class _Noticing(PostgresAuditLog):
    """A log that notices the record of a prune when it is read."""

    def __init__(self, db: Database, anchor: rows.AnchorRow | None) -> None:
        super().__init__(db)
        self._anchor = anchor
        self.is_told = False

    async def read(
        self, tenant: str, *, after: int = 0, limit: int | None = None, action: str | None = None
    ) -> AsyncIterator[AuditRecord]:
        async for record in self.noticed(super().read(tenant, after=after, limit=limit, action=action)):
            yield record

    async def noticed(self, records: AsyncIterable[AuditRecord]) -> AsyncIterator[AuditRecord]:
        """The records, looked at on the way."""
        async for record in records:
            self.is_told = self.is_told or self._tells(record)
            yield record

    def _tells(self, record: AuditRecord) -> bool:
        if self._anchor is None or PRUNED not in record.entry:
            return False
        members = record.members
        detail: dict[str, Any] = members.get("detail") or {}
        told = (members.get("action"), detail.get("seq"), detail.get("hash"))
        return told == (PRUNED, self._anchor.seq, self._anchor.hash.hex())


async def _only(record: AuditRecord) -> AsyncIterator[AuditRecord]:
    yield record
