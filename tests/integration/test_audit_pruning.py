"""The audit log's retention: a verified beginning goes, the rest stays verifiable while others write and prune."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, LiteralString

import psycopg
import pytest
from pydantic import ValidationError

from waystation.catalog.keys_audit import AuditKeys
from waystation.catalog.keys_own import WaystationKeys
from waystation.config import Settings
from waystation.guarding import audit_pruning
from waystation.guarding.audit import PostgresAuditLog
from waystation.guarding.audit_pruning import Prefix, find_prefix, keep_days, records_of, remove, verify_chain
from waystation.worker.upkeep import Upkeep
from waystation_db import audit as rows
from waystation_db.errors import AuditBroken
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditEntry, AuditHead, AuditRecord
from waystation_guards.audit.chain import BEGINNING, chained

pytestmark = pytest.mark.anyio

LATER = datetime.now(UTC) + timedelta(days=1)


async def chain_of(db: Database, count: int, tenant: str = "acme") -> PostgresAuditLog:
    log = PostgresAuditLog(db)
    await log.append([AuditEntry(tenant, f"test.{number}", detail={"text": "ä\n€"}) for number in range(count)])
    return log


async def as_owner(db: Database, *statements: LiteralString) -> None:
    """What the owner of the tables can do past the triggers."""
    async with db.connection() as conn:
        await conn.execute("set session_replication_role = replica")
        for statement in statements:
            await conn.execute(statement)
        await conn.execute("reset session_replication_role")


async def beginning(db: Database, count: int, tenant: str = "acme") -> Prefix:
    found = await find_prefix(db, tenant, before=LATER, most=count)
    assert found is not None
    return found


async def age(db: Database, count: int, tenant: str = "acme") -> None:
    """Make a chain's first records 40 days old, each with the hash that it then has."""
    end, records = BEGINNING, [one async for one in PostgresAuditLog(db).read(tenant)]
    async with db.connection() as conn:
        await conn.execute("set session_replication_role = replica")
        for one in records:
            at = one.at - timedelta(days=40) if one.seq <= count else one.at
            made = chained(tenant=tenant, at=at, entry=one.entry, after=end)
            end = AuditHead(made.seq, made.hash)
            await conn.execute(
                "update audit_record set at = %s, prev = %s, hash = %s where tenant_id = %s and seq = %s",
                [made.at, made.prev, made.hash, tenant, made.seq],
            )
        await conn.execute("update audit_head set hash = %s where tenant_id = %s", [end.hash, tenant])
        await conn.execute("reset session_replication_role")


async def seqs(db: Database, tenant: str = "acme") -> list[int]:
    return [one.seq async for one in PostgresAuditLog(db).read(tenant)]


async def of(records: Sequence[AuditRecord]) -> AsyncIterator[AuditRecord]:
    for record in records:
        yield record


async def test_what_was_verified_goes_and_the_rest_is_whole_from_its_anchor_on(db: Database) -> None:
    await chain_of(db, 10)
    await chain_of(db, 3, tenant="other")
    prefix = await beginning(db, 6)
    assert await remove(db, prefix, by="ada", archive="old.jsonl")
    assert await seqs(db) == [7, 8, 9, 10, 11]
    assert await seqs(db, "other") == [1, 2, 3]
    found = await verify_chain(db, "acme")
    assert found.verdict.is_whole
    assert (found.verdict.records, found.verdict.head.seq) == (5, 11)
    assert found.anchor is not None
    assert (found.anchor.seq, found.anchor.hash, found.anchor.removed) == (6, prefix.upto.hash, 6)
    assert found.anchor.by == "ada"
    (note,) = [one async for one in PostgresAuditLog(db).read("acme", action="audit.pruned")]
    assert note.members["user"] == "ada"
    assert note.members["detail"] == {
        "seq": 6,
        "hash": prefix.upto.hash.hex(),
        "records": 6,
        "before": LATER.isoformat(),
        "archive": "old.jsonl",
    }


async def test_a_chain_may_go_as_a_whole_and_go_on(db: Database) -> None:
    log = await chain_of(db, 4)
    for wanted in ([5], [6], [7]):
        assert await remove(db, await beginning(db, 100), by="ada")
        assert await seqs(db) == wanted
    await log.append([AuditEntry("acme", "after")])
    found = await verify_chain(db, "acme")
    assert (found.verdict.fault, found.verdict.records, found.verdict.head.seq) == (None, 2, 8)


