"""Notices when the code of a project changes. Data that its graphs write beside the code is no change.

Each folder is watched by itself, because a recursive watch would take in `.venv` and `node_modules`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from watchfiles import (
    Change,
    awatch,  # pyright: ignore[reportUnknownVariableType]  # of its stop_event, not used here
)

_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "site-packages", "build", "dist"})
_AT_ONCE_MS = 200  # editors write a file in several steps
_RESCAN_S = 0.2


async def changes(roots: Iterable[Path], also: Iterable[Path] = ()) -> AsyncIterator[frozenset[Path]]:
    """Sets of changed Python files below `roots`, and of those files in `also` (configuration) that changed.

    Folders that are added later are watched too. Ends when it is closed or cancelled.
    """
    roots, files = list(roots), frozenset(path.resolve() for path in also)

    def counts(_change: Change, path: str) -> bool:
        return path.endswith(".py") or Path(path) in files or (_change == Change.added and os.path.isdir(path))

    while True:
        folders = folders_below(roots, files)
        if not folders:
            await asyncio.sleep(_RESCAN_S)
            continue
        async for found in awatch(
            *folders, watch_filter=counts, recursive=False, step=_AT_ONCE_MS, rust_timeout=1000, debug=False
        ):
            paths = frozenset(Path(path) for _, path in found)
            code = frozenset(path for path in paths if not path.is_dir())
            if code:
                yield code
            if len(code) < len(paths) or any(not folder.is_dir() for folder in folders):
                break  # the set of folders is another one now


def folders_below(roots: Iterable[Path], files: Iterable[Path] = ()) -> list[Path]:
    """Every folder that may hold code, and those of `files`, without what is hidden, installed or built."""
    found = {file.parent for file in files if file.parent.is_dir()}
    for root in roots:
        for folder, children, _ in os.walk(root):
            children[:] = [c for c in children if _may_hold_code(Path(folder, c))]
            found.add(Path(folder))
    return sorted(found)


def _may_hold_code(folder: Path) -> bool:
    name = folder.name
    if name.startswith(".") or name in _SKIPPED or name.endswith(".egg-info"):
        return False
    return not (folder / "pyvenv.cfg").exists()
