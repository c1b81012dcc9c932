"""The Postgres and the Redis that the contenders share, each with a database of its own on it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from waystation.cli.project_redis import find_binary
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate

_REDIS_START_S = 20.0


class Services:
    """Made by `running`; everything is gone when that block is left."""

    def __init__(self, root: Path, postgres: EmbeddedPostgres, stack: contextlib.ExitStack) -> None:
        self._root = root
        self._postgres = postgres
        self._stack = stack
        self._made = 0

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Generator[Services]:
        """An embedded Postgres as durable as it comes; a Redis when it is first asked for."""
        with contextlib.ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waystation-bench-")))
            postgres = EmbeddedPostgres.start(root / "postgres", settings={"max_connections": "300"})
            stack.callback(postgres.stop)
            yield cls(root, postgres, stack)

    @property
    def postmaster(self) -> int:
        pid = self._postgres.pid
        assert pid is not None, "Postgres does not run any more"
        return pid

    def folder(self) -> Path:
        """A new folder."""
        self._made += 1
        path = self._root / str(self._made)
        path.mkdir()
        return path

    def database(self, *, migrated: bool) -> str:
        """The address of a new database."""
        self._made += 1
        name = f"bench_{self._made}"
        with psycopg.connect(self._postgres.conninfo, autocommit=True) as conn:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        conninfo = self._postgres.conninfo_of(name)
        if migrated:
            asyncio.run(migrate(conninfo))
        return conninfo

    def redis(self) -> tuple[str, int]:
        """The address and the pid of a new Redis, on a socket.

        Raises:
            RuntimeError: there is none to be had here.
        """
        binary = find_binary()
        if binary is None:
            raise RuntimeError("no Redis: install the extra `embedded`")
        path = self.folder() / "redis.sock"
        command = [str(binary), "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([*command, "--dir", str(path.parent)], stdout=subprocess.DEVNULL)
        self._stack.callback(server.wait)
        self._stack.callback(server.terminate)
        until_answers(path)
        return f"unix://{path}", server.pid


def until_answers(path: Path) -> None:
    """Wait until the Redis on the socket answers."""
    deadline = time.monotonic() + _REDIS_START_S
    while True:
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                client.ping()  # pyright: ignore[reportUnknownMemberType]  # redis leaves its kwargs untyped
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
