"""Paths that a search takes values out of threads by: `values.messages[-1].content`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from waystation.errors import InvalidRequest

ROOTS = ("config", "interrupts", "metadata", "values")

_STEP = re.compile(r"\.(?P<member>[^.\[\]]+)|\[(?P<index>-?\d{1,9})\]")
_MAX_SHOWN = 100


def parse_extract(extract: Mapping[str, str]) -> list[dict[str, str | list[str]]]:
    """Aliases and paths as the database takes them: `[{"alias", "root", "path": [member or index, …]}]`.

    Raises:
        InvalidRequest: a path begins with something else than ROOTS, or is malformed.
    """
    return [_parse(alias, path) for alias, path in extract.items()]


def _parse(alias: str, path: str) -> dict[str, str | list[str]]:
    root = re.split(r"[.\[]", path, maxsplit=1)[0]
    if root not in ROOTS:
        raise InvalidRequest(f"Extract path '{path[:_MAX_SHOWN]}' must start with one of: {', '.join(ROOTS)}")
    steps: list[str] = []
    at = len(root)
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise InvalidRequest(
                f"Extract path '{path[:_MAX_SHOWN]}' is malformed at character {at + 1}: expected .member or [index]"
            )
        steps.append(step["member"] or step["index"])
        at = step.end()
    return {"alias": alias, "root": root, "path": steps}
