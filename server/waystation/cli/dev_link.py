"""What the development server and its supervisor tell each other, in this order:

    server ── configured: what to watch, whether a Postgres is wanted ──▶ supervisor
    server ◀───────────── the address of the Postgres ─────────────────── supervisor
    server ── ready ────────────────────────────────────────────────────▶ supervisor

One line of JSON each, over a pair of sockets. While the supervisor starts Postgres the server imports its code.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from waystation.cli.failures import CommandError


@dataclass(frozen=True, kw_only=True, slots=True)
class DevOrder:
    """What a development server is to do. File descriptors are inherited; `started_at` is of the monotonic clock."""

    config: str | None
    root: str
    listen_fd: int
    lock_fd: int
    link_fd: int
    url: str
    worker_id: str
    started_at: float
    is_first: bool
    n_jobs: int | None = None
    log_level: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    debug_port: int | None = None
    wait_for_client: bool = False
    studio_url: str | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DevOrder:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Configured:
    """What a server has read of its project. `folders` hold its code, `files` its configuration."""

    needs_postgres: bool
    folders: tuple[str, ...]
    files: tuple[str, ...]


class Link(Protocol):
    """The server's side."""

    def configured(self, report: Configured) -> None: ...

    def database_uri(self) -> str:
        """Wait for the address of the Postgres that was asked for."""
        ...

    def ready(self) -> None: ...


class SupervisorLink:
    """To a supervisor in another process."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)
        self._lines = self._sock.makefile("r")

    def configured(self, report: Configured) -> None:
        self._tell({"event": "configured", **asdict(report)})

    def database_uri(self) -> str:
        line = self._lines.readline()
        if not line:
            raise CommandError("The supervisor of this server is gone")
        return cast(str, json.loads(line)["database_uri"])

    def ready(self) -> None:
        self._tell({"event": "ready"})

    def _tell(self, message: dict[str, Any]) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")


def configured_of(message: dict[str, Any]) -> Configured:
    """The report in a message of a server."""
    return Configured(bool(message["needs_postgres"]), tuple(message["folders"]), tuple(message["files"]))
