"""Ports for servers that tests start and tell their port: nobody else takes them before, or between two starts.

A port that the kernel has just chosen is free for the next connection of anybody as soon as it is let go.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_LOWEST = 20_000
_HIGHEST = 32_000  # the kernel gives connections those from 32768 on
_ATTEMPTS = 1000
_RESERVED: list[int] = []
"""Open files whose locks say which ports this process has; they end with it."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody else who asks here gets while this process lives."""
    chance = random.SystemRandom()  # pytest-randomly gives all workers the same seed
    for _ in range(_ATTEMPTS):
        port = chance.randrange(_LOWEST, _HIGHEST)
        if _reserve(port):
            return port
    raise RuntimeError(f"no port from {_LOWEST} to {_HIGHEST} is free")


def _reserve(port: int) -> bool:
    directory = Path(tempfile.gettempdir()) / f"waystation-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    lock = os.open(directory / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        os.close(lock)
        return False
    _RESERVED.append(lock)
    return True
