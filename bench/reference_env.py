"""The virtual environment of the reference server. It is only ever started from there, never looked into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PACKAGE = "langgraph-cli[inmem]"


def langgraph_command(folder: Path | None) -> Path:
    """The `langgraph` command of the environment in `folder`, which is made when it is not there.

    Raises:
        RuntimeError: it cannot be installed here.
    """
    home = folder or Path.home() / ".cache" / "waystation-bench" / f"reference-{sys.version_info.minor}"
    command = home / "bin" / "langgraph"
    if not command.exists():
        print(f"Installing {_PACKAGE} into {home} ...", file=sys.stderr)
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", _PACKAGE)
    return command


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise RuntimeError(f"{_PACKAGE} could not be installed: {said.strip().splitlines()[-1]}") from error
