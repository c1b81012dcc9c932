"""The process that owns an embedded Postgres: makes its cluster, runs it, and stops it when nobody uses it any more.

Run as a script by `embedded.py` (`python -I -S embedded_guard.py <json>`), never imported by the server; standard
library only. It answers one JSON line on its standard output and stays in the background:

    user processes ──shared flock──▶ users.lock ◀──exclusive flock, waiting── guard ──parent of──▶ postmaster

The kernel gives the guard its lock when the last user is gone, however it went. That is the whole protocol: no
process list to go stale, nothing to clean up after SIGKILL. Postgres refuses to run as root, so the guard of a root
user first enters a user namespace in which it is somebody else, or where that is forbidden becomes `nobody`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

_CLONE_NEWUSER = 0x10000000
_NAMESPACE_ID = 1000
_LOG_LIMIT_BYTES = 10_000_000


class _RefusedError(Exception):
    """The cluster cannot be made or run here; the text is for the user."""


def main() -> None:
    order = json.loads(sys.argv[1])
    if os.fork():
        os._exit(0)  # the caller waits for the end of our output, not for us
    os.setsid()  # Ctrl-C in the user's terminal is for the server, which then stops Postgres in its own time
    try:
        # Only one guard at a time: the one before may still be on its way out and remove the sockets' directory.
        fcntl.flock(os.open(order["guard_lock"], os.O_RDWR), fcntl.LOCK_EX)
        _make_private(Path(order["sockets"]))
        _leave_root(order)
        log = _open_log(Path(order["log"]))
        postmaster: int = order["adopt"] or _launch(order, log)
    except (_RefusedError, OSError) as error:
        _answer({"error": str(error)})
        os._exit(1)
    _answer({"pid": postmaster})
    _guard(postmaster, order)


def _answer(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked is gone; their lock is, too, which says what is to be done
        os.write(1, json.dumps(message).encode() + b"\n")
    with open(os.devnull, "rb+") as nothing:
        os.dup2(nothing.fileno(), 1)


def _open_log(path: Path) -> int:
    fresh = os.O_TRUNC if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES else 0
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | fresh, 0o600)
    os.dup2(log, 2)
    return log


def _make_private(directory: Path) -> None:
    """Make it, or make sure that it is ours alone: Postgres trusts whoever gets to the socket."""
    directory.mkdir(mode=0o700, exist_ok=True)
    about = directory.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_mode & 0o077 or os.geteuid() not in (0, about.st_uid):
        raise _RefusedError(f"{directory} is not a private directory of this user; remove it.")


def _launch(order: dict[str, Any], log: int) -> int:
    bindir, data = Path(order["bindir"]), Path(order["data"])
    if not (data / "PG_VERSION").exists():
        _make_cluster(bindir, data)
    command = [bindir / "postgres", "-D", data, "-k", order["sockets"]]
    for name, value in order["settings"].items():
        command += ["-c", f"{name}={value}"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    return server.pid


def _make_cluster(bindir: Path, data: Path) -> None:
    """Make the cluster beside its place and move it there whole, so that a kill in between leaves nothing half made."""
    partial = data.with_name(data.name + ".partial")
    for locale in ("C.UTF-8", "C"):
        shutil.rmtree(partial, ignore_errors=True)
        command = [bindir / "initdb", "-D", partial, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += [f"--locale={locale}", "--no-sync", "--no-instructions"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode == 0:
            partial.rename(data)
            return
    raise _RefusedError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")


def _leave_root(order: dict[str, Any]) -> None:
    """Become a user that Postgres accepts and that can reach data, sockets and binaries."""
    if os.geteuid() != 0:
        return
    base, data = Path(order["base"]), Path(order["data"])
    owner = data.stat().st_uid if data.exists() else 0
    if owner == 0 and _enter_user_namespace():
        return
    user = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    order["bindir"] = str(_reachable_binaries(Path(order["bindir"])))
    if not _others_may_enter(base.parent):
        raise _RefusedError(
            f"Postgres does not run as root, this machine forbids user namespaces, and the user {user.pw_name!r} "
            f"cannot reach {base}. Run as a normal user, keep the data outside of private folders, or set DATABASE_URI."
        )
    for path in (base, *base.rglob("*"), Path(order["sockets"])):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _enter_user_namespace() -> bool:
    """Become an unprivileged user of a new namespace whose files are still root's outside. False where forbidden."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not _namespaces_work(libc):
        return False
    if libc.unshare(_CLONE_NEWUSER) != 0:
        return False
    _map_ids()
    return True


def _namespaces_work(libc: ctypes.CDLL) -> bool:
    """Try in a child: a namespace that is granted but may not be mapped cannot be left again."""
    child = os.fork()
    if child == 0:
        works = False
        try:
            works = libc.unshare(_CLONE_NEWUSER) == 0 and _map_ids()
        finally:
            os._exit(0 if works else 1)
    return os.waitpid(child, 0)[1] == 0


def _map_ids() -> bool:
    Path("/proc/self/uid_map").write_text(f"{_NAMESPACE_ID} 0 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{_NAMESPACE_ID} 0 1")
    return os.geteuid() == _NAMESPACE_ID


def _others_may_enter(directory: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (directory, *directory.parents))


def _reachable_binaries(bindir: Path) -> Path:
    """The binaries themselves, or a copy of their tree where the folder above them is closed to other users."""
    if _others_may_enter(bindir):
        return bindir
    tree = bindir.parent
    stamp = int((bindir / "postgres").stat().st_mtime)
    copy = Path("/var/tmp") / f"waystation-postgres-{stamp}"
    if copy.exists() and copy.stat().st_uid != 0:
        raise _RefusedError(f"{copy} belongs to another user; remove it")
    if not copy.exists():
        # Where the tree stands in its package is kept: the binaries look for their libraries relative to themselves.
        partial = Path(f"{copy}.{os.getpid()}")
        shutil.copytree(tree, partial / tree.parent.name / tree.name, symlinks=True)
        libraries = tree.parent.with_name(tree.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        partial.rename(copy)
    return copy / tree.parent.name / tree.name / bindir.name


def _guard(postmaster: int, order: dict[str, Any]) -> None:
    """Wait until the last user is gone or the postmaster has ended, then make sure that it is down."""
    users = os.open(order["users_lock"], os.O_RDWR)
    is_child = not order["adopt"]

    def ended(_signal: int, _frame: FrameType | None) -> None:
        # Also called when the postmaster is merely stopped or continued.
        if is_child and os.waitpid(postmaster, os.WNOHANG)[0]:
            _remove_empty(order["sockets"])
            os._exit(0)

    signal.signal(signal.SIGCHLD, ended)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: os.kill(postmaster, signal.SIGINT))
    ended(0, None)  # it may have ended before the handler stood
    fcntl.flock(users, fcntl.LOCK_EX)
    if not is_child and _pid_in(Path(order["data"])) != postmaster:
        os._exit(0)
    os.kill(postmaster, signal.SIGINT)
    # The lock is held until the postmaster is gone: a new user waits for it and then starts afresh.
    while is_child or _pid_in(Path(order["data"])) == postmaster:
        if is_child:
            signal.pause()  # `ended` leaves from here
        else:
            time.sleep(0.05)
    _remove_empty(order["sockets"])


def _remove_empty(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _pid_in(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


if __name__ == "__main__":
    main()
