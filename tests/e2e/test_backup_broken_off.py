"""Backups and restores that are killed, and go on; and a backup on S3-compatible storage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from backup_world import command, dump, tried
from s3_server import s3_server
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio

SMALL = ("--part-mb", "0.05", "--jobs", "1")

# Incompressible, so that parts are of a size.
_ROWS = """
insert into thread (thread_id) select gen_random_uuid() from generate_series(1, 50);
insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
select thread_id::text, '', 'messages', v::text, 'msgpack', decode(repeat(md5(random()::text), 100), 'hex')
from thread, generate_series(1, 20) v;
insert into assistant (assistant_id, graph_id) values (gen_random_uuid(), 'steps');
"""


@pytest.fixture
async def filled(db: Database, database_uri: str) -> str:
    async with db.connection() as conn:
        for statement in _ROWS.split(";\n"):
            if statement.strip():
                await conn.execute(cast(Any, statement))  # the text above
    return database_uri


_STUCK = """
import sys, threading
from waystation.cli import main
from waystation.cli.backing_up_{module} import {kind}

calls, whole = [], {kind}.{method}

def sticks(self, *arguments):
    calls.append(arguments)
    if len(calls) > 5:
        print("five parts", flush=True)
        threading.Event().wait()
    return whole(self, *arguments)

{kind}.{method} = sticks
main()
"""
"""The command, but for its sixth part, which it never comes to an end with."""

# A part that is under way in a thread ends before the process does.
_SLOW = (
    _STUCK.replace("import sys,", "import signal, sys,")
    .replace("wait()", "wait(0.5)")
    .replace("\nmain()", "\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nmain()")
)

KINDS = {"folder": ("places", "Folder"), "file.tar": ("tar", "TarFile"), "s3://backups/x": ("s3", "Bucket")}


async def killed(method: str, place: str, *arguments: str, uri: str, **environ: str) -> None:
    """Run a command until it is in the middle of its work, and kill it."""
    await _stopped(_STUCK, signal.SIGKILL, method, place, *arguments, uri=uri, **environ)


async def interrupted(method: str, place: str, *arguments: str, uri: str) -> tuple[int | None, str]:
    """Run a command until it is in the middle of its work, and send Ctrl-C: exit code and standard error."""
    return await _stopped(_SLOW, signal.SIGINT, method, place, *arguments, uri=uri)


async def _stopped(
    code: str, number: int, method: str, place: str, *arguments: str, uri: str, **environ: str
) -> tuple[int | None, str]:
    kind = next(kind for name, kind in KINDS.items() if place.endswith(name))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", code.format(module=kind[0], kind=kind[1], method=method), *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "DATABASE_URI": uri, **environ},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(100):
            assert await process.stdout.readline() == b"five parts\n"
            process.send_signal(number)
            _, said = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return process.returncode, said.decode()


def where(place: str, folder: Path) -> str:
    return place if "://" in place else str(folder / place)


@pytest.mark.parametrize("place", ["folder", "file.tar"])
async def test_a_killed_backup_goes_on_and_writes_nothing_twice(
    place: str, filled: str, empty_database_uri: str, tmp_path: Path
) -> None:
    path = where(place, tmp_path)
    await killed("put", path, "backup", path, *SMALL, uri=filled)
    if place.endswith(".tar"):
        with (tmp_path / place).open("ab") as file:
            file.write(b"the beginning of a part that was not written whole")
    code, said = await tried("backup", "verify", path)
    assert (code, "holds no complete backup" in said) == (1, True)
    async with await psycopg.AsyncConnection.connect(filled) as conn:
        await conn.execute("delete from run_trace")
        await conn.execute("insert into thread (thread_id) values (gen_random_uuid())")

    said = await command("backup", path, *SMALL, database_uri=filled)

    assert "Going on: 5 parts are there." in said
    assert int(said.partition(" parts were there already")[0].rpartition(" ")[2]) >= 4
    await command("restore", path, database_uri=empty_database_uri)
    assert await dump(empty_database_uri) == await dump(filled)
    code, said = await tried("backup", path, database_uri=filled)
    assert (code, "holds a complete backup already" in said) == (2, True)


async def test_a_killed_restore_goes_on_and_shows_nothing_until_its_end(
    filled: str, empty_database_uri: str, tmp_path: Path
) -> None:
    uri, path = empty_database_uri, str(tmp_path / "folder")
    await command("backup", path, *SMALL, database_uri=filled)
    await killed("read", path, "restore", path, "--jobs", "1", uri=uri)
    assert not any((await dump(uri)).values())
    code, said = await tried("restore", path, "--existing", "keep", database_uri=uri)
    assert (code, "another restore was interrupted here" in said) == (1, True)

    said = await command("restore", path, database_uri=uri)

    assert "Went on: 5 of" in said
    assert await dump(uri) == await dump(filled)
    assert "There was nothing" in await command("restore", "--abandon", database_uri=uri)


async def test_ctrl_c_in_a_backup_and_in_a_restore_is_a_sentence_and_both_go_on(
    filled: str, empty_database_uri: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "folder")
    stopped = (130, "Stopped before its end; repeat the command to go on\n")
    assert await interrupted("put", path, "backup", path, *SMALL, uri=filled) == stopped
    assert " parts are there." in await command("backup", path, *SMALL, database_uri=filled)

    code, said = await interrupted("read", path, "restore", path, "--jobs", "1", uri=empty_database_uri)
    assert (code, said.endswith(stopped[1]), "Traceback" in said) == (130, True, False)
    assert not any((await dump(empty_database_uri)).values())
    assert "Went on: " in await command("restore", path, database_uri=empty_database_uri)
    assert await dump(empty_database_uri) == await dump(filled)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A server that speaks S3, where boto3 looks for it."""
    pytest.importorskip("boto3", reason="boto3 is not installed")
    with s3_server() as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.mark.usefixtures("s3")
async def test_a_backup_lies_on_s3(filled: str, empty_database_uri: str) -> None:
    place = "s3://backups/x"
    await killed("put", place, "backup", place, *SMALL, uri=filled)
    code, said = await tried("restore", place, database_uri=empty_database_uri)
    assert (code, "holds no complete backup" in said) == (1, True)
    assert "5 parts were there already" in await command("backup", place, *SMALL, database_uri=filled)
    assert "whole" in await command("backup", "verify", place, database_uri="")
    await command("restore", place, database_uri=empty_database_uri)
    assert await dump(empty_database_uri) == await dump(filled)
    for wrong in ("s3://", "s3://nowhere/x", "ftp://a/b"):
        code, said = await tried("backup", "verify", wrong)
        assert code in (1, 2)
        assert said.startswith("Error: ")
