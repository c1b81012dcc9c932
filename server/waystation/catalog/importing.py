"""Imports the user's code: a file or a module, and from it the object that a spec names.

A file gets the module name under which the rest of the project would import it (`agents.chat` for `./agents/chat.py`),
so that there is one copy of it, relative imports work, and classes in its state keep their name from start to start. A
file that no import would find gets a name made from its path.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from waystation.catalog.spec import ObjectSpec
from waystation.errors import ConfigError

_NOT_THE_USERS = {"site-packages", "dist-packages", ".venv", "venv", "node_modules"}


@dataclass(frozen=True, slots=True)
class Importer:
    """Loads objects of one project. `folders` are where its code may be imported from."""

    root: Path
    folders: tuple[Path, ...]

    def extend_path(self) -> None:
        """Make `folders` importable, after everything that is installed, as `langgraph dev` does."""
        for folder in self.folders:
            _append_to_path(folder)

    def load(self, spec: ObjectSpec, *, what: str) -> object:
        """The object that `spec` names; runs the user's module unless it is imported already.

        Raises:
            ConfigError: names `what` (such as "graph 'chat'"), the spec, the user's file and line, and the reason.
        """
        try:
            module = self._import(spec)
        except ConfigError as e:
            raise ConfigError(f"{what} ({spec.text}) cannot be loaded: {e.message}") from None
        # SystemExit too: a script that calls sys.exit() when imported must not stop us without a word.
        except (Exception, SystemExit) as e:
            raise ConfigError(f"{what} ({spec.text}) cannot be loaded: {self.reason(e)}") from e
        try:
            return getattr(module, spec.name)
        except AttributeError:
            hint = _near_miss(spec.name, [name for name in vars(module) if not name.startswith("_")])
            raise ConfigError(
                f"{what} ({spec.text}) cannot be loaded: {module.__name__} has no {spec.name!r}{hint}"
            ) from None

    def reason(self, error: BaseException) -> str:
        """`file, line n: Class: text` for an error of the user's code; the innermost of their own lines."""
        text = " ".join(str(error).split())[:500]
        if isinstance(error, SyntaxError) and error.filename is not None:
            place = f"{self._shown(error.filename)}, line {error.lineno}: "
            text = error.msg
        else:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if self._is_the_users(f.filename)]
            place = f"{self._shown(frames[-1].filename)}, line {frames[-1].lineno}: " if frames else ""
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = f"; install it, or put its folder into dependencies (searched: {', '.join(map(str, self.folders))})"
        return f"{place}{type(error).__name__}{': ' if text else ''}{text}{hint}"

    def _import(self, spec: ObjectSpec) -> ModuleType:
        if spec.file is None:
            assert spec.module is not None
            return importlib.import_module(spec.module)
        if not spec.file.is_file():
            raise ConfigError(_missing_file(spec.file))
        return self._import_file(spec.file)

    def _import_file(self, file: Path) -> ModuleType:
        if not (file.parent / "__init__.py").exists():
            _append_to_path(file.parent)  # siblings, as for a script
        for name in self._names(file):
            module = importlib.import_module(name)
            if _is_from(module, file):
                return module
        return _import_as(self._own_name(file), file)

    def _names(self, file: Path) -> Iterator[str]:
        """Dotted names under which an import would find `file`: below the deepest folder first, as a script last."""
        folders = sorted(self.folders, key=lambda folder: len(folder.parts), reverse=True)
        if not (file.parent / "__init__.py").exists():
            folders.append(file.parent)
        for folder in folders:
            if file.is_relative_to(folder):
                parts = list(file.relative_to(folder).with_suffix("").parts)
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                if parts and all(part.isidentifier() for part in parts) and _leads_to(parts, folder):
                    yield ".".join(parts)

    def _own_name(self, file: Path) -> str:
        relative = file.relative_to(self.root) if file.is_relative_to(self.root) else file
        name = _name_from(relative)
        taken = sys.modules.get(name)
        return name if taken is None or _is_from(taken, file) else _name_from(file)

    def _is_the_users(self, filename: str) -> bool:
        path = Path(filename)
        inside = any(path.is_relative_to(folder) for folder in (self.root, *self.folders))
        return inside and _NOT_THE_USERS.isdisjoint(path.parts)

    def _shown(self, filename: str) -> str:
        path = Path(filename)
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else filename


def _append_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _leads_to(parts: Sequence[str], folder: Path) -> bool:
    """Whether importing the top of `parts` would look in `folder`. Finds the top without running anything."""
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):  # ValueError: a module in sys.modules without a spec, such as __main__
        return False
    if spec is None:
        return False
    if spec.submodule_search_locations is not None:
        return str(folder / parts[0]) in list(spec.submodule_search_locations)
    return len(parts) == 1 and spec.origin == str(folder / f"{parts[0]}.py")


def _is_from(module: ModuleType, file: Path) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is not None and Path(origin).resolve() == file


def _name_from(path: Path) -> str:
    stem = re.sub(r"\W", "_", path.stem)
    return f"project_{stem}_{hashlib.sha256(path.as_posix().encode()).hexdigest()[:8]}"


def _import_as(name: str, file: Path) -> ModuleType:
    """Import `file` as `name`; it stands in `sys.modules` while it runs, where annotations are looked up."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _missing_file(file: Path) -> str:
    siblings = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
    return f"{file} does not exist{_near_miss(file.name, siblings)}"


def _near_miss(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
