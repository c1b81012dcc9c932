"""`waystation serve`, `worker` and `migrate`: what an installation's processes do from start to end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from cli_servers import Client, Command, Project, taken_port
from waystation_db.migrate import migrate

pytestmark = pytest.mark.timeout(400)  # many processes, each of which imports everything


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@contextmanager
def serving(project: Project, database_uri: str) -> Generator[Command]:
    environ = {"DATABASE_URI": database_uri}
    with Command.running("serve", "--with-worker", "--port", "0", cwd=project.folder, environ=environ) as server:
        yield server


def crashes(database_uri: str) -> list[tuple[str, int]]:
    with psycopg.connect(database_uri) as conn:
        return conn.execute("select status, crashes from run").fetchall()


def test_sigterm_lets_streams_go_on_while_the_step_finishes_and_hands_over(project: Project, database_uri: str) -> None:
    with serving(project, database_uri) as server:
        client = Client(server.url)
        parts: list[str] = []
        body = {"assistant_id": "steps", "input": {"wait_at": 2}, "stream_mode": "updates"}
        thread = client.http.post("/threads", json={}).json()["thread_id"]

        def read() -> None:
            with client.http.stream("POST", f"/threads/{thread}/runs/stream", json=body) as answer:
                parts.extend(answer.iter_text())

        broken_off: list[BaseException] = []
        reader = threading.Thread(target=lambda: broken_off.extend(_failure_of(read)))
        reader.start()
        project.until_step(2)

        server.signal(signal.SIGTERM)
        server.until_says("Stopping")
        ready = httpx.get(f"{server.url}/ready", timeout=60)
        project.let_go()
        reader.join(120)

        assert (ready.status_code, ready.json()["services"]["process"]) == (503, "draining")
        assert '"2"' in "".join(parts)  # the step that was in flight was still shown
        assert isinstance(broken_off[0], httpx.RemoteProtocolError)  # dropped, so that the client comes back
        assert server.ended() == 0
        assert "Traceback" not in server.output
    assert crashes(database_uri) == [("pending", 0)]

    with serving(project, database_uri) as server:
        answer = Client(server.url).http.get(f"/threads/{thread}/runs").json()[0]
        assert Client(server.url).result(thread, answer["run_id"])["done"] == [1, 2, 3]
    assert [step for step, _ in project.journal()] == [1, 2, 3]


def _failure_of(work: Callable[[], None]) -> list[BaseException]:
    try:
        work()
    except httpx.HTTPError as error:
        return [error]
    return []


def test_a_second_sigterm_puts_the_run_back_without_waiting_for_its_step(project: Project, database_uri: str) -> None:
    with serving(project, database_uri) as server:
        Client(server.url).start({"wait_at": 2})
        project.until_step(2)

        server.signal(signal.SIGTERM)
        server.until_says("Stopping")
        server.signal(signal.SIGTERM)

        assert server.ended() == 1
    assert crashes(database_uri) == [("pending", 0)]


def test_a_worker_executes_what_an_api_without_one_accepts(project: Project, database_uri: str) -> None:
    environ = {"DATABASE_URI": database_uri}
    arguments = ("worker", "--health-port", "0", "--health-host", "127.0.0.1")
    with (
        Command.running("serve", "--port", "0", cwd=project.folder, environ=environ) as api,
        Command.running(*arguments, cwd=project.folder, environ=environ) as worker,
    ):
        client = Client(api.url)
        assert client.run({})["done"] == [1, 2, 3]
        assert {pid for _, pid in project.journal()} == {worker.pid}
        for path in ("/ok", "/health", "/ready", "/metrics"):
            assert httpx.get(worker.url + path, timeout=60).status_code == 200
        assert httpx.post(worker.url + "/threads", json={}, timeout=60).status_code == 404

        for process in (worker, api):
            process.signal(signal.SIGTERM)
            assert process.ended() == 0


def test_a_database_without_the_schema_is_told_with_the_command(project: Project, empty_database_uri: str) -> None:
    environ = {"DATABASE_URI": empty_database_uri}
    with Command.running("serve", "--port", "0", cwd=project.folder, environ=environ) as server:
        assert server.ended() == 1
        assert "Run `waystation migrate`" in server.output

    with Command.running("migrate", "--plan", cwd=project.folder, environ=environ) as plan:
        assert plan.ended() == 0
    with Command.running("migrate", cwd=project.folder, environ=environ) as done:
        assert done.ended() == 0
    named = [line.split()[1] for line in done.output.splitlines() if line.startswith("applied")]
    assert [line.split()[1] for line in plan.output.splitlines() if line.startswith("pending")] == named
    assert "safe under load" in plan.output
    assert "0001_engine.pre" in done.output


def test_a_graph_that_cannot_be_loaded_ends_the_start_with_one_line(project: Project, database_uri: str) -> None:
    project.write("import nothing_of_that_name\n")

    with serving(project, database_uri) as server:
        assert server.ended() == 3
        (line,) = [line for line in server.output.splitlines() if "Error:" in line]
        assert "graph 'steps'" in line
        assert "steps.py, line 1" in line
        assert "Traceback" not in server.output


def test_a_taken_port_or_a_missing_postgres_ends_the_start(project: Project, database_uri: str) -> None:
    with taken_port() as port:
        arguments = ("serve", "--host", "127.0.0.1", "--port", str(port))
        with Command.running(*arguments, cwd=project.folder, environ={"DATABASE_URI": database_uri}) as server:
            assert server.ended() == 1
            assert f"Port {port} is in use" in server.output

    nowhere = {"DATABASE_URI": "postgres://nobody@127.0.0.1:1/nothing"}
    with Command.running("serve", "--port", "0", cwd=project.folder, environ=nowhere) as server:
        assert server.ended() == 1
        assert "annot connect to Postgres" in server.output
        assert "DATABASE_URI" in server.output
        assert "Traceback" not in server.output


def test_doctor_finds_what_is_wrong(project: Project, database_uri: str, empty_database_uri: str) -> None:
    environ = {"DATABASE_URI": database_uri}
    with Command.running("doctor", cwd=project.folder, environ=environ) as healthy:
        assert healthy.ended() == 0
        assert "graph 'steps' loads" in healthy.output
        assert "the schema is up to date" in healthy.output

    asyncio.run(migrate(empty_database_uri, phase="pre"))
    environ = {"DATABASE_URI": empty_database_uri}
    with Command.running("doctor", cwd=project.folder, environ=environ) as between:
        assert between.ended() == 0
        assert "the schema awaits 0045_sealed_assistants.post" in between.output
        assert "migrate --phase post, when no process of the version before is left" in between.output
    with Command.running("migrate", "--plan", cwd=project.folder, environ=environ) as plan:
        assert plan.ended() == 0
        assert "0045_sealed_assistants.post  safe under load; when no process of the version before" in plan.output

    project.write("graph = 1\n")
    environ = {"DATABASE_URI": "postgres://nobody@127.0.0.1:1/nothing", "REDIS_URI": "redis://127.0.0.1:1"}
    with Command.running("doctor", cwd=project.folder, environ=environ) as sick:
        assert sick.ended() == 1
        failed = [line for line in sick.output.splitlines() if line.startswith("fail")]
        assert [part for line, part in zip(failed, ("Postgres", "Redis", "graph 'steps'"), strict=True) if part in line]
