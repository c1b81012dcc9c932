"""`env` of `langgraph.json`: an object, or the path of a file with `NAME=value` lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from waystation.errors import ConfigError


def read_env(given: str | Mapping[str, str], root: Path) -> tuple[Mapping[str, str], list[str]]:
    """The variables, and a warning when the file is not there: templates name one that is not in the repository.

    `${NAME}` in a file stands for what is above it in the file, else for what the process has.

    Raises:
        ConfigError: the file cannot be read, or a name or value is none that a process can have.
    """
    if not isinstance(given, str):
        return _possible(given), []
    path = root / given
    if not path.exists():
        return {}, [f"env names {given!r}, which does not exist"]
    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"env is {given!r}, which cannot be read: {type(e).__name__}: {e}") from None
    return _possible({name: value for name, value in values.items() if value is not None}), []


def _possible(env: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ConfigError(f"env has {name!r}: expected a name without = and a value without NUL characters")
    return env
