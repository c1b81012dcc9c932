"""Server processes to maltreat: started as users start them, watched from outside, ended with the test."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from ports import free_port

PROJECT = Path(__file__).parent / "project"
READY_S = 60.0

# Faults show within a test's patience; what the defaults promise follows by scale.
QUICK = {
    "WAYSTATION_LEASE_S": "2",
    "WAYSTATION_RENEW_S": "0.6",
    "WAYSTATION_SWEEP_S": "0.5",
    "WAYSTATION_POLL_S": "0.2",
    "WAYSTATION_ABANDON_S": "1",
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "20",
}

# For tests in which nobody dies: a machine that stalls for seconds takes no lease from a healthy worker.
PATIENT = {"WAYSTATION_LEASE_S": "30"}


class Node:
    """One process."""

    def __init__(
        self, fleet: Fleet, name: str, *args: str, port: int = 0, environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.port = port
        self._fleet = fleet
        self._args = args
        self._environment = fleet.environment | (environment or {})
        self.log_path = fleet.directory / f"{name}.log"
        self._zygote = fleet.zygote
        order = {"argv": args, "env": self._environment, "log": str(self.log_path), "warm": fleet.imports}
        self.pid: int = self._zygote.ask(order)["pid"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def code(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._zygote.ask({"poll": self.pid})["code"]

    @property
    def is_alive(self) -> bool:
        return self.code is None

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        while self.is_alive:
            time.sleep(0.002)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def again(self) -> Node:
        """Another process with the same command and port."""
        return self._fleet.add(Node(self._fleet, self.name, *self._args, port=self.port, environment=self._environment))

    async def ended(self, within_s: float) -> int:
        """Wait for the process to exit by itself; its exit code."""
        deadline = time.monotonic() + within_s
        while (code := self.code) is None:
            assert time.monotonic() < deadline, f"{self.name} did not exit in {within_s} s: {self.log()}"
            await asyncio.sleep(0.02)
        return code

    async def ready(self) -> Node:
        """Wait until the API answers."""
        deadline = time.monotonic() + READY_S
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            while True:
                assert self.is_alive, f"{self.name} ended: {self.log()}"
                assert time.monotonic() < deadline, f"{self.name} does not answer: {self.log()}"
                try:
                    if (await client.get("/ok")).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.03)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


class Zygote:
    """The process that the nodes are forked from; see `zygote.py`."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.zygote"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


class Fleet:
    """Processes of one deployment over one database."""

    def __init__(
        self,
        directory: Path,
        environment: dict[str, str],
        zygote: Zygote,
        *,
        project: Path | str = PROJECT,
        imports: Sequence[str] = (),
    ) -> None:
        """`imports`: modules that take long, loaded once for all processes."""
        self.zygote = zygote
        self.imports = imports
        self.directory = directory
        self.executions = directory / "executions"
        self.executions.touch()
        self.environment = environment | {"CHAOS_EXECUTIONS": str(self.executions)}
        self.nodes: list[Node] = []
        self._commands = 0
        self._config = str(Path(project) / "langgraph.json")

    def dev(self, project: Path, *, port: int | None = None) -> Node:
        """`waystation dev` of a copy of the project, in one process."""
        config = str(project / "langgraph.json")
        return self._served("dev", "dev", "-c", config, "--no-reload", "--no-browser", port=port)

    def alone(self, name: str = "alone", *, port: int | None = None) -> Node:
        """API and worker in one process."""
        return self._served(name, "serve", "-c", self._config, "--with-worker", port=port)

    def api(self, name: str = "api", *, port: int | None = None) -> Node:
        return self._served(name, "serve", "-c", self._config, port=port)

    def worker(self, name: str, **environment: str) -> Node:
        """A worker, which says on its port when it is ready; `environment` replaces what the fleet has."""
        port = free_port()
        told = ("worker", "-c", self._config, "--health-host", "127.0.0.1", "--health-port", str(port))
        return self.add(Node(self, name, *told, port=port, environment=environment))

    def workers(self, count: int) -> list[Node]:
        return [self.worker(f"worker-{n}") for n in range(count)]

    async def command(self, words: str, *args: str) -> str:
        """What a command such as `ledger correct` says about this project and database. It has to succeed."""
        self._commands += 1
        node = self.add(Node(self, f"command-{self._commands}", *words.split(), "-c", self._config, *args))
        assert await node.ended(within_s=60) == 0, node.log()
        return node.log()

    def end(self) -> None:
        """Kill what still runs."""
        for node in self.nodes:
            if node.is_alive:
                node.kill()

    def _served(self, name: str, *args: str, port: int | None) -> Node:
        port = port or free_port()
        return self.add(Node(self, name, *args, "--host", "127.0.0.1", "--port", str(port), port=port))

    def add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node


@contextmanager
def fleet_of(
    directory: Path,
    database_uri: str | None,
    *,
    redis_url: str | None = None,
    project: Path | str = PROJECT,
    imports: Sequence[str] = (),
    **settings: str,
) -> Generator[Fleet]:
    """A fleet on this database, with quick leases; `settings` are environment variables that win over these."""
    ours = ("WAYSTATION_", "DATABASE_", "POSTGRES_", "REDIS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {**QUICK, "PYTHONUNBUFFERED": "1", **settings}
    if database_uri is not None:
        environment["DATABASE_URI"] = database_uri
    if redis_url is not None:
        environment["REDIS_URI"] = redis_url
    directory.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(directory, environment, _zygote(), project=project, imports=imports)
    try:
        yield fleet
    finally:
        fleet.end()


@cache
def _zygote() -> Zygote:
    zygote = Zygote()
    atexit.register(zygote.end)
    return zygote
