"""`waystation webhooks` on a database with something in its outbox."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from waystation.cli.commands import app

SPENT = """
insert into webhook_delivery (delivery_id, thread_id, run_id, url, payload, status, attempt, error, ended_at)
values (%s, gen_random_uuid(), gen_random_uuid(), 'https://hooks.example/x', '{}', 'spent', 3, 'answered 503', now())
"""


@pytest.fixture
def spent(database_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A webhook that was given up, and a command line that looks at its database."""
    monkeypatch.setenv("DATABASE_URI", database_uri)
    monkeypatch.chdir(tmp_path)
    delivery_id = str(uuid.uuid4())
    with psycopg.connect(database_uri) as conn:
        conn.execute(SPENT, (delivery_id,))
    return delivery_id


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["webhooks", *arguments])
    return result.exit_code, result.output


def status(database_uri: str) -> str:
    with psycopg.connect(database_uri) as conn:
        row = conn.execute("select status from webhook_delivery").fetchone()
    assert row is not None
    return row[0]


def test_spent_webhooks_are_listed_and_replayed_by_id(spent: str, database_uri: str) -> None:
    code, output = invoke("list", "--status", "spent")
    assert (code, spent in output, "answered 503" in output) == (0, True, True)
    assert invoke("replay", spent)[0] == 0
    assert status(database_uri) == "pending"
    assert "There are none." in invoke("list", "--status", "spent")[1]


def test_all_spent_ones_of_a_tenant_are_replayed_and_of_no_other(spent: str, database_uri: str) -> None:
    assert "again: 0" in invoke("replay", "--all-spent", "--tenant", "other")[1]
    assert status(database_uri) == "spent"
    assert "again: 1" in invoke("replay", "--all-spent")[1]
    assert status(database_uri) == "pending"


@pytest.mark.parametrize("arguments", [["replay"], ["replay", "no-id"], ["replay", str(uuid.UUID(int=1))]])
def test_what_cannot_be_replayed_is_said(arguments: list[str], spent: str) -> None:
    assert invoke(*arguments)[0] == 2
