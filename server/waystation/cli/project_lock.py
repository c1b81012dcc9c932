"""One `dev` or `up` for a project at a time: they share its Postgres, and the second would take over the first's runs.

.waystation/server.lock   held (flock) by the server and its children: free only when all of them are gone
.waystation/server.json   who holds it, for people and for `waystation down`
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, cast

from waystation.cli.failures import CommandError

FOLDER = ".waystation"
_DYING_S = 3.0
"""How long the children of a killed server may take to be gone."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who serves a project."""

    command: str
    pid: int
    url: str
    ready: bool = False


class ProjectLock:
    """The project's lock, held. The kernel frees it when every process that has `fd` is gone."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder = folder
        self.fd = fd

    @classmethod
    def acquire(cls, root: Path) -> Self:
        """Take the lock of the project in `root`. Raises CommandError, which says who has it."""
        folder = project_folder(root)
        fd = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _DYING_S
        while not _try_lock(fd):
            holder = holder_of(root)
            if (holder is not None and _is_alive(holder.pid)) or time.monotonic() > deadline:
                os.close(fd)
                raise CommandError(_taken(root, holder))
            time.sleep(0.02)
        return cls(folder, fd)

    def announce(self, holder: Holder) -> None:
        """Tell others who this is."""
        partial = self.folder / f"server.json.{os.getpid()}"
        partial.write_text(json.dumps(asdict(holder)))
        partial.rename(self.folder / "server.json")

    def release(self) -> None:
        """Give it up, as the last who has it."""
        (self.folder / "server.json").unlink(missing_ok=True)
        os.close(self.fd)


def project_folder(root: Path) -> Path:
    """`.waystation` in the project, made if need be and kept out of version control."""
    folder = root / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise CommandError(f"Cannot keep data in {folder}: {error.strerror}") from None
    return folder


def holder_of(root: Path) -> Holder | None:
    """Who announced to serve the project; only the lock tells whether they still do."""
    try:
        return Holder(**cast(dict[str, object], json.loads((root / FOLDER / "server.json").read_text())))  # pyright: ignore[reportArgumentType]  # our own file
    except (OSError, ValueError, TypeError):
        return None


def is_locked(root: Path) -> bool:
    """Whether somebody serves the project now."""
    try:
        fd = os.open(root / FOLDER / "server.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)


def stable_worker_id(command: str, root: Path) -> str:
    """The same for each server of this project on this machine: the next one takes over the runs of one that died."""
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return f"{command}:{socket.gethostname()}:{name}"


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _taken(root: Path, holder: Holder | None) -> str:
    who = f"`waystation {holder.command}` (process {holder.pid}, {holder.url})" if holder else "Another server"
    how = "`waystation down`" if holder and holder.command == "up" else "Ctrl-C"
    return f"{who} serves {root} already. Stop it first ({how}), or use the one that runs."
