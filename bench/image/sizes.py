"""What an image weighs beyond its base, and whether two builds are the same."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections import Counter
from pathlib import Path

_MB = 1_000_000
_LARGEST = 10


def report(image: Path) -> str:
    """The layers that the last stage copies, plain and as a registry keeps them, and the largest packages."""
    built = image.parent / "build"
    layers = {
        "/install -> /usr/local": built / "root" / "install",
        "/api": built / "root" / "api",
        "/usr/bin (uv)": image / "usr" / "bin",
    }
    lines = ["", "| layer | files | MB | MB compressed |", "| --- | --: | --: | --: |"]
    for name, folder in layers.items():
        if folder.is_dir():
            files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
            size = sum(path.stat().st_size for path in files)
            lines.append(f"| {name} | {len(files)} | {size / _MB:.1f} | {_compressed(folder) / _MB:.1f} |")
    return "\n".join([*lines, "", *_packages(built / "root" / "install"), ""])


def _packages(install: Path) -> list[str]:
    weights: Counter[str] = Counter()
    bytecode = 0
    (packages,) = install.glob("lib/python*/site-packages")
    for path in packages.rglob("*"):
        if path.is_file() and not path.is_symlink():
            size = path.stat().st_size
            weights[path.relative_to(packages).parts[0]] += size
            bytecode += size if path.suffix == ".pyc" else 0
    largest = ", ".join(f"{name} {size / _MB:.1f}" for name, size in weights.most_common(_LARGEST))
    return [f"Largest, in MB: {largest}.", f"Bytecode is {bytecode / _MB:.1f} MB of it."]


def _compressed(folder: Path) -> int:
    """Bytes of the folder as a tar archive under gzip's deflate."""
    squeeze = zlib.compressobj(6)
    total = 0
    for path in sorted(folder.rglob("*")):
        head = tarfile.TarInfo(str(path.relative_to(folder))).tobuf()
        total += len(squeeze.compress(head))
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                while block := file.read(io.DEFAULT_BUFFER_SIZE * 8):
                    total += len(squeeze.compress(block))
    return total + len(squeeze.flush())


def differences(first: Path, second: Path) -> list[str]:
    """Paths whose kind, mode, owner or bytes are not the same; times are not looked at, a builder sets those."""
    one, other = _fingerprints(first), _fingerprints(second)
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def _fingerprints(image: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("root", "local", "usr"):
        for path in (image / part).rglob("*"):
            about = path.lstat()
            owner = f"{about.st_mode:o} {about.st_uid}:{about.st_gid}"
            if path.is_symlink():
                content = str(path.readlink())
            else:
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[f"{part}/{path.relative_to(image / part)}"] = f"{owner} {content}"
    return found
