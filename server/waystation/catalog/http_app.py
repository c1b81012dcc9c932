"""The project's own web application that `http.app` names: found and checked; `services/http_app.py` runs it."""

from __future__ import annotations

from typing import Any, cast

from starlette.applications import Starlette

from waystation.catalog.importing import Importer
from waystation.catalog.project import Project
from waystation.catalog.spec import parse_spec
from waystation.errors import ConfigError

KEY = "http.app"


def load_http_app(project: Project) -> Starlette | None:
    """The application; None without one. Imports the user's file: call it in a thread.

    Raises:
        ConfigError: it cannot be loaded, or is neither a Starlette nor a FastAPI application.
    """
    text = project.http.app if project.http else None
    if text is None:
        return None
    importer = Importer(project.root, project.folders)
    importer.extend_path()
    found = importer.load(parse_spec(KEY, text, root=project.root), what=KEY)
    if not isinstance(found, Starlette):
        raise ConfigError(
            f"{KEY} is {text!r}: expected a Starlette or FastAPI application, found a {type(found).__name__}"
            " (middleware around it belongs into its own list: app.add_middleware)"
        )
    return found


def describe_http_app(app: Starlette) -> dict[str, Any] | None:
    """Its OpenAPI document, where it makes one, as FastAPI does."""
    make = getattr(app, "openapi", None)
    document: object = make() if callable(make) else None
    return cast(dict[str, Any], document) if isinstance(document, dict) else None


def startup_failure(project: Project, error: BaseException) -> ConfigError:
    """What stops the start when the application's lifespan fails: file, line and reason."""
    text = project.http.app if project.http else None
    reason = Importer(project.root, project.folders).reason(error)
    return ConfigError(f"{KEY} ({text}) does not start: {reason}")
