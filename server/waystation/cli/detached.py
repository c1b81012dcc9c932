"""`waystation up --wait` and `waystation down`: `up` without a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from waystation.cli.children import ending, python_command
from waystation.cli.failures import ChildFailed, CommandError
from waystation.cli.project_lock import ProjectLock, holder_of, is_locked, project_folder
from waystation.cli.terminal import say

_LOOK_S = 0.1
_LOG_TAIL_BYTES = 4000


def start(arguments: Sequence[str], root: Path) -> None:
    """Run `waystation up` with these arguments in the background; returns when it is ready.

    Raises ChildFailed: it ended first; the end of its log has been shown.
    """
    ProjectLock.acquire(root).release()  # whoever has it keeps their log
    log_path = project_folder(root) / "up.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            python_command("waystation.cli", "up", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while process.poll() is None:
        holder = holder_of(root)
        if holder is not None and holder.pid == process.pid and holder.ready:
            say(f"Ready at {holder.url} (process {holder.pid}). Log: {log_path}. Stop it with: waystation down")
            return
        time.sleep(_LOOK_S)
    say(log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip(), err=True)
    code = process.returncode
    if code < 0:
        say(f"`waystation up` {ending(code)}", err=True)
    raise ChildFailed(code if code > 0 else 1)


def stop(root: Path, *, timeout_s: float) -> None:
    """End the `up` (or `dev`) that serves the project, and wait until all of it is gone.

    Raises CommandError: it does not end in time.
    """
    holder = holder_of(root)
    if holder is None or not is_locked(root):
        say("Nothing serves this project.")
        return
    os.kill(holder.pid, signal.SIGTERM)
    say(f"Stopping `waystation {holder.command}` (process {holder.pid}); runs finish or hand over")
    deadline = time.monotonic() + timeout_s
    while is_locked(root):
        if time.monotonic() > deadline:
            raise CommandError(f"Process {holder.pid} is not gone after {timeout_s:g} s. Try again, or kill -9 it")
        time.sleep(_LOOK_S)
    say("Stopped.")
    sys.stdout.flush()
