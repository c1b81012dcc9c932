"""Input of operators that cannot be meant, and what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli_servers import Project, taken_port
from waystation.cli.commands import app


@pytest.fixture
def here(database_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A project in the current folder, and a database."""
    monkeypatch.setenv("DATABASE_URI", database_uri)
    monkeypatch.chdir(Project(tmp_path / "project").folder)
    return Path.cwd()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["backup", ""], "the place is empty"),
        (["restore", ""], "the place is empty"),
        (["backup", "verify", "/nowhere/at/all"], "/nowhere/at/all: no such folder"),
        (["backup", "--part-mb", "nan", "x"], "--part-mb nan: expected a number"),
        (["budget", "--scope", "users"], "'users' is not one of 'run'"),
        (["ledger", "export", "--since", "2026-12-01", "--until", "2026-11-01"], "is not after --since 2026-12-01"),
        (["audit", "verify", "--file", "nowhere.jsonl"], "Error: nowhere.jsonl: No such file or directory\n"),
        (["estimate", "agent", "--key", "\u00e9"], "--key may hold printable ASCII only"),
        (["estimate", "agent", "--url", "nowhere"], "--url nowhere: "),
        (["estimate", "agent", "--url", "http://[::1"], "--url http://[::1: "),
    ],
)
def test_it_is_refused_with_what_was_expected(here: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert sorted(path.name for path in here.iterdir()) == ["langgraph.json", "steps.py"], "nothing was written"


def test_a_worker_whose_port_is_taken_names_its_own_option(here: Path) -> None:
    with taken_port() as port:
        result = CliRunner().invoke(app, ["worker", "--health-host", "127.0.0.1", "--health-port", str(port)])
    assert result.exit_code == 1
    assert f"Port {port} is in use. Stop what listens there, or choose another one: --health-port" in result.output
