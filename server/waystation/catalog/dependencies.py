"""`dependencies` of `langgraph.json`: folders that go on the import path, packages that should be installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from waystation.errors import ConfigError

_ADDRESSES = ("git+", "http://", "https://", "file://", "hg+", "svn+", "bzr+")


def read_dependencies(dependencies: tuple[str, ...], root: Path) -> tuple[tuple[Path, ...], list[str]]:
    """The folders to import from, `root` among them, and a sentence for each package that is not as wished.

    Raises:
        ConfigError: a folder that is not there, or neither a folder nor a requirement.
    """
    folders: list[Path] = []
    warnings: list[str] = []
    for i, dependency in enumerate(dependencies):
        key = f"dependencies[{i}] is {dependency!r}"
        folder = (root / dependency).resolve()
        if folder.is_dir():
            folders += [f for f in _import_folders(folder) if f not in folders]
        elif folder.is_file():
            raise ConfigError(f"{key}: expected a folder or a package, and this is a file")
        elif dependency.startswith((".", "/")):
            raise ConfigError(f"{key}: no such folder below {root}")
        elif not dependency.startswith(_ADDRESSES) and (wish := _unmet(key, dependency)):
            warnings.append(f"{key}, {wish}: pip install '{dependency}'")
    # Like `langgraph dev`: the project's own folder can be imported from, whatever the dependencies say.
    return tuple(folders if root in folders else [*folders, root]), warnings


def _import_folders(folder: Path) -> Iterator[Path]:
    yield folder
    if (folder / "src").is_dir() and not (folder / "src" / "__init__.py").exists():
        yield folder / "src"


def _unmet(key: str, dependency: str) -> str | None:
    """What is wrong with an installed package, or that there is none."""
    try:
        requirement = Requirement(dependency)
    except InvalidRequirement:
        raise ConfigError(f'{key}: expected a folder ("."), or a package as pip takes it ("langchain>=1")') from None
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "which is not installed here"
    if requirement.specifier and not requirement.specifier.contains(version, prereleases=True):
        return f"but {version} is installed"
    return None
