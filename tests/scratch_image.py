"""The steps of a Dockerfile, executed without Docker in a folder that stands in for the root of the file system.

What is rewritten on the way, and nothing else:

- the folders `/api`, `/deps`, `/usr/local`, `/usr/lib` and `/usr/bin` in a command lie below the scratch root;
- `--system` names the scratch root's Python, a virtual environment that stands in for the image's own;
- `FROM` lays out what our image has (`docker/assemble.sh`); packages of the server come from the environment of the
  tests instead of being installed a second time.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

REPOSITORY = Path(__file__).parents[1]

_ROOTED = re.compile(r"(?<![\w./-])(/(?:api|deps|usr/local|usr/lib|usr/bin)(?=[/\s'\":*;]|$))")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a Dockerfile."""

    instruction: str
    argument: str


def steps_of(dockerfile: str) -> list[Step]:
    """The instructions in order, continued lines joined and comments left out."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [Step(*line.strip().split(None, 1)) for line in joined.splitlines() if line.strip()]


@dataclass(slots=True)
class ScratchImage:
    """An image that is being built: its files below `root`, its variables, its working directory."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict[str, str])
    workdir: Path | None = None

    @property
    def python(self) -> Path:
        return self.root / "usr" / "local" / "bin" / "python"

    def build(self, dockerfile: str, *, context: Path) -> None:
        """Execute every step. A step of a kind that is not known fails."""
        for step in steps_of(dockerfile):
            match step.instruction:
                case "FROM":
                    self._lay_out()
                case "ADD":
                    source, target = step.argument.split()
                    shutil.copytree(context / source, self.inside(target), dirs_exist_ok=True)
                case "RUN":
                    self.run(step.argument)
                case "ENV":
                    name, _, value = step.argument.partition("=")
                    (self.environ[name],) = shlex.split(self._rooted(value))
                case "WORKDIR":
                    self.workdir = self.inside(step.argument)
                case other:
                    raise ValueError(f"a step of an unknown kind: {other} {step.argument}")

    def run(self, command: str) -> str:
        """Execute a shell command as a RUN step; its output. Raises CalledProcessError."""
        rewritten = self._rooted(command).replace("--system", f"--python {shlex.quote(str(self.python))}")
        done = subprocess.run(
            ["sh", "-c", rewritten], cwd=self.root, env=self.process_environ(), capture_output=True, text=True
        )
        if done.returncode:
            raise AssertionError(f"RUN {rewritten}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def inside(self, path: str) -> Path:
        """Where a path of the image lies."""
        return self.root / path.lstrip("/")

    def process_environ(self) -> dict[str, str]:
        """The environment of a process in the image. Nothing of the tests' own but what uv and pip need."""
        bins = [self.root / "usr" / "local" / "bin", self.root / "usr" / "bin"]
        kept = ("UV_", "PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HOME", "LANG", "TMPDIR")
        passed = {name: value for name, value in os.environ.items() if name.upper().startswith(kept)}
        passed.pop("PIP_TARGET", None)
        return {**passed, "PATH": ":".join([*map(str, bins), "/usr/bin", "/bin"]), **self.environ}

    def _rooted(self, text: str) -> str:
        return _ROOTED.sub(lambda match: str(self.root) + match[1], text)

    def _lay_out(self) -> None:
        """What the last stage of our Dockerfile makes: Python with the server's packages, uv, /api."""
        subprocess.run([sys.executable, "-m", "venv", self.root / "usr" / "local"], check=True)
        (packages,) = (self.root / "usr" / "local" / "lib").glob("python*/site-packages")
        (packages / "server_packages.pth").write_text("\n".join(self._packages_of_the_tests()))
        (self.root / "usr" / "bin").mkdir(parents=True)
        for name in ("uv", "uvx"):
            shutil.copy2(Path(find_uv_bin()).with_name(name), self.root / "usr" / "bin" / name)
        subprocess.run(
            ["sh", "docker/assemble.sh", ".", str(self.root / "api")],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHON": sys.executable},
            check=True,
        )
        self.run("uv pip install --quiet --system --no-deps -e /api")
        self.run("python -m compileall -q /api")

    def _packages_of_the_tests(self) -> list[str]:
        return [folder for folder in site.getsitepackages() if Path(folder).is_dir()]
