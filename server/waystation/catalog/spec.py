"""`"<file or module>:<name>"`: how `langgraph.json` names an object in the user's code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from waystation.errors import ConfigError

_JAVASCRIPT = {".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts"}


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """An object in a file (`file` is absolute) or in an importable module. `text` is what the user wrote."""

    text: str
    name: str
    file: Path | None = None
    module: str | None = None


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One entry of `graphs`."""

    graph_id: str
    target: ObjectSpec
    description: str | None = None


def parse_spec(key: str, text: str, *, root: Path) -> ObjectSpec:
    """Read the spec that stands under `key`. Files are relative to `root`.

    Raises:
        ConfigError: not of the form, or a JavaScript or TypeScript file.
    """
    path, colon, name = text.rpartition(":")
    if Path(path or text).suffix in _JAVASCRIPT:
        raise ConfigError(f"{key} is {text!r}: JavaScript and TypeScript are not supported, expected a Python file")
    if not colon or not path or not name.isidentifier():
        raise ConfigError(f'{key} is {text!r}: expected "<file or module>:<name>", such as "./agent.py:graph"')
    if path.endswith(".py") or "/" in path or "\\" in path:
        return ObjectSpec(text, name, file=(root / path).resolve())
    return ObjectSpec(text, name, module=path)


def parse_graph(graph_id: str, value: object, *, root: Path) -> GraphSpec:
    """Read one entry of `graphs`: a spec, or an object with `path` and maybe `description`.

    Raises:
        ConfigError: as `parse_spec`, and for a name that the database could not store.
    """
    key = f"graphs.{graph_id}"
    if not graph_id or "\0" in graph_id or not _is_unicode(graph_id):
        raise ConfigError(f"graphs has the name {graph_id!r}: expected a text that is not empty and valid Unicode")
    if isinstance(value, str):
        return GraphSpec(graph_id, parse_spec(key, value, root=root))
    entry = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    path, description = entry.get("path"), entry.get("description")
    if not isinstance(path, str):
        raise ConfigError(
            f'{key} is {value!r}: expected "<file or module>:<name>" or {{"path": "<file>:<name>", "description": "…"}}'
        )
    if description is not None and not isinstance(description, str):
        raise ConfigError(f"{key}.description is {description!r}: expected a text")
    return GraphSpec(graph_id, parse_spec(f"{key}.path", path, root=root), description)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
