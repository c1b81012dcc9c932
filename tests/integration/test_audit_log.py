"""The audit log in Postgres: one chain for writers of many processes, crashes in the middle, and nobody changes it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
import pytest

from waystation.catalog.keys_audit import AuditKeys
from waystation.guarding.audit import AuditWriter, PostgresAuditLog
from waystation.guarding.audit_keys import RunAudit
from waystation_db.errors import DatabaseUnavailable
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditEntry, audit
from waystation_guards.audit.chain import verify_log
from waystation_guards.calls import CallSite
from waystation_guards.errors import NotPermitted
from waystation_guards.memory.ports import memory_ports
from waystation_guards.watching.watcher import ToolCall

pytestmark = pytest.mark.anyio

WRITER = """
import asyncio, sys
from waystation_db.pool import Database
from waystation.guarding.audit import PostgresAuditLog
from waystation_guards.audit.audit import AuditEntry

async def main(uri, name, batches):
    async with Database(uri, max_size=3, name=name) as db:
        log = PostgresAuditLog(db)
        async def write(part):
            for number in range(batches):
                entries = [AuditEntry(tenant, f"{name}.{part}.{number}") for tenant in ("acme", "other")] * 2
                await log.append(entries)
                if not number:
                    print("writes", flush=True)
        await asyncio.gather(write("a"), write("b"))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def writer(uri: str, name: str, batches: int) -> asyncio.subprocess.Process:
    command = (sys.executable, "-c", WRITER, uri, name, str(batches))
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def test_writers_of_many_processes_keep_one_chain_for_each_tenant(db: Database) -> None:
    async with asyncio.timeout(60):
        processes = [await writer(db.conninfo, f"w{number}", 25) for number in range(3)]
        assert [await process.wait() for process in processes] == [0, 0, 0]
    log = PostgresAuditLog(db)
    for tenant in ("acme", "other"):
        verdict = await verify_log(log, tenant)
        assert (verdict.fault, verdict.records, verdict.head.seq) == (None, 300, 300)
        actions = [one.members["action"] async for one in log.read(tenant)]
        for name in ("w0.a", "w1.b"):  # each writer's own order
            mine = [int(one.rpartition(".")[2]) for one in actions if one.startswith(name)]
            assert mine == sorted(mine)
            assert len(mine) == 50


async def test_a_writer_that_is_killed_leaves_a_whole_chain_that_others_go_on_with(db: Database) -> None:
    log = PostgresAuditLog(db)
    async with asyncio.timeout(60):
        for number in range(3):
            process = await writer(db.conninfo, f"k{number}", 100_000)
            assert process.stdout is not None
            await process.stdout.readline()
            start = (await log.head("acme")).seq
            while (await log.head("acme")).seq < start + 20:  # noqa: ASYNC110
                await asyncio.sleep(0)  # each look is a round trip
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
    await log.append([AuditEntry("acme", "after")])
    verdict = await verify_log(log, "acme")
    assert verdict.fault is None
    assert verdict.records >= 60
    assert verdict.records % 2 == 1  # batches of two, all or none, and the last one


async def execute(db: Database, statement: LiteralString) -> None:
    async with db.connection() as conn:
        await conn.execute(statement)


async def chain_of(db: Database, count: int) -> PostgresAuditLog:
    log = PostgresAuditLog(db)
    await log.append([AuditEntry("acme", f"test.{number}", detail={"text": "ä\x00\ud800"}) for number in range(count)])
    return log


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_record set entry = '{}' where seq = 1",
        "delete from audit_record where seq = 3",
        "truncate audit_record",
        "update audit_head set seq = 1",
        "update audit_head set hash = decode(repeat('00', 32), 'hex')",
        "update audit_head set seq = seq + 1, tenant_id = 'other'",
        "delete from audit_head",
        "truncate audit_head",
    ],
)
async def test_nobody_changes_what_was_written(db: Database, statement: LiteralString) -> None:
    log = await chain_of(db, 3)
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        await execute(db, statement)
    assert (await verify_log(log, "acme")).is_whole


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ('update audit_record set entry = \'{"action":"harmless"}\' where seq = 2', 2),
        ("update audit_record set at = at + interval '1 microsecond' where seq = 2", 2),
        ("delete from audit_record where seq = 2", 2),
        ("delete from audit_record where seq = 3", 3),
        ("delete from audit_record", 1),
        ("delete from audit_head", 3),
        ("update audit_head set seq = 2, hash = (select hash from audit_record where seq = 2)", 3),
    ],
)
async def test_what_an_owner_does_past_the_triggers_is_found(db: Database, statement: LiteralString, seq: int) -> None:
    log = await chain_of(db, 3)
    async with db.connection() as conn:
        await conn.execute("set session_replication_role = replica")
        await conn.execute(statement)
        await conn.execute("reset session_replication_role")
    fault = (await verify_log(log, "acme")).fault
    assert fault is not None
    assert fault.seq == seq


