"""What a project is made of: `langgraph.json`, or the variables that an image hands over instead of it.

`configure` is what a command calls; it gives the settings too, because a project's `env` may hold some of them.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from dotenv import dotenv_values
from pydantic import ValidationError

from waystation.catalog.keys import (
    AuthKeys,
    CheckpointerKeys,
    HttpKeys,
    PathKeys,
    ProjectKeys,
    StoreKeys,
    WaystationKeys,
    WebhookKeys,
    unknown_keys,
)
from waystation.catalog.spec import GraphSpec, parse_graph
from waystation.config import Settings, export_environment
from waystation.errors import ConfigError

CONFIG_NAME = "langgraph.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A project, read and checked; none of its code has run. Sections that are not given are None.

    `folders` are for the import path. `raw` is the file as it was written. `warnings` are sentences for the operator.
    """

    root: Path
    config_path: Path | None
    graphs: Mapping[str, GraphSpec]
    dependencies: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    store: StoreKeys | None = None
    checkpointer: CheckpointerKeys | None = None
    auth: AuthKeys | None = None
    encryption: PathKeys | None = None
    priority: PathKeys | None = None
    http: HttpKeys | None = None
    webhooks: WebhookKeys | None = None
    ui: Mapping[str, str] | None = None
    ui_config: Mapping[str, Any] | None = None
    waystation: WaystationKeys = field(default_factory=WaystationKeys)
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()


def configure(config: Path | None, *, root: Path) -> tuple[Settings, Project]:
    """The settings and the project of this process; exports the project's `env` for the graphs to read.

    `config` wins; without it the variables of an image (`LANGSERVE_GRAPHS`), then `langgraph.json` in `root`.

    Raises:
        ConfigError: with everything that `Settings.load` and `read_project` complain about.
    """
    settings = Settings.load()
    if config is None and settings.langserve_graphs is not None:
        return settings, project_from_settings(settings, root=root)
    project = read_project(config or root / CONFIG_NAME)
    export_environment(project.env)
    return Settings.load(), project


def read_project(path: Path) -> Project:
    """Read `langgraph.json`, or the one in the folder `path`.

    Raises:
        ConfigError: missing, no JSON (with line and column), a wrong value (with key, value and what was expected).
    """
    path = (path / CONFIG_NAME if path.is_dir() else path).resolve()
    raw = _read_json(path)
    try:
        keys = ProjectKeys.model_validate(raw)
        if not keys.dependencies and keys.source is None:
            raise ConfigError('dependencies is missing: expected a list, such as ["."]')
        return _project(keys, raw, root=path.parent, config_path=path)
    except ValidationError as e:
        raise ConfigError("\n".join(f"{path.name}: {line}" for line in _complaints(e))) from None
    except ConfigError as e:
        raise ConfigError(f"{path.name}: {e.message}") from None


def project_from_settings(settings: Settings, *, root: Path) -> Project:
    """The project that the variables of an image describe. Its dependencies are installed already.

    Raises:
        ConfigError: a wrong value, named by its key in `langgraph.json`.
    """
    given = {
        "graphs": settings.langserve_graphs,
        "store": settings.langgraph_store,
        "checkpointer": settings.langgraph_checkpointer,
        "auth": settings.langgraph_auth,
        "http": settings.langgraph_http,
        "webhooks": settings.langgraph_webhooks,
        "encryption": settings.langgraph_encryption,
        "priority": settings.langgraph_priority,
        "ui": settings.langgraph_ui,
        "ui_config": settings.langgraph_ui_config,
    }
    raw: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        return _project(ProjectKeys.model_validate(raw), raw, root=root.resolve(), config_path=None)
    except ValidationError as e:
        raise ConfigError("\n".join(f"environment: {line}" for line in _complaints(e))) from None


def _project(keys: ProjectKeys, raw: dict[str, Any], *, root: Path, config_path: Path | None) -> Project:
    warnings = [f"{name} is not known and has no effect" for name in unknown_keys(keys)]
    env, env_warnings = _env(keys.env, root)
    folders, dependency_warnings = _dependencies(keys.dependencies, root)
    return Project(
        root=root,
        config_path=config_path,
        graphs={graph_id: parse_graph(graph_id, value, root=root) for graph_id, value in keys.graphs.items()},
        dependencies=keys.dependencies,
        folders=folders,
        env=env,
        store=keys.store,
        checkpointer=keys.checkpointer,
        auth=keys.auth,
        encryption=keys.encryption,
        priority=keys.priority,
        http=keys.http,
        webhooks=keys.webhooks,
        ui=keys.ui,
        ui_config=keys.ui_config,
        waystation=keys.waystation,
        raw=raw,
        warnings=(*warnings, *env_warnings, *dependency_warnings),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        parsed = cast(object, json.loads(text, object_pairs_hook=_no_duplicates))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: go to the project's folder, or name the file with --config"
        ) from None
    except json.JSONDecodeError as e:
        raise ConfigError(f"{path.name}, line {e.lineno}, column {e.colno}: {e.msg}") from None
    except (OSError, UnicodeDecodeError, RecursionError) as e:
        raise ConfigError(f"{path} cannot be read: {type(e).__name__}: {e}") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path.name} holds a {type(parsed).__name__}: expected a JSON object with the key graphs")
    return cast(dict[str, Any], parsed)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"{CONFIG_NAME}: {', '.join(twice)} is given twice in one object")
    return members


def _env(given: str | Mapping[str, str], root: Path) -> tuple[Mapping[str, str], list[str]]:
    if not isinstance(given, str):
        return given, []
    path = root / given
    if not path.is_file():
        # Not an error: templates name a `.env` that is not in the repository.
        return {}, [f"env names {given!r}, which does not exist"]
    return {name: value for name, value in dotenv_values(path).items() if value is not None}, []


def _dependencies(dependencies: tuple[str, ...], root: Path) -> tuple[tuple[Path, ...], list[str]]:
    folders: list[Path] = []
    warnings: list[str] = []
    for i, dependency in enumerate(dependencies):
        folder = (root / dependency).resolve()
        if folder.is_dir():
            folders += [f for f in _import_folders(folder) if f not in folders]
        elif dependency.startswith((".", "/")):
            raise ConfigError(f"dependencies[{i}] is {dependency!r}: no such folder below {root}")
        elif not _is_installed(dependency):
            warnings.append(
                f"dependencies[{i}] is {dependency!r}, which is not installed here: pip install '{dependency}'"
            )
    # Like `langgraph dev`: the project's own folder can be imported from, whatever the dependencies say.
    return tuple(folders if root in folders else [*folders, root]), warnings


def _import_folders(folder: Path) -> Iterator[Path]:
    yield folder
    if (folder / "src").is_dir() and not (folder / "src" / "__init__.py").exists():
        yield folder / "src"


def _is_installed(requirement: str) -> bool:
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s*($|[\[<>=!~;@ ]))", requirement)
    if name is None:
        return True  # a URL: nothing to look up by
    try:
        importlib.metadata.distribution(name.group())
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _complaints(error: ValidationError) -> Iterator[str]:
    told: set[str] = set()
    for item in error.errors(include_url=False, include_context=False):
        # A union adds the name of its member to the place, and one error for each: the first one is told.
        key = ".".join(str(part) for part in item["loc"] if part != "bool" and "[" not in str(part))
        if key in told:
            continue
        told.add(key)
        message = item["msg"].removeprefix("Value error, ")
        shown = "missing" if item["type"] == "missing" else repr(item["input"])[:200]
        yield f"{key} is {shown}: {message[:1].lower()}{message[1:]}"
