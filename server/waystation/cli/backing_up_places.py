"""Where a backup lies: in a folder, in one tar file (or standard output), or under a prefix of S3-compatible storage.

    parts/<sha-256>.gz ...   in any order, each written whole
    manifest.json            last

A part that is there already is not written again, so that an interrupted backup goes on where it was.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from waystation.cli.failures import CommandError, UsageError
from waystation_db.backup_format import MANIFEST, Part
from waystation_db.errors import BackupRefused

S3_SCHEME = "s3://"


class Place(ABC):
    """One backup's place. Methods block: they are called in threads, `put` in several at a time."""

    resumes = True

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def open_for_writing(self) -> int:
        """Get ready; how many parts are there from before. Raises UsageError where a backup is complete."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> bool:
        """Store a part; False if it was there."""

    @abstractmethod
    def finish(self, manifest: bytes) -> None:
        """Store the manifest, which makes the backup complete."""

    @abstractmethod
    def read_manifest(self) -> bytes:
        """Raises BackupRefused: there is none, so the backup is not complete."""

    @abstractmethod
    def read(self, part: Part) -> bytes:
        """The content of a part. Raises BackupRefused where it is missing."""

    def close(self) -> None:
        """Nothing more is read or written."""
        return

    async def aput(self, name: str, data: bytes) -> bool:
        return await asyncio.to_thread(self.put, name, data)

    async def aread(self, part: Part) -> bytes:
        return await asyncio.to_thread(self.read, part)


def place_of(text: str, *, to_write: bool) -> Place:
    """What a command line names. Raises UsageError."""
    if not text.strip():  # a variable that is not set would mean the current folder
        raise UsageError("the place is empty: expected a folder, a file that ends with .tar, s3://bucket/prefix or -")
    # Imported here: boto3 is an extra, and none of these needs the others.
    if text.startswith(S3_SCHEME):
        from waystation.cli.backing_up_s3 import Bucket

        return Bucket(text)
    if "://" in text:
        raise UsageError(f"{text}: expected a folder, a file that ends with .tar, s3://bucket/prefix or -")
    if text == "-" or text.endswith(".tar"):
        from waystation.cli.backing_up_tar import TarFile, TarStream

        if text == "-":
            if to_write and sys.stdout.isatty():
                raise UsageError("standard output is a terminal: lead it into a file or a command")
            return TarStream()
        return TarFile(Path(text))
    return Folder(Path(text))


class Folder(Place):
    """A folder with a file for each part; each appears under its name when it is whole."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._parts = path / "parts"
        self._lock: int | None = None

    def open_for_writing(self) -> int:
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._path, os.O_RDONLY)
            keep_others_out(self._lock, self.name)  # the last manifest of two would win
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}") from None
        if (self._path / MANIFEST).exists():
            raise complete(self.name)
        return sum(1 for one in self._parts.iterdir() if one.suffix == ".gz")

    def put(self, name: str, data: bytes) -> bool:
        path = self._parts / f"{name}.gz"
        if path.exists():
            return False
        self._write(path, data)
        return True

    def finish(self, manifest: bytes) -> None:
        self._write(self._path / MANIFEST, manifest)

    def _write(self, path: Path, data: bytes) -> None:
        half = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with half.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        except OSError as error:
            with suppress(OSError):
                half.unlink(missing_ok=True)  # it takes what little space there is
            raise CommandError(f"{path}: {error.strerror}; repeat the command to go on") from None

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read_manifest(self) -> bytes:
        try:
            return (self._path / MANIFEST).read_bytes()
        except FileNotFoundError:
            if not self._path.exists():
                raise UsageError(f"{self.name}: no such folder") from None
            raise incomplete(self.name) from None
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}") from None

    def read(self, part: Part) -> bytes:
        try:
            return (self._parts / f"{part.sha256}.gz").read_bytes()
        except OSError as error:
            raise missing(part, error.strerror or "") from None


def complete(name: str) -> UsageError:
    return UsageError(f"{name} holds a complete backup already: name another place")


def keep_others_out(file: int, name: str) -> None:
    """Let no second backup write there as long as `file` is open. Raises CommandError where one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CommandError(f"{name}: another backup is being written to it") from None
    except OSError:  # a network's file system without locks keeps backups all the same
        return


def incomplete(name: str) -> BackupRefused:
    return BackupRefused(
        f"{name} holds no complete backup: it has no {MANIFEST}, which is written last. "
        "`waystation backup` to the same place goes on with one that was interrupted"
    )


def missing(part: Part, why: str) -> BackupRefused:
    return BackupRefused(f"part {part.sha256[:12]} of {part.table} cannot be read: {why}")
