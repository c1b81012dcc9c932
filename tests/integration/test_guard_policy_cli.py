"""`waystation level`, `estimate` and `doctor` with a policy; budgets that cannot be kept stop the start."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from live_server import live_server_on
from waystation.catalog import read_project
from waystation.cli.commands import app
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation.guarding.watch import Guards
from waystation.services.guards import check_budgets, open_guards
from waystation_db.pool import Database

PROJECT = Path(__file__).parents[1] / "fixtures" / "projects" / "guarded"


@pytest.fixture
def project(database_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The guarded project in the current folder."""
    monkeypatch.setenv("DATABASE_URI", database_uri)
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder)
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, guards: dict[str, Any]) -> None:
    keys = json.loads((folder / "langgraph.json").read_text())
    keys["waystation"]["guards"] = guards
    (folder / "langgraph.json").write_text(json.dumps(keys))


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_the_level_is_set_shown_and_given_back_to_the_rules(project: Path) -> None:
    write(project, {"levels": {}})
    assert invoke("level") == (0, "full\n")
    code, output = invoke("level", "reduced", "--for", "2h", "--reason", "slow")
    assert (code, output.startswith("reduced, by operator until 20")) == (0, True)
    assert invoke("level")[1].endswith(": slow\n")
    assert invoke("level", "auto") == (0, "full\n")
    assert invoke("level", "low")[0] == 2
    write(project, {"levels": {"name": "of {tenant}"}})
    assert invoke("level")[0] == 2
    assert invoke("level", "--name", "of acme") == (0, "full\n")


def test_a_project_without_levels_is_told_what_is_missing_and_where(project: Path, tmp_path: Path) -> None:
    write(project, {"budgets": [{"size": 5, "scope": "user"}]})
    for arguments in (("level",), ("level", "reduced"), ("level", "auto", "-c", str(project / "langgraph.json"))):
        code, output = invoke(*arguments)
        assert (code, "langgraph.json has no waystation.guards.levels" in " ".join(output.split())) == (2, True)
    assert invoke("level", "minimal", "--name", "own")[0] == 0  # of a graph's own code
    write(project, {"levels": {}})
    assert invoke("level") == (0, "full\n"), "nothing was set"


def test_without_a_project_the_name_that_is_taken_is_said(project: Path) -> None:
    (project / "langgraph.json").unlink()
    code, output = invoke("level")
    assert (code, "No langgraph.json here" in output, output.endswith("full\n")) == (0, True, True)


def test_a_run_is_priced_by_a_server(project: Path, database_uri: str) -> None:
    with live_server_on(database_uri, project=project) as server:
        code, output = invoke("estimate", "ask", "--input", '{"messages": "hi"}', "--url", server.url)
        assert code == 0, output
        assert re.search(r"^expected +unknown +\d+ tokens", output, re.MULTILINE)
        assert "confidence none" in output
        assert "fits: 0.0001 of 0.0001 usd left per tenant all" in output
        assert invoke("estimate", "nothing", "--url", server.url)[0] == 1
    assert invoke("estimate", "ask", "--input", "{", "--url", server.url)[0] == 2
    assert invoke("estimate", "ask", "--url", server.url)[0] == 1


def test_doctor_says_what_is_guarded_and_what_is_stopped(project: Path, database_uri: str) -> None:
    invoke("kill", "--graph", "ask", "--reason", "it loops")
    _, output = invoke("doctor")
    assert "waystation.guards: 2 budgets" in output
    assert "their ledger keeps budgets" in output
    assert "the kill switch has stopped graph ask (tenant *): it loops" in output
    write(project, {"cheaper": [{"models": {"a": "nobody:x"}}]})
    code, output = invoke("doctor")
    assert code == 1
    assert "waystation.guards.cheaper.0.models.a is 'nobody:x'" in output


@pytest.mark.anyio
async def test_budgets_that_cannot_be_kept_stop_the_start_unless_they_fail_open(
    project: Path, database_uri: str
) -> None:
    with psycopg.connect(database_uri) as conn:
        conn.execute("drop table guard_hold cascade")
    for fail in ("closed", "open"):
        write(project, {"budgets": [{"size": 1, "fail": fail}]})
        async with Database(database_uri, name="test", max_size=2) as db:
            guards: Guards = open_guards(Settings(), read_project(project), db, None)
            try:
                if fail == "open":
                    await check_budgets(guards)
                else:
                    with pytest.raises(ConfigError, match=r"waystation\.guards\.budgets cannot be kept: the ledger"):
                        await check_budgets(guards)
            finally:
                await guards.close()
