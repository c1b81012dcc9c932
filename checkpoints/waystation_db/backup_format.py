"""What a backup consists of: parts (rows of one table as binary COPY has them, gzipped, named by their SHA-256) and a
manifest that lists them, says of which schema they are, and has a digest of itself. A manifest is written last: where
there is none, the backup is not complete."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from waystation_db.backup_tables import BY_NAME, Column
from waystation_db.errors import BackupRefused

FORMAT = "waystation-backup/1"
MANIFEST = "manifest.json"

_NAME = re.compile(r"[0-9a-f]{64}")
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a table. `sha256` and `stored_bytes` are of what is stored; `raw_bytes` of what Postgres gave."""

    table: str
    sha256: str
    rows: int
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Schema:
    """Names and checksums of migrations, and how far LangGraph's own have come."""

    migrations: Mapping[str, str]
    checkpoints: int
    store: int


@dataclass(frozen=True, slots=True)
class Manifest:
    created_at: str
    version: str
    postgres: str
    tenant: str | None
    schema: Schema
    encryption_keys: tuple[str, ...]
    columns: Mapping[str, tuple[Column, ...]]
    parts: tuple[Part, ...]
    digest: str = ""

    @property
    def rows(self) -> dict[str, int]:
        """How many rows of each table."""
        counts = dict.fromkeys(self.columns, 0)
        for part in self.parts:
            counts[part.table] += part.rows
        return counts

    @property
    def stored_bytes(self) -> int:
        return sum({part.sha256: part.stored_bytes for part in self.parts}.values())


def pack(rows: bytes) -> tuple[str, bytes]:
    """Name and content of a part."""
    data = gzip.compress(rows, _LEVEL, mtime=0)
    return hashlib.sha256(data).hexdigest(), data


def unpack(part: Part, data: bytes) -> bytes:
    """The rows of a part. Raises BackupRefused when it is not what the manifest says."""
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise BackupRefused(f"part {part.sha256[:12]} of {part.table} is damaged: its checksum does not agree")
    try:
        rows = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        raise BackupRefused(f"part {part.sha256[:12]} of {part.table} is damaged: it is no gzip file") from None
    if len(rows) != part.raw_bytes:
        raise BackupRefused(f"part {part.sha256[:12]} of {part.table} has {len(rows)} bytes, not {part.raw_bytes}")
    return rows


def write(manifest: Manifest) -> bytes:
    """The manifest as it is stored."""
    body = _body(manifest)
    return json.dumps({**body, "digest": _digest(body)}, indent=1).encode() + b"\n"


def sealed(manifest: Manifest) -> Manifest:
    """With its digest."""
    return replace(manifest, digest=_digest(_body(manifest)))


def read(data: bytes) -> Manifest:
    """Raises BackupRefused: no manifest, one of another format, or one that was changed."""
    try:
        body = cast(dict[str, Any], json.loads(data))
        found, digest = body.pop("format"), body.pop("digest")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupRefused(f"{MANIFEST} is damaged, or is not that of a backup") from None
    if found != FORMAT:
        raise BackupRefused(f"the backup has the format {found!r}; this version reads {FORMAT!r}")
    if _digest({"format": found, **body}) != digest:
        raise BackupRefused(f"{MANIFEST} was changed: its checksum does not agree")
    try:
        return _manifest(body, str(digest))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BackupRefused(f"{MANIFEST} lacks something") from None


def _body(manifest: Manifest) -> dict[str, Any]:
    schema = manifest.schema
    return {
        "format": FORMAT,
        "created_at": manifest.created_at,
        "version": manifest.version,
        "postgres": manifest.postgres,
        "tenant": manifest.tenant,
        "schema": {"migrations": dict(schema.migrations), "checkpoints": schema.checkpoints, "store": schema.store},
        "encryption_keys": list(manifest.encryption_keys),
        "counts": manifest.rows,
        "tables": {name: [[c.name, c.type] for c in columns] for name, columns in manifest.columns.items()},
        "parts": [[p.table, p.sha256, p.rows, p.raw_bytes, p.stored_bytes] for p in manifest.parts],
    }


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _manifest(body: dict[str, Any], digest: str) -> Manifest:
    schema = body["schema"]
    if unknown := sorted(set(body["tables"]) - BY_NAME.keys()):
        raise BackupRefused(f"the backup has tables that this version does not know: {', '.join(unknown)}")
    columns = {name: tuple(Column(str(c), str(t)) for c, t in pairs) for name, pairs in body["tables"].items()}
    return Manifest(
        created_at=str(body["created_at"]),
        version=str(body["version"]),
        postgres=str(body["postgres"]),
        tenant=None if body["tenant"] is None else str(body["tenant"]),
        schema=Schema(dict(schema["migrations"]), int(schema["checkpoints"]), int(schema["store"])),
        encryption_keys=tuple(map(str, body["encryption_keys"])),
        columns=columns,
        parts=tuple(_part(*values, known=columns) for values in body["parts"]),
        digest=digest,
    )


def _part(
    table: str, sha256: str, rows: int, raw_bytes: int, stored_bytes: int, *, known: Mapping[str, object]
) -> Part:
    if table not in known or not _NAME.fullmatch(sha256):
        raise ValueError(table)
    return Part(table, sha256, int(rows), int(raw_bytes), int(stored_bytes))