async def test_pages_follow_each_other_and_families_of_actions_are_found(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waystation.guarding.audit._PAGE", 7)
    log = await chain_of(db, 30)
    assert [one.seq async for one in log.read("acme")] == list(range(1, 31))
    assert [one.seq async for one in log.read("acme", after=20, limit=3)] == [21, 22, 23]
    assert [one.seq async for one in log.read("acme", action="test.7")] == [8]
    assert len([one async for one in log.read("acme", action="test.*", limit=20)]) == 20
    assert [one async for one in log.read("other")] == []


async def test_a_writer_gathers_and_writes_what_waits_before_it_goes(db: Database) -> None:
    log = PostgresAuditLog(db)
    async with AuditWriter.running(log) as writer:
        for number in range(1200):
            await writer.record(AuditEntry("acme", f"n.{number}"))
    assert [one.members["action"] async for one in log.read("acme")] == [f"n.{number}" for number in range(1200)]
    await writer.record(AuditEntry("acme", "late"))
    assert (await log.head("acme")).seq == 1200


async def test_a_durable_writer_says_it_is_written_when_it_is(db: Database) -> None:
    log = PostgresAuditLog(db)
    async with AuditWriter.running(log, durable=True) as writer:
        await writer.record(AuditEntry("acme", "one"), AuditEntry("acme", "two"))
        assert (await log.head("acme")).seq == 2

        def elsewhere() -> None:  # the graph loop, or a node's thread
            asyncio.run(writer.record(AuditEntry("acme", "three")))

        await asyncio.to_thread(elsewhere)
        assert (await log.head("acme")).seq == 3


async def test_entries_wait_while_the_database_is_away_and_keep_their_order(db: Database) -> None:
    class Away(PostgresAuditLog):
        failures = 2

        async def append(self, entries: Any) -> None:
            if self.failures:
                self.failures -= 1
                raise DatabaseUnavailable("away")
            await super().append(entries)

    log = Away(db)
    async with AuditWriter.running(log, durable=True) as writer:
        first = writer.note(AuditEntry("acme", "one"))
        second = writer.note(AuditEntry("acme", "two"))
        assert first is not None
        assert second is not None
        async with asyncio.timeout(60):
            await asyncio.gather(asyncio.wrap_future(first), asyncio.wrap_future(second))
    assert log.failures == 0
    assert [one.members["action"] async for one in log.read("acme")] == ["one", "two"]


async def test_an_entry_that_cannot_be_written_does_not_take_others_with_it(db: Database) -> None:
    class Odd(AuditEntry):
        def as_json(self) -> str:
            return "no json"

    log = PostgresAuditLog(db)
    async with AuditWriter.running(log, durable=True) as writer:
        notes = [writer.note(one) for one in (AuditEntry("acme", "one"), Odd("acme", "x"), AuditEntry("acme", "two"))]
        await asyncio.gather(*(asyncio.wrap_future(note) for note in notes if note is not None))
    assert [one.members["action"] async for one in log.read("acme")] == ["one", "two"]
    assert (await verify_log(log, "acme")).is_whole


@pytest.mark.parametrize("kept", ["redacted", "hashed", "none"])
async def test_arguments_are_kept_as_the_project_says_whoever_tells_of_them(db: Database, kept: Any) -> None:
    log = PostgresAuditLog(db)
    async with AuditWriter.running(log) as writer:
        told = RunAudit(writer, AuditKeys(arguments=kept))
        assert told.sink is not None
        call = ToolCall(
            "1", CallSite(tenant="acme"), replace(memory_ports(), audit=told.sink), "mail", {"to": "a@b.example"}
        )
        call.error = NotPermitted("no")
        for guard in told.guards():
            await guard.after_tool(call, "not made")
        await audit(call.ports, AuditEntry.at(call.site, "tool.approved", tool="mail", arguments=call.arguments))
    found = [one.members.get("arguments") async for one in log.read("acme")]
    if kept == "hashed":
        assert all(one is not None and one["to"].startswith("sha256:") for one in found)
    else:
        assert found == [{"to": "[EMAIL]"} if kept == "redacted" else None] * 2
