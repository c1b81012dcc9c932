"""Loading sample projects in tests, each with a clean import state."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.store.memory import InMemoryStore

from waystation.catalog import Catalog, read_project

FIXTURES = Path(__file__).parents[1]
FORMS = FIXTURES / "fixtures" / "projects" / "forms"
BASIC = FIXTURES / "contract" / "fixtures" / "basic"
_PROJECTS = (FIXTURES / "fixtures" / "projects", FIXTURES / "contract" / "fixtures")
_NAMES = {path.stem for root in _PROJECTS for path in root.glob("*/*.py")}


@contextmanager
def clean_imports() -> Generator[None]:
    """Undo what loading a project does to `sys.path` and `sys.modules`, and hide what other tests' servers have
    loaded, so that no test sees another's modules: two projects may both have a `graphs.py`.
    """
    path, modules = list(sys.path), dict(sys.modules)
    sys.path[:] = [folder for folder in path if not _is_of_a_project(folder) and not _has_one_of_our_names(folder)]
    for name, module in modules.items():
        if name.partition(".")[0] in _NAMES or _is_of_a_project(getattr(module, "__file__", None)):
            del sys.modules[name]
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in set(sys.modules) - set(modules) if not _is_library(sys.modules[name])]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in modules.items() if not _is_library(module)})


def _is_of_a_project(place: str | None) -> bool:
    return place is not None and any(Path(place).is_relative_to(folder) for folder in _PROJECTS)


def _has_one_of_our_names(folder: str) -> bool:
    """A server of another test may serve a `graphs.py` out of a temporary folder."""
    return any((Path(folder) / f"{name}.py").exists() for name in _NAMES)


def _is_library(module: ModuleType) -> bool:
    """Libraries stay: they do not survive being imported twice."""
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
    return any("site-packages" in place or place.startswith(sys.base_prefix) for place in places)


async def load(root: Path) -> Catalog:
    return await Catalog.load(read_project(root), store=InMemoryStore())


def project(root: Path, files: dict[str, str], **graphs: object) -> Path:
    """A project made of `files` and `graphs`, below `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}), encoding="utf-8")
    return root


async def said(catalog: Catalog, graph_id: str, config: RunnableConfig | None = None, **asked: Any) -> str:
    """What the graph of a sample project says when it runs."""
    config = config or {"configurable": {}}
    async with catalog.open(graph_id, access="threads.create_run", config=config, **asked) as graph:
        result: dict[str, Any] = await graph.ainvoke({}, config)  # pyright: ignore[reportUnknownMemberType]  # untyped there
    return str(result["said"])
