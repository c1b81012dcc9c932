"""A real PgBouncer in transaction mode, in front of a test's Postgres."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from ports import free_port

START_S = 60.0

# Fewer server connections than clients, so that a session's state would be seen by somebody else at once.
_CONFIG = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
{more}
"""


def binary() -> str | None:
    """Where PgBouncer is on this machine; Debian puts it where only root's PATH looks."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


@contextmanager
def pgbouncer_before(database_uri: str, directory: Path, *, pool_size: int = 4, more: str = "") -> Generator[str]:
    """The address of the same database through PgBouncer, until the block is left; `more` are lines of its file."""
    parts = urlsplit(database_uri)
    host = parse_qs(parts.query)["host"][0]
    port = free_port()
    config = directory / "pgbouncer.ini"
    config.write_text(_CONFIG.format(host=host, port=port, pool_size=pool_size, more=more))
    with open(directory / "pgbouncer.log", "wb") as log:
        process = subprocess.Popen(_command(host, config), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            uri = f"postgresql://postgres@127.0.0.1:{port}{parts.path}"
            _await_answer(uri, process, directory / "pgbouncer.log")
            yield uri
        finally:
            process.terminate()
            process.wait(timeout=20)


def _command(socket_dir: str, config: Path) -> list[str]:
    """PgBouncer refuses to be root, as Postgres does; it becomes whoever the embedded Postgres became."""
    command = [binary() or "pgbouncer", str(config)]
    if os.geteuid() != 0:
        return command
    owner = Path(socket_dir).stat().st_uid
    if owner == 0:
        return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
    return [command[0], "--user", pwd.getpwuid(owner).pw_name, str(config)]


def _await_answer(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(uri).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start: {log.read_text()}") from None
            time.sleep(0.02)
