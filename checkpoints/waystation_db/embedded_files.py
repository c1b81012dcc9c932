"""What the files of an embedded Postgres say: who uses it, who runs it, and where its socket is.

Locks are flocks: the kernel gives them back when their holder is gone, however it went.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from waystation_db.errors import EmbeddedError

_NO_PROCESS = "2147483647"


def socket_dir(data_dir: Path) -> Path:
    """A short path, because a socket's name may have 104 to 108 bytes."""
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"waystation-{name}"


@contextmanager
def exclusive(path: Path, timeout_s: float) -> Generator[None]:
    """Hold `path` alone for the length of the block. Raises EmbeddedError when another keeps it for too long."""
    lock = locked(path, fcntl.LOCK_EX, time.monotonic() + timeout_s)
    try:
        yield
    finally:
        os.close(lock)


def locked(path: Path, kind: int, deadline: float) -> int:
    """Take an flock of this kind and return the descriptor that holds it. Raises EmbeddedError at the deadline."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise EmbeddedError(f"Another process holds {path} for too long.") from None
            time.sleep(0.01)


def is_held(path: Path) -> bool:
    """Whether anybody has locked `path` now."""
    lock = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def pid_file(data: Path) -> list[str]:
    """The lines of postmaster.pid: process id, data directory, start time, port, socket directory, ..., status."""
    try:
        return [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
    except OSError:
        return []


def running_postmaster(data: Path) -> int | None:
    """The process id in postmaster.pid, if it is the postmaster's and not that of a later bearer of the number."""
    first = pid_file(data)[:1]
    if not first or not first[0].isdigit():
        return None
    pid = int(first[0])
    if not exists(pid):
        return None
    return pid if _works_in(pid, data) else None


def _works_in(pid: int, data: Path) -> bool:
    if not Path("/proc/self/cwd").exists():
        return True  # no /proc here: believe the file, as Postgres itself does
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
    except OSError:
        return False


def disown_stale_files(data: Path, sockets: Path) -> None:
    """Let Postgres see that the owner of its lock files is dead when its number has gone to another process.

    That happens in every new container. postmaster.pid stays, with a number that nobody can have: Postgres finds in
    it the shared memory of the dead postmaster and refuses to start while children of it still use that.
    """
    lines = pid_file(data)
    if lines and running_postmaster(data) is None and lines[0].isdigit() and exists(int(lines[0])):
        (data / "postmaster.pid").write_text("\n".join([_NO_PROCESS, *lines[1:]]) + "\n")
        for lock in sockets.glob(".s.PGSQL.*.lock"):
            lock.unlink(missing_ok=True)


def exists(pid: int) -> bool:
    """Whether any process, also another user's, has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
