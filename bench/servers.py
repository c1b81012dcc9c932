"""Starts the servers that are compared, and ends them: processes on 127.0.0.1 with a fresh database each."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.services import Services

PROJECT = Path(__file__).with_name("project")
_READY_S = 90.0
_STOP_S = 20.0


@dataclass(frozen=True)
class Running:
    """A server that answers on `port`; the pids by what they are (`server`, `Postgres`, `Redis`)."""

    port: int
    groups: Mapping[str, tuple[int, ...]]


class Children:
    """Processes of one contender, in a group of their own each, so that nothing stays behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Start a process in the folder; its output goes to a file there."""
        own = ("DATABASE", "POSTGRES", "REDIS", "LANGSERVE", "WAYSTATION", "N_JOBS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        with (self._folder / f"{len(self._running)}.log").open("wb") as log:
            child = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**kept, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(child)
        return child.pid

    def until_ready(self, port: int, path: str) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: it does not, with what the processes said last.
        """
        deadline = time.monotonic() + _READY_S
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if time.monotonic() > deadline or any(child.poll() is not None for child in self._running):
                raise RuntimeError("it did not start:\n" + "\n".join(self._last_words()))
            time.sleep(0.05)

    def stop(self) -> None:
        for child in reversed(self._running):
            child.terminate()
        for child in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _last_words(self) -> Iterator[str]:
        for log in sorted(self._folder.glob("*.log")):
            yield from log.read_text(errors="replace").splitlines()[-15:]


@contextlib.contextmanager
def _children(services: Services) -> Generator[Children]:
    folder = services.folder()
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    children = Children(folder)
    try:
        yield children
    finally:
        children.stop()


@contextlib.contextmanager
def one_process(services: Services, *, jobs: int, more: Mapping[str, str] | None = None) -> Generator[Running]:
    """`waystation serve --with-worker`, live events in memory. `more`: variables besides."""
    port = free_port()
    with _children(services) as children:
        environ = {"DATABASE_URI": services.database(migrated=True), "WAYSTATION_EVENT_LOG": "memory"}
        environ |= more or {}
        command = _waystation("serve", "--with-worker", *_listen(port), "--n-jobs-per-worker", str(jobs))
        pid = children.start(command, environ)
        children.until_ready(port, "/ready")
        yield Running(port, {"server": (pid,), "Postgres": (services.postmaster,)})


@contextlib.contextmanager
def api_and_workers(services: Services, *, jobs: int, workers: int = 2) -> Generator[Running]:
    """`waystation serve` and `waystation worker` processes, live events over Redis."""
    port = free_port()
    with _children(services) as children:
        redis_uri, redis = services.redis()
        environ = {"DATABASE_URI": services.database(migrated=True), "REDIS_URI": redis_uri}
        pids = [children.start(_waystation("serve", *_listen(port)), environ)]
        for _ in range(workers):
            health = free_port()
            command = _waystation("worker", "--n-jobs-per-worker", str(jobs), "--health-host", "127.0.0.1")
            pids.append(children.start([*command, "--health-port", str(health)], environ))
            children.until_ready(health, "/ready")
        children.until_ready(port, "/ready")
        yield Running(port, {"server": tuple(pids), "Postgres": (services.postmaster,), "Redis": (redis,)})


@contextlib.contextmanager
def reference(services: Services, *, command: Path, jobs: int) -> Generator[Running]:
    """`langgraph dev`, which keeps everything in memory."""
    port = free_port()
    with _children(services) as children:
        environ = {
            "LANGSMITH_TRACING": "false",
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        }
        arguments = ["dev", "--no-reload", "--no-browser", "--host", "127.0.0.1", "--port", str(port)]
        pid = children.start([str(command), *arguments, "--n-jobs-per-worker", str(jobs)], environ)
        children.until_ready(port, "/ok")
        yield Running(port, {"server": (pid,)})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _waystation(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "waystation.cli", *arguments]


def _listen(port: int) -> tuple[str, ...]:
    return "--host", "127.0.0.1", "--port", str(port)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False
