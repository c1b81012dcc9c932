"""A backup as one tar file, which any tar reads: `tar tvf`. A file goes on behind its last whole member; what is
written to standard output cannot, and what comes from standard input is put into a temporary file first."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from waystation.cli.backing_up_places import Place, complete, incomplete, keep_others_out, missing
from waystation.cli.failures import CommandError, UsageError
from waystation_db.backup_format import MANIFEST, Part

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class _Member:
    start: int
    size: int


class TarFile(Place):
    """A file on a disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock = threading.Lock()
        self._members: dict[str, _Member] = {}
        self._file: BinaryIO | None = None

    def open_for_writing(self) -> int:
        try:
            self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            keep_others_out(self._file.fileno(), self.name)  # two would write over each other
            self._members, end = _members(self._file)
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}") from None
        if MANIFEST in self._members:
            raise complete(self.name)
        if not self._members and end < os.fstat(self._file.fileno()).st_size:
            raise UsageError(f"{self.name} is there and is no backup: name another file")
        self._drop_damaged_end(end)
        return len(self._members)

    def _drop_damaged_end(self, end: int) -> None:
        """A machine that crashed may have kept a member's header and not all of its content: only the last ones."""
        assert self._file is not None
        for name, member in sorted(self._members.items(), key=lambda one: -one[1].start):
            if hashlib.sha256(self._content(member)).hexdigest() == _digest_in(name):
                break
            del self._members[name]
            end = member.start - _BLOCK
        self._file.truncate(end)
        self._file.seek(end)

    def put(self, name: str, data: bytes) -> bool:
        return self._append(f"parts/{name}.gz", data)

    def finish(self, manifest: bytes) -> None:
        self._append(MANIFEST, manifest)
        self._write(_END)
        assert self._file is not None
        with self._told():
            os.fsync(self._file.fileno())

    def _append(self, name: str, data: bytes) -> bool:
        with self._lock:
            if name in self._members:
                return False
            assert self._file is not None
            start = self._file.tell() + _BLOCK
            self._write(header(name, len(data)) + data + bytes(-len(data) % _BLOCK))
            self._members[name] = _Member(start, len(data))
            return True

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        with self._told():
            self._file.write(data)
            self._file.flush()

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise CommandError(f"{self.name}: {error.strerror}; repeat the command to go on") from None

    def read_manifest(self) -> bytes:
        try:
            self._file = self._path.open("rb")
            self._members, _ = _members(self._file)
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}") from None
        if (member := self._members.get(MANIFEST)) is None:
            raise incomplete(self.name)
        return self._content(member)

    def read(self, part: Part) -> bytes:
        member = self._members.get(f"parts/{part.sha256}.gz")
        if member is None:
            raise missing(part, "the file has no such member")
        return self._content(member)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take was told when it was written
                self._file.close()

    def _content(self, member: _Member) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), member.size, member.start)


class TarStream(TarFile):
    """Standard output or standard input."""

    resumes = False

    def __init__(self) -> None:
        super().__init__(Path("-"))
        self._written: set[str] = set()

    def open_for_writing(self) -> int:
        return 0

    def finish(self, manifest: bytes) -> None:
        self._append(MANIFEST, manifest)
        self._write(_END)

    def _append(self, name: str, data: bytes) -> bool:
        with self._lock:
            if name in self._written:
                return False
            self._written.add(name)
            self._write(header(name, len(data)) + data + bytes(-len(data) % _BLOCK))
            return True

    def _write(self, data: bytes) -> None:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise CommandError(f"standard output: {error.strerror}") from None

    def read_manifest(self) -> bytes:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # gone with the process
        try:
            shutil.copyfileobj(sys.stdin.buffer, self._file)
        except OSError as error:
            folder = tempfile.gettempdir()
            raise CommandError(f"{folder}: {error.strerror}; TMPDIR names another folder for temporary files") from None
        self._members, _ = _members(self._file)
        if (member := self._members.get(MANIFEST)) is None:
            raise incomplete("standard input")
        return self._content(member)


def header(name: str, size: int) -> bytes:
    """The header of a member."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info.tobuf(tarfile.USTAR_FORMAT)


def _members(file: BinaryIO) -> tuple[dict[str, _Member], int]:
    """The members that are whole, and where they end. Reads their headers only."""
    found: dict[str, _Member] = {}
    size = file.seek(0, os.SEEK_END)
    at = 0
    with suppress(tarfile.HeaderError):
        while at < size:
            file.seek(at)
            info = tarfile.TarInfo.frombuf(file.read(_BLOCK), "ascii", "strict")
            after = at + _BLOCK + info.size + -info.size % _BLOCK
            if after > size:
                break
            found[info.name] = _Member(at + _BLOCK, info.size)
            at = after
    return found, at


def _digest_in(name: str) -> str:
    return name.removeprefix("parts/").removesuffix(".gz")
