"""`waystation up`: the processes of an installation on one machine, kept running and taken down together."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from cli_servers import STEPS, Client, Command, Project, is_alive, until

pytestmark = pytest.mark.timeout(400)  # many processes, each of which imports everything


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_killed_processes_are_replaced_and_their_runs_go_on(project: Project, database_uri: str) -> None:
    arguments = ("up", "--port", "0", "--workers", "2", "--postgres-uri", database_uri)
    with Command.running(*arguments, cwd=project.folder) as up:
        client = Client(up.url)
        assert client.run({})["done"] == [1, 2, 3]
        thread, run = client.start({"wait_at": 2})
        project.until_step(2, times=2)
        children = up.children()
        assert sorted(args.partition("waystation.cli ")[2].split(" ")[0] for args in children.values()) == sorted(
            ["", "serve", "worker", "worker"]  # and the Redis
        )

        _, working = project.journal()[-1]
        assert "worker" in children[working]
        os.kill(working, signal.SIGKILL)
        os.kill(up.child("serve"), signal.SIGKILL)
        up.until_says(r"worker-\d was ended by SIGKILL")
        up.until_says("api was ended by SIGKILL")
        project.let_go()

        assert client.result(thread, run)["done"] == [1, 2, 3]  # the request waits for the new API
        assert [step for step, _ in project.journal()] == [1, 2, 3, 1, 2, 2, 3]
        children = up.children()
        up.signal(signal.SIGTERM)
        assert up.ended() == 0
        assert [pid for pid in children if is_alive(pid)] == []


def test_a_killed_up_leaves_nothing_behind(project: Project, database_uri: str) -> None:
    with Command.running("up", "--port", "0", "--postgres-uri", database_uri, cwd=project.folder) as up:
        assert Client(up.url).run({})["done"] == [1, 2, 3]
        children = up.children()
        up.kill()
        until(lambda: not any(map(is_alive, children)), "the processes end with their supervisor")


def test_up_in_the_background_returns_when_it_is_ready_and_ends_by_down(project: Project) -> None:
    """With nothing but the project's folder: Postgres and Redis are its own."""
    arguments = ("up", "--port", "0", "--wait", "--watch")
    with Command.running(*arguments, cwd=project.folder) as starter:
        assert starter.ended() == 0
        url = starter.until_says(r"Ready at (http\S+)")[1]
    try:
        client = Client(url)
        assert client.run({})["answer"] == "first"
        project.write(STEPS.replace('"first"', '"second"'))
        until(lambda: _answer(client) == "second", "the changed graph is served")

        with Command.running("up", "--wait", cwd=project.folder) as other:
            assert other.ended() == 1
            assert f"{url}) serves" in other.output
    finally:
        with Command.running("down", cwd=project.folder) as down:
            assert down.ended() == 0
    with Command.running("down", cwd=project.folder) as again:
        assert again.ended() == 0
        assert "Nothing serves this project" in again.output


def test_a_graph_that_cannot_be_loaded_ends_up_in_the_background_too(project: Project, database_uri: str) -> None:
    project.write("import nothing_of_that_name\n")
    for extra in ([], ["--wait"]):
        arguments = ("up", "--port", "0", "--postgres-uri", database_uri, *extra)
        with Command.running(*arguments, cwd=project.folder) as up:
            assert up.ended() == 3
            assert "graph 'steps'" in up.output
            assert "steps.py, line 1" in up.output


def _answer(client: Client) -> str:
    """Empty when the API that was asked is being replaced: it drops what it has not answered."""
    try:
        return client.run({})["answer"]
    except httpx.TransportError:
        return ""