async def test_the_archive_and_the_database_are_one_chain(db: Database) -> None:
    await chain_of(db, 10)
    archived: list[AuditRecord] = []
    for count in (3, 4):
        prefix = await beginning(db, count)
        archived += [one async for one in records_of(db, prefix)]
        assert await remove(db, prefix, by="ada")
    whole = await verify_chain(db, "acme", archived=lambda: of(archived))
    assert (whole.verdict.fault, whole.verdict.records) == (None, 12)
    early = AuditHead(2, archived[1].hash)
    assert (await verify_chain(db, "acme", expected=early, archived=lambda: of(archived))).verdict.is_whole
    alone = await verify_chain(db, "acme", expected=early)
    assert alone.verdict.fault is not None  # not to be seen here, which must not pass for seen
    assert (alone.verdict.fault.seq, "archive" in alone.verdict.fault.problem) == (2, True)
    for broken, seq in (
        ([*archived[:3], *archived[4:]], 4),
        (archived[:-1], 7),
        ([*archived[:4], replace(archived[4], entry='{"action":"x"}'), *archived[5:]], 5),
        (archived[1:], 1),
    ):
        fault = (await verify_chain(db, "acme", archived=lambda: of(broken))).verdict.fault  # noqa: B023
        assert fault is not None
        assert fault.seq == seq


@pytest.mark.parametrize(
    "forged",
    [
        'update audit_record set entry = \'{"action":"x"}\' where seq = 2',
        "update audit_record set prev = decode(repeat('01', 32), 'hex') where seq = 3",
        "delete from audit_record where seq = 2",
        "delete from audit_record where seq = 1",
        "update audit_record set at = at + interval '1 second' where seq = 4",
    ],
)
async def test_nothing_goes_of_a_beginning_that_is_not_whole(db: Database, forged: LiteralString) -> None:
    await chain_of(db, 6)
    prefix = await beginning(db, 4)
    await as_owner(db, forged)
    before = await seqs(db)
    with pytest.raises(AuditBroken, match="nothing was removed"):
        await remove(db, prefix, by="ada")
    with pytest.raises(AuditBroken):
        [one async for one in records_of(db, prefix)]
    assert await seqs(db) == before
    assert (await verify_chain(db, "acme")).anchor is None


async def test_a_record_is_named_with_the_hash_that_was_verified(db: Database) -> None:
    await chain_of(db, 6)
    prefix = await beginning(db, 4)
    with pytest.raises(AuditBroken):
        await remove(db, replace(prefix, upto=AuditHead(4, bytes(32))), by="ada")
    assert await seqs(db) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "statement",
    [
        "delete from audit_record where seq = 5",
        "update audit_record set entry = '{}' where seq = 5",
        "delete from audit_anchor",
        "truncate audit_anchor",
        "update audit_anchor set seq = 4",
        "update audit_anchor set made_by = 'eve'",
    ],
)
async def test_an_anchor_and_what_comes_after_it_are_kept(db: Database, statement: LiteralString) -> None:
    await chain_of(db, 6)
    assert await remove(db, await beginning(db, 3), by="ada")
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        async with db.connection() as conn:
            await conn.execute(statement)
    assert (await verify_chain(db, "acme")).verdict.is_whole


async def test_an_anchor_that_no_record_of_the_chain_tells_of_is_found(db: Database) -> None:
    await chain_of(db, 6)
    async with db.connection() as conn:
        await conn.execute(
            "insert into audit_anchor (tenant_id, seq, hash, removed, made_by) "
            "select tenant_id, seq, hash, 4, 'eve' from audit_record where seq = 4"
        )
        await conn.execute("delete from audit_record where seq <= 4")
    fault = (await verify_chain(db, "acme")).verdict.fault
    assert fault is not None
    assert (fault.seq, "no record" in fault.problem) == (4, True)


async def test_an_anchor_with_another_hash_is_found(db: Database) -> None:
    await chain_of(db, 6)
    assert await remove(db, await beginning(db, 3), by="ada")
    await as_owner(db, "update audit_anchor set hash = decode(repeat('01', 32), 'hex')")
    fault = (await verify_chain(db, "acme")).verdict.fault
    assert fault is not None
    assert fault.seq == 4


async def test_of_two_prunes_at_once_one_is_told_that_the_other_was_first(db: Database) -> None:
    await chain_of(db, 8)
    same, longer = await beginning(db, 4), await beginning(db, 6)
    async with asyncio.timeout(30):
        done = await asyncio.gather(*(remove(db, one, by="ada") for one in (same, same, longer)))
    assert sorted(done) == [False, False, True]
    assert (await verify_chain(db, "acme")).verdict.is_whole


