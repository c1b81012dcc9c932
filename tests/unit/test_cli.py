"""The command line by itself: what it says, what it refuses, and that it answers at once."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

import waystation
from cli_servers import Command, Project, taken_port
from waystation.cli.commands import app
from waystation.cli.failures import CommandError, sentence
from waystation.cli.listening import bind, url_of
from waystation.cli.project_lock import Holder, ProjectLock, holder_of, is_locked, stable_worker_id
from waystation.cli.watching import folders_below
from waystation.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def options() -> list[tuple[str, str]]:
    """Every visible option of every command."""
    commands = cast(dict[str, Any], cast(Any, typer.main.get_command(app)).commands)
    return [
        (name, option)
        for name, command in commands.items()
        for parameter in command.params
        if not parameter.hidden
        for option in [*parameter.opts, *parameter.secondary_opts]
    ]


def test_help_needs_neither_graphs_nor_a_server() -> None:
    code = "import sys, waystation.cli.commands; print([m for m in sys.modules if '.' not in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    heavy = {"langgraph", "langchain_core", "fastapi", "starlette", "pydantic", "psycopg", "uvicorn", "redis", "rich"}
    assert heavy.isdisjoint(eval(done.stdout))


def test_help_shows_every_command_with_an_example() -> None:
    code, output = invoke("--help")

    assert code == 0
    for command in ("dev", "up", "down", "serve", "worker", "migrate", "doctor"):
        assert f"\n  {command} " in output
    assert "waystation dev  " in output


def test_version() -> None:
    assert invoke("--version") == (0, f"waystation {waystation.__version__}\n")


@pytest.mark.parametrize(("command", "option"), options())
def test_every_option_is_documented(command: str, option: str) -> None:
    _, _, section = DOCS.read_text().partition(f"\n## `waystation {command}`\n")

    assert re.search(rf"`{option}[` ]", section.partition("\n## ")[0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dev", "--tunnel"], "--tunnel"),
        (["dev", "--ssl-keyfile", __file__], "--ssl-certfile"),
        (["up", "--image", "x"], "--image"),
        (["up", "--no-pull"], "--pull"),
        (["up", "-d", "compose.yml"], "--docker-compose"),
        (["up", "--engine-runtime-mode", "distributed"], "--engine-runtime-mode"),
    ],
)
def test_what_makes_no_sense_here_is_refused_with_a_sentence(arguments: list[str], named: str) -> None:
    code, output = invoke(*arguments)

    assert code == 2
    assert output.startswith("Error: ")
    assert named in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("command", ["dev", "up", "serve", "worker"])
def test_without_a_project_nothing_is_made(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    code, output = invoke(command)

    assert code == 2
    assert "langgraph.json does not exist" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["migrate"]])
def test_without_a_database_the_variable_is_named(command: list[str], tmp_path: Path) -> None:
    with Command.running(*command, cwd=Project(tmp_path / "project").folder) as server:
        assert server.ended() == 2
        assert server.output.startswith("Error: DATABASE_URI is not set")
        assert server.output.count("\n") == 1


def test_an_unknown_setting_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAYSTATION_LEASE", "3")

    assert invoke("migrate") == (2, "Error: WAYSTATION_LEASE is no setting; did you mean WAYSTATION_LEASE_S?\n")


def test_a_taken_port_is_told_with_another_one() -> None:
    with taken_port() as port, pytest.raises(CommandError, match=f"Port {port} is in use.*--port {port + 1}"):
        bind("127.0.0.1", port)


def test_a_host_of_another_machine_is_told() -> None:
    with pytest.raises(CommandError, match=r"192\.0\.2\.1 is no address of this machine"):
        bind("192.0.2.1", 0)


def test_a_server_on_all_addresses_is_shown_with_one_that_works() -> None:
    with bind("0.0.0.0", 0) as sock:
        url = url_of(sock)
        host, _, port = url.removeprefix("http://").partition(":")
        socket.create_connection((host, int(port))).close()


def test_a_second_server_of_a_project_learns_who_the_first_is(tmp_path: Path) -> None:
    lock = ProjectLock.acquire(tmp_path)
    lock.announce(Holder("dev", os.getpid(), "http://127.0.0.1:2024"))

    with pytest.raises(CommandError, match=rf"`waystation dev` \(process {os.getpid()}, http://127.0.0.1:2024\)"):
        ProjectLock.acquire(tmp_path)

    assert is_locked(tmp_path)
    lock.release()
    assert not is_locked(tmp_path)
    assert holder_of(tmp_path) is None
    ProjectLock.acquire(tmp_path).release()


def test_what_a_killed_server_announced_does_not_stop_the_next(tmp_path: Path) -> None:
    first = ProjectLock.acquire(tmp_path)
    first.announce(Holder("dev", 2**22 + 1, "http://127.0.0.1:2024"))
    os.close(first.fd)

    ProjectLock.acquire(tmp_path).release()


def test_a_worker_has_the_same_name_each_time_and_another_one_elsewhere(tmp_path: Path) -> None:
    assert stable_worker_id("dev", tmp_path) == stable_worker_id("dev", tmp_path / "x" / "..")
    assert stable_worker_id("dev", tmp_path) != stable_worker_id("dev", tmp_path / "x")


def test_code_is_watched_and_installed_packages_are_not(tmp_path: Path) -> None:
    for folder in ("src/app", ".venv/lib", "node_modules/x", "src/__pycache__", "env/lib", ".waystation/postgres"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()

    assert folders_below([tmp_path]) == [tmp_path, tmp_path / "src", tmp_path / "src" / "app"]


def test_errors_are_sentences() -> None:
    assert sentence(ConfigError("graphs is missing")) == "graphs is missing"
    assert sentence(CommandError("Port 1 is in use")) == "Port 1 is in use"
