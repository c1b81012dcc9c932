"""What probes are told while a process starts, and of what it depends on."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cli_servers import STEPS, Command, Project, until
from ports import free_port

pytestmark = pytest.mark.timeout(200)

SLOW = (
    """
import time
from pathlib import Path
(Path(__file__).parent / "importing").touch()
while not (Path(__file__).parent / "open").exists():
    time.sleep(0.01)
"""
    + STEPS
)


@pytest.mark.parametrize("command", [("serve", "--host", "--port"), ("worker", "--health-host", "--health-port")])
def test_until_the_graphs_are_there_it_lives_and_is_not_ready(
    tmp_path: Path, database_uri: str, command: tuple[str, str, str]
) -> None:
    project = Project(tmp_path / "project")
    project.write(SLOW)
    port = free_port()
    name, host_option, port_option = command
    arguments = (name, host_option, "127.0.0.1", port_option, str(port))
    with Command.running(*arguments, cwd=project.folder, environ={"DATABASE_URI": database_uri}):
        url = f"http://127.0.0.1:{port}"
        until(lambda: (project.folder / "importing").exists(), "it imports its graphs")
        health, ready, ok = (httpx.get(f"{url}/{path}", timeout=60) for path in ("health", "ready", "ok?check_db=1"))
        assert (health.status_code, health.json()) == (200, {"ok": True})
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "2")
        assert ready.json()["services"] == {"process": "starting"}
        assert ok.status_code == 503
        with (
            ThreadPoolExecutor() as clients,
            socket.create_connection(("127.0.0.1", port)) as idle,  # says nothing, and holds up nobody
        ):
            early = [clients.submit(httpx.get, f"{url}/metrics", timeout=60) for _ in range(5)]
            assert httpx.get(f"{url}/health", timeout=60).status_code == 200, "those who wait are in nobody's way"
            assert not any(answer.done() for answer in early)
            (project.folder / "open").touch()
            until(lambda: httpx.get(f"{url}/ready", timeout=60).status_code == 200, "it is ready")
            assert idle
            assert [answer.result().status_code for answer in early] == [200] * 5
        services = httpx.get(f"{url}/ready", timeout=60).json()["services"]
        assert services == {"postgres": "up", "graphs": "up"}
