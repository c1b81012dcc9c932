"""An audit log in this process, for plain scripts and tests: the same chain, gone with the process."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from waystation_guards.audit.audit import AuditEntry, AuditHead, AuditRecord
from waystation_guards.audit.chain import GENESIS, chained


class MemoryAuditLog:
    """Keeps everything, in order, for each tenant. Any thread may use it."""

    def __init__(self) -> None:
        self._chains: dict[str, list[AuditRecord]] = {}
        self._lock = threading.Lock()

    async def record(self, *entries: AuditEntry) -> None:
        """As `append`: there is nothing to wait for."""
        await self.append(entries)

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Put entries at the end of their tenants' chains."""
        with self._lock:
            for entry in entries:
                chain = self._chains.setdefault(entry.tenant, [])
                after = AuditHead(chain[-1].seq, chain[-1].hash) if chain else AuditHead(0, GENESIS)
                chain.append(chained(tenant=entry.tenant, at=datetime.now(UTC), entry=entry.as_json(), after=after))

    async def read(
        self, tenant: str, *, after: int = 0, limit: int | None = None, action: str | None = None
    ) -> AsyncIterator[AuditRecord]:
        """A tenant's records in order."""
        with self._lock:
            rest = self._chains.get(tenant, [])[after:]
        for record in [one for one in rest if is_of(one, action)][:limit]:
            yield record

    async def head(self, tenant: str) -> AuditHead:
        """Where the chain ends."""
        with self._lock:
            chain = self._chains.get(tenant)
        return AuditHead(chain[-1].seq, chain[-1].hash) if chain else AuditHead(0, GENESIS)


def is_of(record: AuditRecord, action: str | None) -> bool:
    """Whether a record is about an action, or about one of a family (`tool.*`)."""
    if action is None:
        return True
    mine = str(record.members["action"])
    return mine.startswith(action[:-1]) if action.endswith(".*") else mine == action
