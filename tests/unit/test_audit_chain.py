"""The audit log's hash chain: what verification finds, and what entries keep."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation_guards.audit.audit import ArgumentsForm, AuditEntry, AuditHead, AuditRecord, audit
from waystation_guards.audit.chain import GENESIS, chained, hash_of, verify, verify_log
from waystation_guards.audit.export import as_line, from_lines
from waystation_guards.audit.guard import AuditGuard
from waystation_guards.audit.memory import MemoryAuditLog
from waystation_guards.calls import CallSite
from waystation_guards.errors import NotPermitted
from waystation_guards.memory.ports import memory_ports
from waystation_guards.watching.watcher import ToolCall

pytestmark = pytest.mark.anyio

TEXTS = st.text(st.characters(codec=None), max_size=20)  # with surrogates and NUL
ENTRIES = st.lists(TEXTS, min_size=1, max_size=8)


async def log_of(texts: Sequence[str]) -> MemoryAuditLog:
    log = MemoryAuditLog()
    for text in texts:
        await log.append([AuditEntry("acme", f"test.{text}", detail={"text": text})])
    return log


async def of(records: Sequence[AuditRecord]) -> AsyncIterator[AuditRecord]:
    for record in records:
        yield record


def records_of(texts: Sequence[str]) -> list[AuditRecord]:
    async def read() -> list[AuditRecord]:
        return [record async for record in (await log_of(texts)).read("acme")]

    return anyio.run(read)


def fault_of(records: Sequence[AuditRecord], expected: AuditHead | None = None) -> Any:
    async def found() -> Any:
        return (await verify(of(records), expected=expected, tenant="acme")).fault

    return anyio.run(found)


@given(texts=ENTRIES)
def test_a_chain_as_it_was_written_is_whole_also_after_its_export(texts: list[str]) -> None:
    records = records_of(texts)
    assert fault_of(records) is None

    async def again() -> list[AuditRecord]:
        return [record async for record in from_lines([as_line(record) for record in records])]

    assert anyio.run(again) == records


@given(texts=st.lists(TEXTS, min_size=2, max_size=8), data=st.data())
def test_whatever_is_done_to_one_record_is_found(texts: list[str], data: st.DataObject) -> None:
    records = records_of(texts)
    at = data.draw(st.integers(0, len(records) - 1))
    one = records[at]
    changed = data.draw(
        st.sampled_from(
            [
                replace(one, entry=one.entry[:-1] + ',"x":1}'),
                replace(one, at=one.at + timedelta(microseconds=1)),
                replace(one, seq=one.seq + 1),
                replace(one, tenant="other"),
                replace(one, prev=bytes(31) + b"\x01"),
                replace(one, hash=bytes(32)),
            ]
        )
    )
    assert fault_of([*records[:at], changed, *records[at + 1 :]]) is not None


@given(texts=st.lists(TEXTS, min_size=3, max_size=8), data=st.data())
def test_gaps_repetitions_and_exchanges_are_found(texts: list[str], data: st.DataObject) -> None:
    records = records_of(texts)
    at = data.draw(st.integers(0, len(records) - 2))
    assert fault_of(records[:at] + records[at + 1 :]).seq == at + 1
    assert fault_of([*records[: at + 1], *records[at:]]) is not None
    assert fault_of([*records[:at], records[at + 1], records[at], *records[at + 2 :]]) is not None


def test_a_chain_written_anew_is_found_by_a_head_that_was_kept_elsewhere() -> None:
    records, forged = records_of(["a", "b", "c"]), records_of(["a", "x", "c"])
    kept = AuditHead(records[1].seq, records[1].hash)
    assert fault_of(records, kept) is None
    assert fault_of(forged) is None
    assert fault_of(forged, kept).seq == 2
    assert "longer once" in fault_of(records[:1], kept).problem


async def test_an_end_that_was_cut_off_is_found_by_the_logs_own_head() -> None:
    log = await log_of(["a", "b", "c"])
    assert (await verify_log(log, "acme")).is_whole
    chain = log._chains["acme"]  # pyright: ignore[reportPrivateUsage]  # what an intruder would do
    cut = chain.pop()

    class Cut(MemoryAuditLog):
        async def head(self, tenant: str) -> AuditHead:
            return AuditHead(cut.seq, cut.hash)

        def read(self, tenant: str, **where: Any) -> Any:
            return log.read(tenant, **where)

    verdict = await verify_log(Cut(), "acme")
    assert (verdict.records, verdict.fault and verdict.fault.seq) == (2, 3)


def test_the_hash_is_what_the_docs_say() -> None:
    (record,) = records_of(["a"])
    micros = round(record.at.timestamp() * 1_000_000)
    import hashlib

    text = f"acme\n1\n{micros}\n{record.entry}".encode()
    assert record.hash == hashlib.sha256(bytes(32) + text).digest()
    assert record.hash == hash_of(tenant="acme", seq=1, at=record.at, entry=record.entry, prev=GENESIS)
    after = AuditHead(record.seq, record.hash)
    assert chained(tenant="acme", at=record.at, entry="{}", after=after).prev == record.hash


async def test_tenants_have_chains_of_their_own() -> None:
    log = MemoryAuditLog()
    await log.append([AuditEntry("a", "x"), AuditEntry("b", "x"), AuditEntry("a", "y")])
    assert [one.members["action"] async for one in log.read("a")] == ["x", "y"]
    assert (await log.head("b")).seq == 1
    assert (await log.head("c")).seq == 0


async def test_a_family_of_actions_can_be_read() -> None:
    log = MemoryAuditLog()
    await log.append([AuditEntry("a", name) for name in ("tool.refused", "tools", "tool.called", "run.created")])
    assert [one.members["action"] async for one in log.read("a", action="tool.*")] == ["tool.refused", "tool.called"]
    assert [one.seq async for one in log.read("a", action="tools")] == [2]


def test_an_entry_keeps_neither_what_is_personal_nor_what_is_long() -> None:
    arguments = {
        "to": "ada@example.com",
        "password": "hunter22",
        "body": "x" * 5000,
        "deep": {"a": {"b": {"c": {"d": 1}}}},
    }
    entry = AuditEntry.at(CallSite(tenant="acme", user="u"), "tool.called", tool="mail", arguments=arguments)
    kept = json.loads(entry.as_json())["arguments"]
    assert kept["to"] == "[EMAIL]"
    assert kept["password"] == "[SECRET]"
    assert len(kept["body"]) < 600
    assert kept["deep"]["a"]["b"]["c"] == "…"


def test_arguments_can_be_kept_as_hashes_or_not_at_all() -> None:
    hashed = ArgumentsForm("hashed", pepper="p").of({"to": "ada@example.com"})
    assert hashed["to"].startswith("sha256:")
    assert hashed != ArgumentsForm("hashed", pepper="q").of({"to": "ada@example.com"})
    assert hashed == ArgumentsForm("hashed", pepper="p").of({"to": "ada@example.com"})
    assert ArgumentsForm("none").of({"to": "ada@example.com"}) == {}


async def test_who_tells_a_log_that_fails_goes_on() -> None:
    class Broken(MemoryAuditLog):
        async def append(self, entries: Any) -> None:
            raise ConnectionError("away")

    ports = replace(memory_ports(), audit=Broken())
    await audit(ports, AuditEntry("a", "x"))
    await audit(None, AuditEntry("a", "x"))


async def test_refusals_of_other_guards_are_told_with_whose_they_are() -> None:
    log = MemoryAuditLog()
    ports = replace(memory_ports(), audit=log, tenant="acme")
    site = CallSite(tenant="x", user="ada", key="k1", thread="t", run="r", attempt=2, node="tools")
    call = ToolCall("1", site, ports, "refund", {"amount": 5})
    call.error = NotPermitted("refund was refused")
    await AuditGuard().after_tool(call, "not made")
    call.error = None
    await AuditGuard().after_tool(call, "not made")
    await AuditGuard().after_tool(call, "made")
    await AuditGuard(tools=True).after_tool(call, "failed")
    first, second = [one.members async for one in log.read("acme")]
    assert first == {
        "action": "tool.refused",
        "outcome": "refused",
        "user": "ada",
        "key": "k1",
        "tool": "refund",
        "arguments": {"amount": 5},
        "thread": "t",
        "run": "r",
        "attempt": 2,
        "node": "tools",
        "detail": {"code": "not_permitted", "reason": "refund was refused"},
    }
    assert (second["action"], second["outcome"]) == ("tool.called", "failed")


@pytest.mark.parametrize("line", ["[]", "{}", '{"tenant":"a","seq":"x"}', "not json"])
async def test_a_line_that_is_no_record_says_which(line: str) -> None:
    with pytest.raises(ValueError, match="line 1 is no record"):
        _ = [one async for one in from_lines([line])]
