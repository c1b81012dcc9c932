"""Records of an audit log as JSON Lines, and back: what an auditor takes away can be verified there.

    {"tenant":"acme","seq":1,"at":"2026-11-21T17:00:00.000000+00:00","entry":{...},"prev":"00…","hash":"9f…"}

An entry is written with sorted members, no spaces and ASCII only, so that its bytes are the same again when it is read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any, cast

from waystation_guards.audit.audit import AuditRecord


def as_object(record: AuditRecord) -> dict[str, Any]:
    """A record as clients see it."""
    return {
        "tenant": record.tenant,
        "seq": record.seq,
        "at": record.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "entry": record.members,
        "prev": record.prev.hex(),
        "hash": record.hash.hex(),
    }


def as_line(record: AuditRecord) -> str:
    """A record as a line, without its end."""
    return json.dumps(as_object(record), sort_keys=True, separators=(",", ":"))


async def from_lines(lines: Iterable[str]) -> AsyncIterator[AuditRecord]:
    """The records of exported lines.

    Raises:
        ValueError: a line is none; the message has its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            told = cast("dict[str, Any]", json.loads(line))
            yield AuditRecord(
                tenant=str(told["tenant"]),
                seq=int(told["seq"]),
                at=datetime.fromisoformat(told["at"]),
                entry=json.dumps(told["entry"], sort_keys=True, separators=(",", ":")),
                prev=bytes.fromhex(told["prev"]),
                hash=bytes.fromhex(told["hash"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is no record of an audit log: {error}") from None