async def test_writers_and_verifiers_go_on_while_a_chain_is_pruned(db: Database) -> None:
    log = await chain_of(db, 50)
    pruned = 0

    async def write(name: str) -> None:
        for number in range(40):
            await log.append([AuditEntry("acme", f"{name}.{number}"), AuditEntry("acme", f"{name}.{number}.b")])

    async def verify(done: asyncio.Event) -> int:
        count = 0
        while not done.is_set():
            assert (await verify_chain(db, "acme")).verdict.fault is None
            count += 1
        return count

    async def prune(done: asyncio.Event) -> None:
        nonlocal pruned
        while not done.is_set():
            prefix = await beginning(db, 15)
            if await remove(db, prefix, by="ada"):
                pruned += prefix.count

    done = asyncio.Event()
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        group.create_task(prune(done))
        group.create_task(prune(done))
        verifying = group.create_task(verify(done))
        await asyncio.gather(*(write(name) for name in ("a", "b", "c")))
        done.set()
    assert verifying.result() > 0
    found = await verify_chain(db, "acme")
    assert found.verdict.is_whole
    assert found.anchor is not None
    assert found.anchor.seq == pruned
    async with db.connection() as conn:
        (count,) = await (await conn.execute("select count(*) from audit_anchor")).fetchone() or (0,)
    assert found.verdict.head.seq == 50 + 240 + count  # each prune is a record of its own


async def test_a_prune_does_not_hold_up_writers_until_its_last_step(db: Database) -> None:
    log = await chain_of(db, 20)
    prefix = await beginning(db, 10)
    blocked = "insert into audit_anchor (tenant_id, seq, hash, removed, made_by) values ('acme', 10, %s, 1, 'x')"
    async with asyncio.timeout(30), db.connection() as conn:
        async with conn.transaction(force_rollback=True):
            await conn.execute(blocked, [bytes(32)])  # the prune waits for this one's end, in its middle
            pruning = asyncio.create_task(remove(db, prefix, by="ada"))
            async with db.connection() as other:
                while not await (  # noqa: ASYNC110
                    await other.execute(
                        "select 1 from pg_stat_activity where datname = current_database() "
                        "and wait_event_type = 'Lock' and query like '%%waystation_audit_prune%%'"
                    )
                ).fetchone():
                    await asyncio.sleep(0)  # each look is a round trip
            await log.append([AuditEntry("acme", "meanwhile")])
        assert await pruning
    assert (await verify_chain(db, "acme")).verdict.is_whole


async def test_upkeep_keeps_whole_days_and_no_chain_of_notes_alone(db: Database) -> None:
    await chain_of(db, 8)
    await age(db, 5)
    assert await keep_days(db, days=50) == 0
    assert await keep_days(db, days=30) == 5
    found = await verify_chain(db, "acme")
    assert found.verdict.is_whole
    assert found.anchor is not None
    assert (found.anchor.seq, found.anchor.by) == (5, "upkeep")
    assert await keep_days(db, days=30) == 0
    assert await remove(db, await beginning(db, 100), by="ada")  # a note is all that is left
    async with db.connection() as conn:
        left = await rows.find_prefix(conn, "acme", before=LATER, most=100)
    assert left is not None
    assert not left.is_worth


async def test_upkeep_takes_a_long_chain_in_parts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_pruning, "MOST_AT_ONCE", 3)
    await chain_of(db, 12)
    await age(db, 8)
    assert await keep_days(db, days=30) == 8
    assert await seqs(db) == [9, 10, 11, 12, 13, 14, 15]
    assert (await verify_chain(db, "acme")).verdict.is_whole


async def test_upkeep_leaves_a_broken_chain_and_goes_on_with_the_next(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for tenant in ("acme", "other"):
        await chain_of(db, 4, tenant=tenant)
        await age(db, 4, tenant=tenant)
    await as_owner(db, "update audit_record set entry = '{\"action\":\"x\"}' where seq = 2 and tenant_id = 'acme'")
    assert await keep_days(db, days=30) == 4
    assert (await seqs(db), await seqs(db, "other")) == ([1, 2, 3, 4], [5])
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == [
        "an audit log is not whole and was not pruned"
    ]


def upkeep_of(db: Database, keys: AuditKeys | None) -> Upkeep:
    project = SimpleNamespace(checkpointer=None, store=None, waystation=WaystationKeys(audit=keys))
    side: Any = SimpleNamespace(db=db, catalog=SimpleNamespace(project=project))
    events: Any = None
    return Upkeep(side, events, Settings())


@pytest.mark.parametrize(("keys", "left"), [(AuditKeys(keep_days=30), 4), (AuditKeys(), 6), (None, 6)])
async def test_workers_prune_where_the_project_says_how_long_to_keep(
    db: Database, keys: AuditKeys | None, left: int
) -> None:
    await chain_of(db, 6)
    await age(db, 3)
    upkeep = upkeep_of(db, keys)
    async with upkeep.running():  # nothing of it has begun yet
        names = {task.get_name() for task in asyncio.all_tasks()}
    assert ("prune audit" in names) is (left == 4)
    await upkeep.prune_audit()
    assert len(await seqs(db)) == left


@pytest.mark.parametrize("days", [0, -1, 36501, "30", 1.5, True])
def test_days_that_cannot_be_kept_stop_the_start(days: Any) -> None:
    with pytest.raises(ValidationError, match="keep_days"):
        AuditKeys(keep_days=days)
