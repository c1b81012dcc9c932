"""The stages of a Dockerfile as folders: each RUN in a mount namespace of its own, by chroot, exactly as written.

A stage's folder holds its files in three parts, as the base image's share must not be counted: `usr` is the upper layer
over this machine's /usr; `local` is /usr/local, which begins as a copy of the Python that stands in for the base
image's; everything else lies in `root`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What a base image has in /etc and what reaching a package index needs of it.
_ETC = (
    "passwd",
    "group",
    "shadow",
    "gshadow",
    "login.defs",
    "nsswitch.conf",
    "hosts",
    "resolv.conf",
    "ssl",
    "ld.so.conf",
    "ld.so.conf.d",
    "default",
    "skel",
)


@dataclass(slots=True)
class Stage:
    """A root that grows step by step, and what is set in it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict[str, str])
    workdir: str = "/"
    user: str = "0:0"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def mounts(self) -> str:
        """Shell commands that put the parts of this root together, for a mount namespace."""
        root, folder = shlex.quote(str(self.root)), shlex.quote(str(self.folder))
        return "\n".join(
            [
                "set -e",
                f"mount --bind {root} {root}",
                f"mount -t overlay overlay -o lowerdir=/usr,upperdir={folder}/usr,workdir={folder}/work {root}/usr",
                f"mount --bind {folder}/local {root}/usr/local",
                f"mount --rbind /dev {root}/dev",
                f"mount -t proc proc {root}/proc",
            ]
        )

    def inside(self, path: str) -> Path:
        """Where a path of the image is written, its part of the root being mounted or not."""
        if path.startswith("/usr/local"):
            return self.folder / "local" / path.removeprefix("/usr/local").lstrip("/")
        if path.startswith("/usr/"):
            return self.folder / "usr" / path.removeprefix("/usr/")
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def run(self, command: str) -> None:
        """A RUN step. Raises CalledProcessError with its output shown."""
        root = shlex.quote(str(self.root))
        inner = f"cd {shlex.quote(self.workdir)} && {command}"
        script = f"{self.mounts()}\nexec chroot {root} /bin/sh -c {shlex.quote(inner)}"
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], check=True, env=self.variables()
        )

    def variables(self) -> dict[str, str]:
        """The environment of a process in this root."""
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        passed = {name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ}
        return {
            "PATH": path,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "LD_LIBRARY_PATH": "/usr/local/lib",
            **passed,
            **self.environ,
        }


def build(repository: Path, folder: Path, *, python: Path, target: str) -> Path:
    """Carry out every stage up to `target`; the folder of its stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for instruction, rest in _steps((repository / "Dockerfile").read_text(encoding="utf-8")):
        match instruction:
            case "ARG":
                pass  # names base images, and the stand-in takes the place of each
            case "FROM":
                if target and target in stages:
                    break
                base, _, name = rest.partition(" AS ")
                name = name or f"stage-{len(stages)}"
                stage = stages[name] = _begin(folder / name, stages.get(base), python)
            case _:
                if stage is None:
                    raise ValueError(f"a step before the first FROM: {instruction} {rest}")
                _carry_out(stage, instruction, rest, stages=stages, context=repository)
    if stage is None:
        raise ValueError("a Dockerfile without a stage")
    return stage.folder


def _steps(dockerfile: str) -> list[Sequence[str]]:
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]


def _carry_out(stage: Stage, instruction: str, rest: str, *, stages: dict[str, Stage], context: Path) -> None:
    match instruction:
        case "RUN":
            stage.run(rest)
        case "COPY":
            _copy(stage, rest, stages=stages, context=context)
        case "ENV":
            stage.environ.update(
                (name, value) for name, _, value in (item.partition("=") for item in shlex.split(rest))
            )
        case "WORKDIR":
            stage.workdir = rest
            stage.inside(rest).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT":
            pass
        case other:
            raise ValueError(f"a step of an unknown kind: {other} {rest}")


def _copy(stage: Stage, rest: str, *, stages: dict[str, Stage], context: Path) -> None:
    words = rest.split()
    origin = stages[words.pop(0).removeprefix("--from=")] if words[0].startswith("--from=") else None
    *sources, target = words
    for source in sources:
        found = origin.inside(source) if origin else context / source
        into = stage.inside(target)
        if found.is_dir():
            ignored = None if origin else shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            into = into / found.name if target.endswith("/") else into
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, into)


def _begin(folder: Path, base: Stage | None, python: Path) -> Stage:
    if base:
        shutil.copytree(base.folder, folder, symlinks=True)
        return Stage(folder, dict(base.environ), base.workdir, base.user)
    for part in (
        "usr",
        "work",
        "root/usr",
        "root/dev",
        "root/proc",
        "root/etc",
        "root/home",
        "root/root",
        "root/var/log",
    ):
        (folder / part).mkdir(parents=True)
    (folder / "root" / "tmp").mkdir(mode=0o777)
    (folder / "root" / "tmp").chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / "root" / name).symlink_to(f"usr/{name}")
    for name in _ETC:
        source, target = Path("/etc") / name, folder / "root" / "etc" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            shutil.copy2(source, target)
    _lay_out_python(python, folder / "local")
    return Stage(folder)


def _lay_out_python(python: Path, local: Path) -> None:
    """What the base image has in /usr/local: no tests, no bytecode, of packages pip alone."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        left_out = {name for name in names if name in {"test", "tests", "__pycache__"} or name.endswith(".a")}
        if folder.endswith("site-packages"):
            left_out = {name for name in names if not name.startswith("pip")}
        return left_out

    for part in ("bin", "lib"):
        shutil.copytree(python / part, local / part, symlinks=True, ignore=ignored)
    for script in (local / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and script.read_bytes()[:2] == b"#!":
            text = script.read_text(encoding="utf-8")
            script.write_text("#!/usr/local/bin/python3\n" + text.partition("\n")[2], encoding="utf-8")
    if not (local / "bin" / "python").exists():
        (local / "bin" / "python").symlink_to("python3")
