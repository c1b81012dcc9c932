"""Statements name the column by which hot tables would be placed on several Postgres servers.

Those that do not are few, known, and all right for the reason given; docs/operations/scaling.md tells the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pglast
import pytest

from distribution import DISTRIBUTED, mentions, unnamed
from waystation_db import runs
from waystation_db.sql import load, parse

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "scaling.md"

CLAIMS = "any thread's run will do: the one hot statement that asks all nodes, of a partial index of waiting runs"
UPKEEP = "upkeep, every few seconds per process at most, from a partial index"
SEARCH = "a search over a tenant's threads asks all nodes at once and merges"
COUNTS = "counts for operators and for admission, once a second per process at most"
BY_HAND = "an operator's command"

EVERYWHERE = {
    "runs.claim_ordinary": CLAIMS,
    "runs.claim_last_chance": CLAIMS,
    "runs.sweep_expired": UPKEEP,
    "runs.bury_poisoned": UPKEEP,
    "runs.disown": "once, when a process starts",
    "runs.pending_up_to": COUNTS,
    "runs.cancellable_by_status": SEARCH,
    "queue.statistics": COUNTS,
    "queue.by_priority": COUNTS,
    "queue.unattended": COUNTS,
    "threads.search_newest": SEARCH,
    "threads.search_sorted": SEARCH,
    "threads.count_threads": SEARCH,
    "threads.lock_expired": UPKEEP,
    "threads.lock_hidden": UPKEEP,
    "threads.expired_keeping_latest": UPKEEP,
    "thread_events.delete_old_traces": UPKEEP,
    "events.delete_expired_chunks": UPKEEP,
    "assistants.threads_of_assistant": SEARCH,
    "checkpoints.threads_of_runs": "the saver's own API, for callers that do not know the thread: the server does",
    "guard_kill.wish_killed": "the kill switch, by hand: it is to reach everything",
    "guard_kill.cancel_killed": "the kill switch, by hand: it is to reach everything",
}
OPERATORS = ("backup", "encryption")
"""Files whose statements go through whole tables on purpose: they run when an operator says so."""

WRITE = ("put_blobs", "put_checkpoints", "remember_writes", "put_writes", "replace_writes")
PARTS = {
    "runs": ("claim_due", "claim_ordinary", "claim_last_chances", "claim_them"),
    "checkpoints": ("fence", "live_fences", "no_fence", "no_fences", "select_checkpoints", *WRITE),
}
"""Texts that are statements only together; `_composed` puts them together as the code does."""


def _composed() -> Iterator[tuple[str, str]]:
    q = load("runs")
    yield "runs.claim_ordinary", "\n".join([q["claim_due"], q["claim_ordinary"], q["claim_them"]])
    yield "runs.claim_last_chance", "\n".join([q["claim_due"], q["claim_last_chances"], q["claim_them"]])
    q = load("checkpoints")
    for fence, answer in (("fence", "live_fences"), ("no_fence", "no_fences")):
        ctes = ",\n".join([q[fence], *(q[name] for name in WRITE)])
        yield f"checkpoints.write_{fence}", f"with {ctes}\n{q[answer]}"
    yield "checkpoints.read", f"{q['select_checkpoints']} where thread_id = %(thread)s and checkpoint_ns = %(ns)s"


def _statements() -> Iterator[tuple[str, str]]:
    composed = dict(_composed())
    yield from composed.items()
    for source in sorted((files("waystation_db") / "queries").iterdir(), key=lambda one: one.name):
        file = source.name.removesuffix(".sql")
        if not source.name.endswith(".sql") or file in OPERATORS:
            continue
        for name, statement in parse(source.read_text(encoding="utf-8"), source.name).items():
            if name not in PARTS.get(file, ()):
                yield f"{file}.{name}", statement


def _found() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, statement in _statements():
        try:
            tables = unnamed(statement)
        except pglast.parser.ParseError:
            # Parts that are put together from data of ours (the store's): they may not touch what is distributed.
            tables = mentions(statement)
        if tables:
            found[name] = tables
    return found


def test_every_hot_statement_names_the_column_that_places_its_rows() -> None:
    assert set(_found()) == set(EVERYWHERE)


def test_the_parts_are_put_together_as_the_code_does_it() -> None:
    claim = dict(_composed())["runs.claim_ordinary"]
    assert claim == runs._CLAIM_ORDINARY  # pyright: ignore[reportPrivateUsage]  # the statement that is sent


def test_the_page_lists_what_asks_all_nodes_and_what_is_distributed() -> None:
    page = PAGE.read_text()
    assert [name for name in EVERYWHERE if f"`{name}`" not in page] == []
    assert [name for name in DISTRIBUTED if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("select 1 from run where thread_id = %(t)s", set[str]()),
        ("select 1 from run where run_id = %(r)s", {"run"}),
        ("select 1 from run r join thread t on t.thread_id = r.thread_id", {"run", "thread"}),
        ("select 1 from run r join thread t using (tenant_id, thread_id) where r.thread_id = any(%(t)s)", set[str]()),
        ("select 1 from run where %(t)s is null or thread_id = %(t)s", {"run"}),
        ("with m as (select thread_id from run) delete from run using m where run.thread_id = m.thread_id", {"run"}),
        ("with m as (select %(t)s as thread_id) delete from run using m where run.thread_id = m.thread_id", set[str]()),
        ("select 1 from thread t where thread_id = %(t)s and exists (select from run where run_id = %(r)s)", {"run"}),
        ("insert into run (tenant_id, run_id) values ('a', 'b')", {"run"}),
        ("delete from event_chunk using unnest(%(t)s) u (id) where event_chunk.thread_id = u.id", set[str]()),
    ],
)
def test_the_reader_of_statements_sees_what_is_not_named(statement: str, tables: set[str]) -> None:
    assert unnamed(statement) == tables
