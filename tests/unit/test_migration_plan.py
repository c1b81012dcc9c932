"""What `migrate --plan` says of a file is read from its statements: ours are all understood, and safe under load."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore

from waystation_db.assistant_sealing import SWITCH
from waystation_db.migrate import Migration, migrations, tables_of
from waystation_db.migration_plan import Effect, described

# Before the first release: no table is large yet.
BEFORE_THE_FIRST_RELEASE = {"0006_last_chances.pre"}


def _effects(text: str) -> tuple[Effect, ...]:
    return described(Migration("0001_x.pre", "pre", text)).effects


def test_files_that_run_beside_the_version_before_are_safe_under_load() -> None:
    verdicts = {one.name: described(one).verdict for one in migrations() if one.phase == "pre"}
    unsafe = {name for name, verdict in verdicts.items() if verdict != "safe under load"}
    assert unsafe == BEFORE_THE_FIRST_RELEASE, (
        "build indexes `concurrently` after `-- no-transaction`, add constraints `not valid`, move what takes or "
        "rewrites rows to a post file"
    )


def test_every_file_says_what_it_is_for_and_none_has_a_statement_that_is_not_known() -> None:
    for one in map(described, migrations()):
        assert len(one.about) > 20, one.name
        assert one.verdict != "read it first", one
    for statement in (*AsyncPostgresSaver.MIGRATIONS, *AsyncPostgresStore.MIGRATIONS):
        assert [effect for effect in _effects(statement) if effect.verdict == "read it first"] == []


def test_what_waits_for_a_file_of_the_phase_post_waits_for_one_that_is_there() -> None:
    assert {one.name: one.phase for one in migrations()}[SWITCH] == "post"


@pytest.mark.parametrize(
    ("statement", "table", "lock", "verdict"),
    [
        ("alter table t add column n int not null default 0", "t", "instant", "safe under load"),
        ("alter table t add column n uuid default gen_random_uuid()", "t", "written anew", "in a quiet hour"),
        ("alter table t alter column n type bigint", "t", "written anew", "in a quiet hour"),
        ("alter table t alter n set not null", "t", "is read", "in a quiet hour"),
        ("alter table t add constraint c check (n > 0)", "t", "is read", "in a quiet hour"),
        ("alter table t add constraint c check (n > 0) not valid", "t", "instant", "safe under load"),
        ("alter table t validate constraint c", "t", "nobody waits", "safe under load"),
        ("create index i on t (n)", "t", "writes wait", "in a quiet hour"),
        ("create unique index concurrently if not exists i on t (n)", "t", "nobody waits", "safe under load"),
        (
            "create trigger g after update of a, b on t for each row execute function f()",
            "t",
            "instant",
            "safe under load",
        ),
        ("update t set n = 1", "t", "each row", "in a quiet hour"),
        ("create table u (n int references t)", "t", "row exclusive", "safe under load"),
        ("drop index concurrently i", "i", "nobody waits", "safe under load"),
        ("do $$ begin perform 1; end $$", "", "unknown", "read it first"),
        ("vacuum full t", "", "unknown", "read it first"),
    ],
)
def test_locks_are_those_of_the_manual(statement: str, table: str, lock: str, verdict: str) -> None:
    (effect,) = _effects(statement)
    assert (effect.table, effect.verdict) == (table, verdict)
    assert lock in effect.lock


def test_what_a_file_makes_itself_counts_for_nothing() -> None:
    text = "-- About.\ncreate table t (n int);\ncreate index i on t (n); update t set n = 1; -- ; drop table u;"
    planned = described(Migration("0001_x.pre", "pre", text))
    assert (planned.about, planned.makes, planned.effects) == ("About.", ("t",), ())


def test_a_function_s_body_is_no_statement() -> None:
    assert _effects("create function f() returns int language sql as $x$ delete from t; select 1 $x$; select ';'") == ()


def test_tables_that_are_dropped_again_are_not_missed() -> None:
    files = [Migration("0001_a.pre", "pre", "create table a (n int);\ncreate table b (n int);")]
    assert tables_of([*files, Migration("0002_b.post", "post", "drop table a;")]) == ["b"]
