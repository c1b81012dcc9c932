"""The fixture project with a web application of its own, served with any `http` section."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from live_server import live_server_on
from waystation.config import Settings

WEBAPP = Path(__file__).parent / "fixtures" / "projects" / "webapp"


def webapp_project(
    folder: Path, *, app: str | None = "webapp_routes", top: dict[str, Any] | None = None, **keys: Any
) -> Path:
    """A folder with a `langgraph.json` for it; `keys` are of its `http`, `top` stands beside that."""
    http = {**({"app": f"{WEBAPP}/{app}.py:app"} if app else {}), **keys}
    config = {
        "dependencies": [str(WEBAPP)],
        "graphs": {"echo": f"{WEBAPP}/webapp_graph.py:graph"},
        "http": http,
        **(top or {}),
    }
    (folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@contextmanager
def webapp_client(
    database_uri: str, folder: Path, *, settings: Settings | None = None, **keys: Any
) -> Generator[httpx.Client]:
    """A client of a server that serves it."""
    project = webapp_project(folder, **keys)
    with live_server_on(database_uri, project=project, settings=settings) as server:
        # Keeps no connection: nothing of one test waits for another's.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=server.url, timeout=30, limits=limits) as client:
            yield client
