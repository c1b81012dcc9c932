"""What a project is made of: `langgraph.json`, or the variables that an image hands over instead of it.

`configure` is what a command calls; it gives the settings too, because a project's `env` may hold some of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from waystation.catalog.dependencies import read_dependencies
from waystation.catalog.env_file import read_env
from waystation.catalog.keys import (
    AuthKeys,
    CheckpointerKeys,
    HttpKeys,
    PathKeys,
    ProjectKeys,
    StoreKeys,
    WebhookKeys,
)
from waystation.catalog.keys_form import unknown_keys
from waystation.catalog.keys_own import WaystationKeys
from waystation.catalog.spec import GraphSpec, parse_graph, parse_spec
from waystation.config import Settings, export_environment, ineffective_variables, settings_environment
from waystation.errors import ConfigError

if TYPE_CHECKING:  # it loads the guards and their prices: most projects need neither
    from waystation.catalog.keys_guards import GuardKeys

CONFIG_NAME = "langgraph.json"

_VARIABLES = {
    "graphs": "langserve_graphs",
    "store": "langgraph_store",
    "checkpointer": "langgraph_checkpointer",
    "auth": "langgraph_auth",
    "http": "langgraph_http",
    "webhooks": "langgraph_webhooks",
    "encryption": "langgraph_encryption",
    "priority": "langgraph_priority",
    "ui": "langgraph_ui",
    "ui_config": "langgraph_ui_config",
}
"""Keys of the file, and the settings that hold them in an image."""


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
    guards: GuardKeys | None = None
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
        project = project_from_settings(settings, root=root)
        return settings, replace(project, warnings=(*project.warnings, *ineffective_variables()))
    project = read_project(config or root / CONFIG_NAME)
    export_environment(project.env)
    settings = Settings.load()
    unused = [
        f"{settings_environment()[field].names[0]} is set and has no effect: {project.config_path} is read instead"
        for field in _VARIABLES.values()
        if getattr(settings, field) is not None
    ]
    return settings, replace(project, warnings=(*project.warnings, *unused, *ineffective_variables()))


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
    """The project that the variables of an image describe. Its dependencies are installed already. What is ours alone
    has no variable: it is taken from the `langgraph.json` that lies in `root`, if there is one.

    Raises:
        ConfigError: a wrong value, named by its key in `langgraph.json`.
    """
    given = {key: getattr(settings, field) for key, field in _VARIABLES.items()}
    raw: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        if (file := root / CONFIG_NAME).is_file() and "waystation" in (beside := _read_json(file)):
            raw["waystation"] = beside["waystation"]
        return _project(ProjectKeys.model_validate(raw), raw, root=root.resolve(), config_path=None)
    except ValidationError as e:
        raise ConfigError("\n".join(f"environment: {line}" for line in _complaints(e))) from None
    except ConfigError as e:
        raise ConfigError(f"environment: {e.message}") from None


def _project(keys: ProjectKeys, raw: dict[str, Any], *, root: Path, config_path: Path | None) -> Project:
    warnings = [*(f"{name} is not known and has no effect{hint}" for name, hint in unknown_keys(keys)), *_inert(keys)]
    _check_specs(keys, root)
    env, env_warnings = read_env(keys.env, root)
    folders, dependency_warnings = read_dependencies(keys.dependencies, root)
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
        guards=_guards(keys, root),
        raw=raw,
        warnings=(*warnings, *env_warnings, *dependency_warnings),
    )


def _guards(keys: ProjectKeys, root: Path) -> GuardKeys | None:
    if keys.waystation.guards is None:
        return None
    from waystation.catalog.keys_guards import read_guards
    from waystation.catalog.keys_guards_caches import check_semantic

    guards = read_guards(keys.waystation.guards, root)
    check_semantic(guards.cache, keys.store, keys.waystation.store.vectors)
    return guards


def _check_specs(keys: ProjectKeys, root: Path) -> None:
    """Whether every name of an object in the project's code has the form of one."""
    paths = {
        "http.app": keys.http and keys.http.app,
        "auth.path": keys.auth and keys.auth.path,
        "encryption.path": keys.encryption and keys.encryption.path,
        "priority.path": keys.priority and keys.priority.path,
    }
    for key, text in paths.items():
        if text:
            parse_spec(key, text, root=root)
    if keys.checkpointer and keys.checkpointer.path is not None:
        raise ConfigError(
            f"checkpointer.path is {keys.checkpointer.path!r}: a checkpointer of your own is not supported, "
            "expected no such key (Waystation's, which writes LangGraph's tables on Postgres, is what fences runs)"
        )


def _inert(keys: ProjectKeys) -> Iterator[str]:
    """What is understood and has no effect here."""
    serde = keys.checkpointer.serde if keys.checkpointer else None
    for name in ("allowed_json_modules", "allowed_msgpack_modules"):
        if serde is not None and getattr(serde, name) is True:
            yield (
                f"checkpointer.serde.{name} is true, which would load any class that the database names: only listed "
                'ones are loaded here, expected a list such as [["my_agent.models", "MyState"]]'
            )
    if serde is not None and serde.pickle_fallback:
        yield "checkpointer.serde.pickle_fallback is true: pickle runs what it loads, and is never loaded here"
    if keys.ui or keys.ui_config:
        yield "ui and ui_config have no effect: no components are built here, and /ui answers 404"
    for graph_id, value in keys.graphs.items():
        if isinstance(value, dict):
            unknown = [name for name in cast(dict[str, Any], value) if name not in ("path", "description")]
            yield from (f"graphs.{graph_id}.{name} is not known and has no effect" for name in unknown)


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


def _complaints(error: ValidationError) -> Iterator[str]:
    told: set[str] = set()
    for item in error.errors(include_url=False, include_context=False):
        # A union adds the name of its member to the place, and one error for each: the first one is told.
        key = ".".join(str(part) for part in item["loc"] if part != "bool" and "[" not in str(part))
        if key in told:
            continue
        told.add(key)
        # A frozen model keeps a list as a tuple, which no JSON has.
        message = item["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
        shown = "missing" if item["type"] == "missing" else repr(item["input"])[:200]
        yield f"{key} is {shown}: {message[:1].lower()}{message[1:]}"
