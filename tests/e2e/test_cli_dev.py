"""`waystation dev`: starts with nothing, restarts on edits, and leaves nothing behind, however it is killed."""

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


DEV = ("dev", "--port", "0", "--no-browser")


def test_a_killed_dev_server_goes_on_with_its_runs_when_it_is_started_again(project: Project) -> None:
    """With nothing but the project's folder: the Postgres is its own."""
    with Command.running(*DEV, cwd=project.folder) as first:
        thread, run = Client(first.url).start({"wait_at": 2})
        project.until_step(2)
        server = first.child("dev_server")
        first.kill()
        until(lambda: not is_alive(server), "the server ends with its supervisor")

    project.let_go()
    with Command.running(*DEV, cwd=project.folder) as second:
        assert Client(second.url).result(thread, run)["done"] == [1, 2, 3]
        second.signal(signal.SIGINT)
        assert second.ended() == 0
    assert [step for step, _ in project.journal()] == [1, 2, 2, 3]
    assert not (project.folder / ".waystation" / "server.json").exists()


def test_an_edit_is_served_and_a_broken_one_waits_for_the_next(project: Project, database_uri: str) -> None:
    with Command.running(*DEV, cwd=project.folder, environ={"DATABASE_URI": database_uri}) as dev:
        client = Client(dev.url)
        assert client.run({})["answer"] == "first"
        thread, run = client.start({"wait_at": 2})
        project.until_step(2, times=2)
        project.let_go()

        project.write(STEPS.replace('"first"', '"second"'))
        dev.until_says("Changed: steps.py")
        assert client.result(thread, run)["done"] == [1, 2, 3]  # a request waits while the server is replaced
        dev.until_says("Restarted in")
        assert client.run({})["answer"] == "second"

        project.write("import nothing_of_that_name\n")
        dev.until_says("Waiting for a change that mends it")
        assert "steps.py, line 1" in dev.output
        project.write(STEPS.replace('"first"', '"third"'))
        assert client.run({})["answer"] == "third"
        assert "Traceback" not in dev.output
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0


def test_a_killed_server_is_started_again_and_its_run_goes_on(project: Project, database_uri: str) -> None:
    with Command.running(*DEV, cwd=project.folder, environ={"DATABASE_URI": database_uri}) as dev:
        client = Client(dev.url)
        thread, run = client.start({"wait_at": 2})
        project.until_step(2)

        os.kill(dev.child("dev_server"), signal.SIGKILL)
        dev.until_says("was ended by SIGKILL")
        project.let_go()

        assert client.result(thread, run)["done"] == [1, 2, 3]
        assert [step for step, _ in project.journal()] == [1, 2, 2, 3]
        dev.signal(signal.SIGINT)
        assert dev.ended() == 0


def test_without_reload_one_process_does_everything(project: Project, database_uri: str) -> None:
    with Command.running(*DEV, "--no-reload", cwd=project.folder, environ={"DATABASE_URI": database_uri}) as dev:
        url = dev.url
        assert Client(url).run({})["done"] == [1, 2, 3]
        assert {pid for _, pid in project.journal()} == {dev.pid}
        for promised in (f"{url}/docs", "Graphs   steps", "curl -N", "get_sync_client", "assistantId"):
            assert promised in dev.output
        assert httpx.get(f"{url}/docs", timeout=60).status_code == 200

        with Command.running(*DEV, cwd=project.folder) as other:
            assert other.ended() == 1
            assert f"`waystation dev` (process {dev.pid}, {url})" in other.output

        dev.signal(signal.SIGINT)
        assert dev.ended() == 0


def test_what_cannot_be_served_from_the_start_ends_with_its_own_code(project: Project, database_uri: str) -> None:
    environ = {"DATABASE_URI": database_uri}
    project.write("graph = None\n")
    with Command.running(*DEV, cwd=project.folder, environ=environ) as dev:
        assert dev.ended() == 3
        assert "graph 'steps'" in dev.output
        assert "Traceback" not in dev.output

    (project.folder / "langgraph.json").write_text('{"dependencies": ["."], "graphs": ["steps"]}')
    with Command.running(*DEV, cwd=project.folder, environ=environ) as dev:
        assert dev.ended() == 2
        assert "langgraph.json: graphs is" in dev.output


def test_the_env_file_reaches_the_graphs_anew_after_an_edit(project: Project, database_uri: str) -> None:
    config = '{"dependencies": ["."], "graphs": {"steps": "./steps.py:graph"}, "env": ".env"}'
    (project.folder / "langgraph.json").write_text(config)
    (project.folder / ".env").write_text(f"ANSWER=from the file\nDATABASE_URI={database_uri}\n")
    project.write(STEPS.replace('ANSWER = "first"', 'ANSWER = os.environ["ANSWER"]'))

    with Command.running(*DEV, cwd=project.folder) as dev:
        client = Client(dev.url)
        assert client.run({})["answer"] == "from the file"
        (project.folder / ".env").write_text(f"ANSWER=edited\nDATABASE_URI={database_uri}\n")
        dev.until_says("Restarted in")
        assert client.run({})["answer"] == "edited"
        assert not (project.folder / ".waystation" / "postgres").exists()
        dev.signal(signal.SIGINT)
        assert dev.ended() == 0
