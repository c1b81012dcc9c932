"""`waystation doctor --production`: what is missing before going live, and how many connections a fleet needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from cli_servers import Project
from waystation.cli.check_production import check_clock
from waystation.cli.commands import app

SETTINGS = ("WAYSTATION_KEY_PEPPER", "WAYSTATION_WEBHOOK_SECRET", "WAYSTATION_ENCRYPTION_KEYS", "LANGGRAPH_AES_KEY")


@pytest.fixture
def project(database_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A project with nothing but a graph, in the current folder."""
    for name in (*SETTINGS, "REDIS_URI", "LANGGRAPH_POSTGRES_POOL_MAX_SIZE", "N_JOBS_PER_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URI", database_uri)
    made = Project(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made


def configure(project: Project, **keys: Any) -> None:
    path = project.folder / "langgraph.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def doctor(*arguments: str) -> tuple[int, list[str]]:
    """The exit code, and the lines without remedies."""
    result = CliRunner().invoke(app, ["doctor", *arguments])
    return result.exit_code, [line for line in result.output.splitlines() if not line.startswith("      ")]


def level_of(lines: list[str], part: str) -> str:
    (found,) = [line.split()[0] for line in lines if part in line]
    return found


def test_a_bare_project_is_told_what_production_needs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = doctor("--production", "--apis", "2", "--workers", "2")
    assert code == 0
    warned = (
        "auth is off",
        "WAYSTATION_WEBHOOK_SECRET is not set",
        "no checkpointer.ttl",
        "no budgets",
        "no REDIS_URI for 4 processes",
    )
    assert {level_of(lines, part) for part in warned} == {"warn"}
    hinted = ("WAYSTATION_EXPOSE_ERRORS", "is not encrypted by Waystation", "backups: nothing", "CORS")
    assert {level_of(lines, part) for part in hinted} == {"hint"}
    assert level_of(lines, "clock and Postgres's agree") == "ok"
    assert doctor("--production", "--strict")[0] == 1
    assert not [line for line in lines if "LOG_JSON" in line], "unset, lines are JSON where no terminal is"
    monkeypatch.setenv("LOG_JSON", "false")
    assert level_of(doctor("--production")[1], "LOG_JSON is off") == "hint"

    code, lines = doctor()
    assert code == 0
    assert not [line for line in lines if "auth" in line or "hint" in line]


def test_a_project_that_is_ready_is_not_warned(
    project: Project, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    configure(
        project,
        checkpointer={"ttl": {"strategy": "delete", "default_ttl": 60}},
        waystation={"auth": {"api_keys": True}, "guards": {"budgets": [{"size": 5, "scope": "tenant"}]}},
    )
    _, lines = doctor("--production")
    assert level_of(lines, "WAYSTATION_KEY_PEPPER is not set") == "warn"
    given = {
        "WAYSTATION_KEY_PEPPER": "0123456789abcdef",
        "WAYSTATION_WEBHOOK_SECRET": "whsec_c2VjcmV0",
        "LANGGRAPH_AES_KEY": "0123456789abcdef",
        "REDIS_URI": redis_url,
        "LOG_JSON": "true",
        "WAYSTATION_EXPOSE_ERRORS": "false",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code, lines = doctor("--production", "--apis", "2", "--workers", "2")
    assert code == 0
    # The Postgres of the tests keeps nothing through a power cut, and says so.
    assert [line for line in lines if line.startswith("warn")] == [
        "warn  Postgres has fsync, full_page_writes off: a crash of its machine loses what was acknowledged"
    ]
    assert level_of(lines, "auth: API keys") == "ok"


def test_connections_of_a_fleet_are_held_against_postgres(
    project: Project, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URI", "redis://127.0.0.1:1")
    monkeypatch.setenv("LANGGRAPH_POSTGRES_POOL_MAX_SIZE", "10")
    _, lines = doctor("--production", "--apis", "2", "--workers", "2")
    assert level_of(lines, "2 API and 2 worker process(es) may hold 96 connections; Postgres has 397") == "ok"
    _, lines = doctor("--production", "--apis", "10", "--workers", "10")
    assert level_of(lines, "may hold 480 connections; Postgres has 397 for them") == "warn"

    with psycopg.connect(database_uri, autocommit=True) as conn:
        conn.execute(f"alter database {conn.info.dbname} connection limit 50".encode())
    _, lines = doctor("--production", "--apis", "2", "--workers", "2")
    assert level_of(lines, "may hold 96 connections; Postgres has 50 for them") == "warn"

    monkeypatch.setenv("WAYSTATION_PREPARE", "false")
    _, lines = doctor("--production", "--apis", "10", "--workers", "10")
    assert level_of(lines, "a pooler stands before Postgres") == "ok"


RUN = """
with thread as (insert into thread (tenant_id, thread_id) values ('default', gen_random_uuid()) returning thread_id)
insert into run (tenant_id, thread_id, run_id, assistant_id, graph_id, kwargs, status, created_at, run_after, {columns})
select 'default', thread_id, gen_random_uuid(), gen_random_uuid(), 'steps', '{{}}', {values} from thread
"""


def test_runs_and_crons_that_no_worker_takes_are_told(project: Project, database_uri: str) -> None:
    def said() -> str:
        (line,) = [line for line in doctor("--production")[1] if "wait for one" in line or "waits for" in line]
        return line

    def insert(columns: str, values: str) -> None:
        with psycopg.connect(database_uri, autocommit=True) as conn:
            conn.execute(RUN.format(columns=columns, values=values).encode())

    assert said().startswith("ok")
    ago = "now() - interval '5 minutes'"
    insert("priority", "'pending', now(), now(), 0")  # a moment ago
    insert("priority", f"'pending', {ago}, now() + interval '1 day', 0")  # due tomorrow
    assert said().startswith("ok")
    insert("priority", f"'pending', {ago}, {ago}, 0")
    assert said().startswith("warn  no worker is alive: 1 due runs (the oldest for 30")
    insert("lease_expires_at", f"'running', {ago}, {ago}, {ago}")
    with psycopg.connect(database_uri, autocommit=True) as conn:
        conn.execute(
            "insert into cron (cron_id, assistant_id, on_run_completed, schedule, payload, next_run_at) values "
            "(gen_random_uuid(), gen_random_uuid(), 'keep', '* * * * *', '{}', now() - interval '5 minutes')"
        )
    assert "1 runs of workers that are gone, 1 due crons wait for one" in said()
    insert("lease_expires_at", f"'running', {ago}, {ago}, now() + interval '1 hour'")
    assert "workers do not keep up (1 run(s) are executed): 1 due runs" in "\n".join(doctor("--production")[1])


def test_before_there_is_a_schema_nobody_is_told_of_workers(
    project: Project, empty_database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URI", empty_database_uri)
    assert not [line for line in doctor("--production")[1] if "wait for" in line or "for a worker" in line]


def test_more_runs_than_their_pool_can_serve_are_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N_JOBS_PER_WORKER", "100")
    result = CliRunner().invoke(app, ["doctor", "--production"])
    assert "warn  100 runs at a time share a pool of 20" in result.output
    assert "LANGGRAPH_POSTGRES_POOL_MAX_SIZE=25" in result.output


def test_production_without_an_address_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URI")
    code, lines = doctor("--production")
    assert (code, level_of(lines, "no DATABASE_URI: `serve` and `worker` need one")) == (1, "fail")


def test_clocks_that_differ_are_told_and_slow_answers_are_not() -> None:
    now = datetime.now(UTC)
    ten = timedelta(seconds=10)
    assert check_clock(now, now - ten, now + ten).level == "ok"
    ahead, behind = check_clock(now - ten, now, now), check_clock(now + ten, now, now)
    assert (ahead.level, ahead.text) == ("warn", "this machine's clock is 10 s ahead of Postgres's")
    assert (behind.level, behind.text) == ("warn", "this machine's clock is 10 s behind Postgres's")
