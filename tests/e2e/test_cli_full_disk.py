"""What an operator's commands say when their output finds no room: an exit code and a sentence, and nothing is lost in
silence."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

THREAD = "01a1ff7d-a381-72b5-bbbe-05f48f1fa57b"
FULL = Path("/dev/full")
ENTRY = """
insert into guard_ledger (call, call_id, kind, bills, model, price_version, usage, spent, detail, thread_id, run_id,
    attempt, node, namespace, assistant_id, graph_id, user_id, key_id, claim)
values ('c', 'c', 'model', true, 'm', 'v', '{}', '[]', '{}', '', '', 1, '', '', '', '', '', '', '')
"""


@pytest.fixture
def filled(database_uri: str) -> str:
    """With an audit record and a thread of some size."""
    with psycopg.connect(database_uri) as conn:
        conn.execute("insert into thread (thread_id) values (%s)", (THREAD,))
        conn.execute(
            "insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)"
            " select %s, '', 'messages', v::text, 'msgpack', decode(repeat(md5(random()::text), 100), 'hex')"
            " from generate_series(1, 20) v",
            (THREAD,),
        )
    waystation("keys", "create", "ann", "--role", "user", uri=database_uri)
    return database_uri


def waystation(*arguments: str, uri: str, to: Path | None = None, file_bytes: int | None = None) -> tuple[int, str]:
    """Exit code and standard error. `file_bytes`: no file may become larger."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    with open(to or os.devnull, "w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "waystation.cli", *arguments],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DATABASE_URI": uri},
            preexec_fn=limit,
            timeout=110,
        )
    return done.returncode, done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "export"),
        ("threads", "export", THREAD),
        ("keys", "create", "bob", "--role", "user"),
        ("backup", "-"),
    ],
    ids=" ".join,
)
def test_what_standard_output_does_not_take_is_an_error(filled: str, arguments: tuple[str, ...]) -> None:
    said = waystation(*arguments, uri=filled, to=FULL)
    assert said == (1, "Error: standard output: No space left on device\n")


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_a_ledger_whose_file_finds_no_room_is_an_error(filled: str, tmp_path: Path) -> None:
    with psycopg.connect(filled) as conn:
        conn.execute(ENTRY)
    said = waystation("ledger", "export", "-o", str(FULL), uri=filled)
    assert said == (1, "Error: /dev/full cannot be written: No space left on device\n")
    assert waystation("ledger", "export", "-o", str(tmp_path), uri=filled)[0] == 2


@pytest.mark.parametrize("name", ["folder", "file.tar"])
def test_a_backup_that_finds_no_room_says_so_and_goes_on_later(filled: str, tmp_path: Path, name: str) -> None:
    place = str(tmp_path / name)
    code, said = waystation("backup", place, uri=filled, file_bytes=8192)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith(f"Error: {place}")
    assert said.endswith("File too large; repeat the command to go on\n")
    assert not [one for one in tmp_path.rglob(".*") if one.is_file()], "half a part keeps room from others"
    assert waystation("backup", "verify", place, uri=filled)[0] == 1
    assert waystation("backup", place, uri=filled)[0] == 0
    assert waystation("backup", "verify", place, uri=filled) == (0, "")


def test_a_backup_from_standard_input_that_finds_no_room_names_the_folder(filled: str, tmp_path: Path) -> None:
    backup = tmp_path / "file.tar"
    assert waystation("backup", str(backup), uri=filled)[0] == 0
    with backup.open("rb") as given:
        done = subprocess.run(
            [sys.executable, "-m", "waystation.cli", "backup", "verify", "-"],
            stdin=given,
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
            timeout=110,
        )
    assert done.returncode == 1
    assert done.stderr == f"Error: {tmp_path}: File too large; TMPDIR names another folder for temporary files\n"


def test_a_file_that_another_backup_writes_is_left_alone(filled: str, tmp_path: Path) -> None:
    place = tmp_path / "file.tar"
    with place.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, said = waystation("backup", str(place), uri=filled)
    assert (code, said) == (1, f"Error: {place}: another backup is being written to it\n")
    assert place.read_bytes() == b""


def test_a_folder_that_another_backup_writes_is_left_alone(filled: str, tmp_path: Path) -> None:
    place = tmp_path / "folder"
    place.mkdir()
    other = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, said = waystation("backup", str(place), uri=filled)
    finally:
        os.close(other)
    assert (code, said) == (1, f"Error: {place}: another backup is being written to it\n")
    assert not list(place.rglob("*.gz"))
    assert waystation("backup", str(place), uri=filled)[0] == 0
