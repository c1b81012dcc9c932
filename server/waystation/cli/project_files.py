"""Which project a command is about, found without reading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from waystation.errors import ConfigError

CONFIG_NAME = "langgraph.json"


def root_of(config: Path | None) -> Path:
    """The project's folder: that of `config` (a file or the folder itself), else the current one."""
    if config is None:
        return Path.cwd()
    return (config if config.is_dir() else config.parent).resolve()


def require_project(config: Path | None, environ: Mapping[str, str]) -> None:
    """Raise ConfigError where there is nothing to serve, before anything is made in the folder."""
    if config is None and environ.get("LANGSERVE_GRAPHS", "").strip():
        return
    path = config or Path.cwd() / CONFIG_NAME
    if path.is_dir():
        path = path / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: go to the project's folder, or name the file with --config")
