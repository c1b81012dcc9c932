"""One thread as lines of JSON, from one installation to another: rows as Postgres spells them, so that nothing is lost.

{"waystation_thread": 1, "tenant": ..., "thread_id": ..., "schema": ...}
{"table":"thread","row":{...}}
...
{"end": rows, "sha256": of all lines before}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast
from uuid import UUID

import psycopg
from psycopg import sql

from waystation_db import migrate
from waystation_db.backup_fitting import complaint_about, refuse_early
from waystation_db.backup_format import Schema
from waystation_db.backup_tables import Conn, columns_of, first_row, listed, statement
from waystation_db.cipher import MARK, Cipher
from waystation_db.errors import BackupRefused
from waystation_db.resealing import rebind_face, rebind_thread
from waystation_db.sql import load
from waystation_db.store_names import Scope
from waystation_db.tenants import checkpoint_thread

_q = load("backup")

_BY_KEY = ("checkpoint_blobs", "checkpoint_writes", "checkpoints")
_OF_RUNS = ("run", "run_trace", "checkpoint_write_before")
_SEALED = (MARK, '"type":"aes-gcm:', '"type":"handlers')


@dataclass(frozen=True, slots=True)
class Target:
    """Whose the thread becomes, and its new id; None: it keeps its own."""

    tenant: str
    thread_id: str | None = None
    queued: Literal["paused", "pending"] = "paused"


@dataclass(frozen=True, slots=True)
class Imported:
    thread_id: str
    rows: int
    runs: int


async def export_thread(
    conn: Conn, tenant: str, thread_id: str, *, runs: bool = True, namespaces: Sequence[tuple[str, ...]] = ()
) -> AsyncIterator[str]:
    """The lines of a thread, of one moment. Raises BackupRefused: there is no such thread."""
    digest, count, is_sealed = hashlib.sha256(), 0, False
    async with conn.transaction():
        await conn.execute(_q["take_moment"])
        await conn.execute(_q["no_limits"])
        if not (await first_row(conn, _q["thread_is_there"], {"tenant": tenant, "thread": thread_id}))[0]:
            raise BackupRefused(f"there is no thread {thread_id} of the tenant {tenant!r}")
        first = json.dumps(
            {
                "waystation_thread": 1,
                "tenant": tenant,
                "thread_id": thread_id,
                "runs": runs,
                "schema": asdict(Schema(*await migrate.applied(conn))),
            }
        )
        digest.update(first.encode() + b"\n")
        yield first
        async for line in _rows(conn, tenant, thread_id, runs=runs, namespaces=namespaces):
            is_sealed = is_sealed or _is_sealed(line)
            digest.update(line.encode() + b"\n")
            count += 1
            yield line
        if is_sealed:
            async for line in _table(conn, "encryption_key", statement(_q["of_all"])):
                digest.update(line.encode() + b"\n")
                count += 1
                yield line
    yield json.dumps({"end": count, "sha256": digest.hexdigest()})


async def _rows(
    conn: Conn, tenant: str, thread_id: str, *, runs: bool, namespaces: Sequence[tuple[str, ...]]
) -> AsyncIterator[str]:
    whose = {"tenant": sql.Literal(tenant), "thread": sql.Literal(thread_id)}
    for name in ("thread", *_BY_KEY, *(_OF_RUNS if runs else ())):
        condition = statement(_q["of_one_key" if name in _BY_KEY else "of_one_thread"], **whose)
        async for line in _table(conn, name, condition):
            yield line
    for namespace in namespaces:
        below = sql.Literal(Scope.of(tenant).prefix(namespace) + ".")
        async for line in _table(conn, "store", statement(_q["of_namespace"], namespace=below)):
            yield line


async def _table(conn: Conn, name: str, condition: sql.Composed) -> AsyncIterator[str]:
    columns = listed([column.name for column in (await columns_of(conn))[name]])
    text = statement(_q["get_rows"], columns=columns, table=sql.Identifier(name), condition=condition)
    async for (row,) in conn.cursor().stream(text):
        yield f'{{"table":"{name}","row":{row}}}'


def read_head(lines: Iterable[str]) -> dict[str, Any]:
    """Check all lines, and return the first one. Raises BackupRefused: it is no such file, or damaged, or not whole."""
    digest, count, last = hashlib.sha256(), 0, ""
    first: Any = None
    for line in lines:
        if last:
            digest.update(last.encode() + b"\n")
            count += 1
        last = line.rstrip("\n")
        first = _parsed(last) if first is None else first
    head = cast(dict[str, Any], first) if isinstance(first, dict) else {}  # JSON: its names are texts
    if head.get("waystation_thread") != 1:
        raise BackupRefused("this is no thread that `waystation threads export` wrote")
    if _parsed(last) != {"end": count - 1, "sha256": digest.hexdigest()}:
        raise BackupRefused("the file is not whole: its last line does not agree with what is before it")
    try:
        UUID(head["thread_id"])
        complaint = complaint_about(Schema(**head["schema"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BackupRefused("the first line lacks something") from None
    if complaint:
        raise BackupRefused(complaint)
    return head


async def import_thread(
    conn: Conn, head: dict[str, Any], lines: Iterator[str], *, target: Target, cipher: Cipher | None = None
) -> Imported:
    """Put a thread in, in one transaction. `lines` are all of a file that `read_head` has checked.

    Raises:
        BackupRefused: the thread is here already, or holds encrypted values that cannot be bound to its new name, or is
            from after a migration that this database awaits.
    """
    thread_id = target.thread_id or str(head["thread_id"])
    moves = target.tenant != head["tenant"] or thread_id != head["thread_id"]
    params = {"tenant": target.tenant, "thread": thread_id}
    here = await columns_of(conn)
    rows = runs = 0
    is_sealed = False
    next(lines)
    try:
        async with conn.transaction():
            await conn.execute(_q["no_limits"])
            await refuse_early(conn, Schema(**head["schema"]))
            if (await first_row(conn, _q["thread_is_there"], params))[0]:
                raise BackupRefused(f"the thread {thread_id} is here already: import it under another id (--new-id)")
            for line in lines:
                name, row = _split(line)
                if name is None or (target.thread_id is not None and name in _OF_RUNS):
                    continue
                is_sealed = is_sealed or _is_sealed(row)
                changes = _changes(name, row, head, target)
                await _put(conn, name, row, changes, [column.name for column in here[name]])
                rows, runs = rows + 1, runs + (name == "run")
            if is_sealed and moves:
                await _rebind(conn, head, target, cipher)
            if target.queued == "paused":
                await conn.execute(_q["pause_thread"], params)
            await conn.execute(_q["wake"])
    except (psycopg.DataError, psycopg.IntegrityError, KeyError) as error:
        raise BackupRefused(f"the thread cannot be put in: {str(error).strip()}") from error
    return Imported(thread_id, rows, runs)


async def _put(conn: Conn, name: str, row: str, changes: dict[str, Any], columns: Sequence[str]) -> None:
    gently = name in ("store", "encryption_key")
    text = statement(
        _q["put_row"],
        table=sql.Identifier(name),
        columns=listed([column for column in columns if f'"{column}":' in row]),
        conflict=sql.SQL(_q["or_nothing"]) if gently else sql.SQL(""),
    )
    done = await conn.execute(text, {"row": row, "changes": json.dumps(changes)})
    if name == "store" and done.rowcount:
        item: dict[str, Any] = json.loads(row) | changes
        await conn.execute(_q["reindex_item"], {"prefix": item["prefix"], "key": item["key"]})


async def _rebind(conn: Conn, head: dict[str, Any], target: Target, cipher: Cipher | None) -> None:
    """Encrypted values are bound to their thread: seal them for the new one."""
    if cipher is None or target.tenant != head["tenant"] or target.thread_id is None:
        raise BackupRefused(
            "the thread has encrypted values, which are bound to its id and tenant: import it with both as they were, "
            "or under a new id with the project's keys at hand"
        )
    source, there = str(head["thread_id"]), target.thread_id
    await rebind_thread(conn, cipher, checkpoint_thread(target.tenant, source), checkpoint_thread(target.tenant, there))
    await rebind_face(conn, cipher, target.tenant, source=source, target=there)


def _changes(name: str, row: str, head: dict[str, Any], target: Target) -> dict[str, Any]:
    """What is different here: whose it is, and that nothing runs."""
    thread_id = target.thread_id or head["thread_id"]
    if name == "encryption_key":
        return {}
    if name == "store":
        prefix = str(json.loads(row)["prefix"])
        old, new = Scope.of(head["tenant"]).root, Scope.of(target.tenant).root
        return {"prefix": new + prefix.removeprefix(old)}
    if name in _BY_KEY:
        return {"thread_id": checkpoint_thread(target.tenant, thread_id)}
    changes: dict[str, Any] = {"tenant_id": target.tenant, "thread_id": thread_id}
    if name == "run" and json.loads(row)["status"] == "running":
        changes |= {"status": "pending", "lease_expires_at": None, "claimed_by": None}
    if name == "thread" and (target.thread_id is not None or not head["runs"]):
        changes |= {"active_runs": 0, "status": json.loads(row)["resting_status"]}
        if json.loads(row)["status"] != "busy":
            changes["status"] = json.loads(row)["status"]
    return changes


def _split(line: str) -> tuple[str | None, str]:
    """Table and row; None for the last line."""
    if not line.startswith('{"table":"'):
        return None, ""
    name, _, row = line.rstrip("\n")[len('{"table":"') :].partition('","row":')
    if name not in ("thread", "store", "encryption_key", *_BY_KEY, *_OF_RUNS):
        raise BackupRefused(f"the file has a row of {name!r}, which is no part of a thread")
    return name, row[:-1]


def _is_sealed(line: str) -> bool:
    return any(mark in line for mark in _SEALED)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
